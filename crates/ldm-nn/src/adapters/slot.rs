//! Slots of layers: empty, but for the calls that adapters are attached for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use super::{Layers, LowRank};

/// One layer's branches in this call.
#[derive(Debug)]
struct Place {
    /// Of the layer's weight.
    shape: Vec<i64>,
    branches: Mutex<Vec<Branch>>,
}

/// A change of a layer, for some rows.
#[derive(Debug)]
struct Branch {
    rows: Range<i64>,
    layer: LowRank,
    strength: f64,
}

impl Place {
    /// A panic between taking and giving back leaves whole branches.
    fn branches(&self) -> MutexGuard<'_, Vec<Branch>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer's place for branches. Trained networks have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Option<Arc<Place>>);

impl Slot {
    pub(crate) fn new(shape: &[i64]) -> Self {
        Self(Some(Arc::new(Place { shape: shape.to_vec(), branches: Mutex::default() })))
    }

    /// Whether a branch is in it.
    pub(crate) fn is_occupied(&self) -> bool {
        self.0.as_ref().is_some_and(|place| !place.branches().is_empty())
    }

    /// `y`, what the layer made of `x`, with what every branch makes of its rows; the batch is the first dimension of both.
    pub(crate) fn add(&self, x: &Tensor, y: Tensor, apply: impl Fn(&LowRank, &Tensor) -> Tensor) -> Tensor {
        let Some(place) = &self.0 else { return y };
        let branches = place.branches();
        if branches.is_empty() {
            return y;
        }
        let batch = x.size()[0];
        for Branch { rows, layer, strength } in branches.iter() {
            let (from, to) = (rows.start.clamp(0, batch), rows.end.clamp(0, batch));
            if from >= to {
                continue;
            }
            let change = apply(layer, &x.narrow(0, from, to - from)) * (layer.scale * strength);
            let _ = y.narrow(0, from, to - from).g_add_(&change);
        }
        y
    }
}

/// The slots of layers that are being built, by path.
pub(crate) type SlotsInTheMaking = RefCell<BTreeMap<String, Slot>>;

/// The slots of a network, by the layer's path. A clone has the same slots.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<BTreeMap<String, Slot>>);

/// An adapter's changes of a network, for some rows of a call.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The rows; those beyond the batch are nobody's.
    pub rows: Range<i64>,
    /// The changes.
    pub layers: Rc<Layers>,
    /// What they are multiplied by.
    pub strength: f64,
}

impl Attachment {
    /// For every row.
    pub fn everywhere(layers: &Rc<Layers>, strength: f64) -> Self {
        Self { rows: 0..i64::MAX, layers: Rc::clone(layers), strength }
    }
}

/// Takes out what was put in, whatever happens in between.
struct Attached(Vec<(Arc<Place>, usize)>);

impl Drop for Attached {
    fn drop(&mut self) {
        for (place, before) in self.0.drain(..).rev() {
            place.branches().truncate(before);
        }
    }
}

impl Slots {
    pub(crate) fn of(made: &SlotsInTheMaking, path: &str) -> Self {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        let made = made.borrow();
        let own = made.iter().filter_map(|(path, slot)| Some((path.strip_prefix(&prefix)?.to_owned(), slot.clone())));
        Self(Arc::new(own.collect()))
    }

    /// Layers with the shapes of their weights.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.0.iter().filter_map(|(path, slot)| Some((path.as_str(), slot.0.as_ref()?.shape.as_slice())))
    }

    /// Whether no branch is in any slot.
    pub fn are_empty(&self) -> bool {
        !self.0.values().any(Slot::is_occupied)
    }

    /// What `call` gives while the adapters are attached. They are detached afterwards, also when it panics.
    ///
    /// # Panics
    /// When an adapter is for a layer that this network does not have: it was read for another one.
    pub fn with<T>(&self, attachments: &[Attachment], call: impl FnOnce() -> T) -> T {
        let mut attached = Attached(Vec::new());
        for Attachment { rows, layers, strength } in attachments {
            for (path, layer) in layers.iter() {
                let Some(place) = self.0.get(path).and_then(|slot| slot.0.as_ref()) else {
                    panic!("the adapter is for a layer `{path}` that this network does not have");
                };
                let mut branches = place.branches();
                attached.0.push((Arc::clone(place), branches.len()));
                branches.push(Branch { rows: rows.clone(), layer: layer.handle(), strength: *strength });
            }
        }
        let given = call();
        drop(attached);
        given
    }
}
