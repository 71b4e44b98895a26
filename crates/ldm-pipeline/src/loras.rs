//! A model's adapters (LoRA, Hu et al. 2021): those that jobs may ask for, and those that are merged into its weights.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ldm_core::{Failure, FailureKind, Request};
use ldm_nn::adapters::{Layers, Part};
use ldm_nn::{Adapter, Attachment, Slots, Targets};
use tch::{Device, Kind};

use crate::blueprint::{Blueprint, ConditionerPlan};
use crate::families::ModelError;
use crate::options::ModelSource;

/// Files that a folder may hold.
const MOST_FILES: usize = 1024;

/// The safetensors files of a list of files and folders; a folder's in the order of their names.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ModelError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |source| ModelError::Read { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| extension == "safetensors") && file.is_file() {
                found.push(file);
            }
        }
        if found.len() > MOST_FILES {
            let message = format!("has {} .safetensors files, more than {MOST_FILES}", found.len());
            return Err(ModelError::Invalid { path: path.clone(), message });
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// The adapters that a job asked for: places in the [`Library`], with strengths.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chosen(Vec<(usize, f64)>);

impl Chosen {
    /// What names the choice in a cache.
    pub(crate) fn key(&self) -> Vec<(usize, u64)> {
        self.0.iter().map(|(adapter, strength)| (*adapter, strength.to_bits())).collect()
    }
}

/// The adapters that jobs may ask for, by name.
#[derive(Debug, Default)]
pub(crate) struct Library(Vec<(String, Adapter)>);

impl Library {
    fn read(source: &ModelSource, targets: &Targets, kind: Kind, device: Device) -> Result<Self, ModelError> {
        let mut adapters: Vec<(String, Adapter)> = Vec::new();
        for path in files(&source.loras)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if adapters.iter().any(|(other, _)| *other == name) {
                return Err(ModelError::Mismatch(format!("two LoRAs are called {name:?}")));
            }
            let adapter = open(&path, targets)?.to(kind, device);
            tracing::info!(model = source.id, lora = name, layers = adapter.len(), "LoRA loaded");
            adapters.push((name, adapter));
        }
        Ok(Self(adapters))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The adapters of a request.
    pub(crate) fn choose(&self, request: &Request) -> Result<Chosen, Failure> {
        let place = |lora: &ldm_core::Lora| {
            let found = self.0.iter().position(|(name, _)| *name == lora.name).map(|place| (place, lora.strength));
            found.ok_or_else(|| Failure::new(FailureKind::Unsupported, format!("LoRA {:?} is not loaded here", lora.name)))
        };
        request.loras.iter().map(place).collect::<Result<_, _>>().map(Chosen)
    }

    /// What `call` gives while the chosen adapters are attached to a part's layers, for every row.
    pub(crate) fn with<T>(&self, chosen: &Chosen, part: Part, slots: &Slots, call: impl FnOnce() -> T) -> T {
        slots.with(&self.attachments(chosen, part, 0..i64::MAX).collect::<Vec<_>>(), call)
    }

    /// Attachments of a batch, given what each job chose and how many rows it has; neighbours of one choice are one.
    pub(crate) fn rows<'a>(&self, jobs: impl Iterator<Item = (&'a Chosen, i64)>) -> Vec<Attachment> {
        let mut spans: Vec<(&Chosen, Range<i64>)> = Vec::new();
        let mut from = 0;
        for (chosen, rows) in jobs {
            match spans.last_mut() {
                Some((last, span)) if *last == chosen => span.end += rows,
                _ => spans.push((chosen, from..from + rows)),
            }
            from += rows;
        }
        spans.into_iter().flat_map(|(chosen, span)| self.attachments(chosen, Part::Unet, span)).collect()
    }

    fn attachments(&self, chosen: &Chosen, part: Part, rows: Range<i64>) -> impl Iterator<Item = Attachment> {
        chosen.0.iter().map(move |&(adapter, strength)| {
            let layers = Rc::clone(self.0[adapter].1.part(part));
            Attachment { rows: rows.clone(), layers, strength }
        })
    }
}

/// The adapters that are merged into the weights, with strengths.
#[derive(Debug, Default)]
pub(crate) struct Merged(Vec<(Adapter, f64)>);

impl Merged {
    /// What is merged into a part.
    pub(crate) fn part(&self, part: Part) -> Vec<(Rc<Layers>, f64)> {
        self.0.iter().map(|(adapter, strength)| (Rc::clone(adapter.part(part)), *strength)).collect()
    }
}

/// Both kinds of a source's adapters, read for the layers of its model.
pub(crate) fn read(
    source: &ModelSource,
    blueprint: &Blueprint,
    kind: Kind,
    device: Device,
) -> Result<(Library, Merged), ModelError> {
    if source.loras.is_empty() && source.merge.is_empty() {
        return Ok(Default::default());
    }
    let text = match &blueprint.conditioner {
        ConditionerPlan::Text(text) => [Some(&text.network.config), None],
        ConditionerPlan::TextPair { first, second, .. } => {
            [first.as_ref().map(|first| &first.network.config), Some(&second.network.config)]
        }
        _ => [None, None],
    };
    let targets = Targets::new(&blueprint.unet.config, text);
    let mut merged = Vec::new();
    for merge in &source.merge {
        if !merge.strength.is_finite() {
            return Err(ModelError::Mismatch(format!("{}: strength {} is no number", merge.path.display(), merge.strength)));
        }
        merged.push((open(&merge.path, &targets)?, merge.strength));
    }
    Ok((Library::read(source, &targets, kind, device)?, Merged(merged)))
}

fn open(path: &Path, targets: &Targets) -> Result<Adapter, ModelError> {
    Adapter::open(path, targets).map_err(|error| ModelError::Mismatch(format!("LoRA {error}")))
}
