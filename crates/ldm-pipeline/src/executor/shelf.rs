//! The models of a device: described, loaded, replaced, and let go of.

use std::rc::Rc;

use ldm_core::{Failure, FailureKind};
use ldm_engine::Resident;
use ldm_nn::memory::Lean;

use crate::blueprint::Blueprint;
use crate::families::{self, Described, ModelError};
use crate::options::{LoadOptions, ModelSource};
use crate::system::System;

/// A model that can be asked for.
pub(crate) struct Entry {
    source: ModelSource,
    pub(super) described: Described,
    /// Counts the weights that the id stood for, from 1.
    generation: u64,
    pub(super) system: Option<Rc<System>>,
}

/// The models of a device, the default one first.
pub(crate) struct Shelf {
    options: LoadOptions,
    pub(super) entries: Vec<Entry>,
}

impl Shelf {
    /// Describes all models, and loads those that are not lazy.
    pub(super) fn new(sources: &[ModelSource], options: &LoadOptions) -> Result<Self, ModelError> {
        let mut shelf = Self { options: options.clone(), entries: Vec::new() };
        for source in sources {
            if shelf.entries.iter().any(|entry| entry.source.id == source.id) {
                return Err(ModelError::Mismatch(format!("two models are called {:?}", source.id)));
            }
            let entry = shelf.read(source, |_| 1, !source.lazy)?;
            shelf.entries.push(entry);
        }
        Ok(shelf)
    }

    pub(super) fn find(&self, id: &str) -> Result<&Entry, Failure> {
        let found = self.entries.iter().find(|entry| entry.source.id == id);
        found.ok_or_else(|| Failure::new(FailureKind::Unsupported, format!("model {id:?} is not served here")))
    }

    /// The model's weights.
    pub(crate) fn system(&self, id: &str) -> Result<Rc<System>, Failure> {
        let system = self.find(id)?.system.as_ref().map(Rc::clone);
        system.ok_or_else(|| Failure::new(FailureKind::Unsupported, format!("model {id:?} is not loaded")))
    }

    pub(super) fn residents(&self) -> Vec<Resident> {
        let resident = |entry: &Entry| Resident {
            id: entry.source.id.clone(),
            loaded: entry.system.is_some(),
            bytes: entry.described.bytes,
        };
        self.entries.iter().map(resident).collect()
    }

    /// Reads the weights of a model that is not loaded. They are called as before if they are the same.
    pub(super) fn load(&mut self, id: &str) -> Result<(), Failure> {
        let entry = self.find(id)?;
        if entry.system.is_some() {
            return Ok(());
        }
        let known = &entry.described.about.weights;
        let generation = |new: &Described| entry.generation + u64::from(new.about.weights != *known);
        let new = self.read(&entry.source, generation, true).map_err(failed)?;
        self.replace(new);
        Ok(())
    }

    /// Lets go of the weights; runs keep theirs.
    pub(super) fn unload(&mut self, id: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.source.id == id) {
            entry.system = None;
        }
    }

    /// Adds a model, or puts it in the place of the one of that id. What cannot be read changes nothing.
    pub(super) fn put(&mut self, source: &ModelSource) -> Result<(), Failure> {
        let before = self.entries.iter().find(|entry| entry.source.id == source.id);
        let generation = before.map_or(1, |entry| entry.generation + 1);
        let entry = self.read(source, |_| generation, !source.lazy).map_err(failed)?;
        self.replace(entry);
        Ok(())
    }

    /// Reads the model's files again; its weights too, if they are loaded.
    pub(super) fn reload(&mut self, id: &str) -> Result<(), Failure> {
        let entry = self.find(id)?;
        let new = self.read(&entry.source, |_| entry.generation + 1, entry.system.is_some()).map_err(failed)?;
        self.replace(new);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) -> Result<(), Failure> {
        self.find(id)?;
        self.entries.retain(|entry| entry.source.id != id);
        Ok(())
    }

    /// In the place of the model of that id, or at the end.
    fn replace(&mut self, new: Entry) {
        match self.entries.iter_mut().find(|entry| entry.source.id == new.source.id) {
            Some(entry) => *entry = new,
            None => self.entries.push(new),
        }
    }

    /// Reads a model. `generation` counts its weights, given what they are.
    fn read(
        &self,
        source: &ModelSource,
        generation: impl FnOnce(&Described) -> u64,
        with_weights: bool,
    ) -> Result<Entry, ModelError> {
        if source.id.is_empty() || source.id.contains('#') {
            // What follows a # tells generations of weights apart.
            return Err(ModelError::Mismatch(format!("a model's id must not be empty nor contain #: {:?}", source.id)));
        }
        let (blueprint, mut described) = families::described(source, &self.options)?;
        let generation = generation(&described);
        let system = if with_weights { Some(self.build(source, generation, blueprint, &described)?) } else { None };
        if let Some(system) = &system {
            described.about = system.about.clone();
        }
        Ok(Entry { source: source.clone(), described, generation, system })
    }

    fn build(
        &self,
        source: &ModelSource,
        generation: u64,
        blueprint: Blueprint,
        described: &Described,
    ) -> Result<Rc<System>, ModelError> {
        let _lean = Lean::new();
        let name = if generation == 1 { source.id.clone() } else { format!("{}#{generation}", source.id) };
        let system = families::build(source, &self.options, blueprint, described, name)?;
        let (family, parameters) = (&system.about.family, system.about.parameters);
        tracing::info!(model = source.id, name = system.name, family, parameters, bytes = described.bytes, "model loaded");
        Ok(Rc::new(system))
    }
}

impl Entry {
    /// What the weights are called in a batch key.
    pub(super) fn name(&self) -> String {
        match (&self.system, self.generation) {
            (Some(system), _) => system.name.clone(),
            (None, 1) => self.source.id.clone(),
            (None, generation) => format!("{}#{generation}", self.source.id),
        }
    }
}

/// A model that is not served, in the engine's words.
fn failed(error: ModelError) -> Failure {
    Failure::new(FailureKind::Unsupported, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn weights_go_when_nobody_holds_them() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/tiny-sd");
        let mut shelf = Shelf::new(&[ModelSource::new("tiny", tiny)], &LoadOptions::default()).expect("it loads");
        let weak = |shelf: &Shelf| Rc::downgrade(&shelf.system("tiny").expect("it is loaded"));
        let (first, held) = (weak(&shelf), shelf.system("tiny").expect("it is loaded"));
        shelf.unload("tiny");
        assert!(first.upgrade().is_some(), "somebody holds them");
        drop(held);
        assert!(first.upgrade().is_none());
        shelf.load("tiny").expect("it loads");
        let second = weak(&shelf);
        shelf.reload("tiny").expect("it is read again");
        assert!(second.upgrade().is_none());
        let third = weak(&shelf);
        shelf.remove("tiny").expect("it goes");
        assert!(third.upgrade().is_none());
    }
}
