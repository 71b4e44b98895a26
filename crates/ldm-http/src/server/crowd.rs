//! The connections that are open: so many at most; one that is idle makes room for one that has just come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ConnectionLimits;
use super::pulse::Pulse;

/// The open connections. A clone is the same crowd.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    open: HashMap<u64, Arc<Pulse>>,
    last: u64,
}

/// A place in the crowd; dropping it gives it back.
pub(super) struct Place {
    crowd: Crowd,
    number: u64,
    pub(super) pulse: Arc<Pulse>,
}

impl Crowd {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one, or somebody has one and does nothing with it.
    pub(super) fn enter(&self, limits: &ConnectionLimits) -> Option<Place> {
        if self.inside().open.len() >= limits.connections.max(1) && !self.make_room() {
            return None;
        }
        let mut inside = self.inside();
        inside.last += 1;
        let (number, pulse) = (inside.last, Arc::new(Pulse::new(limits)));
        inside.open.insert(number, Arc::clone(&pulse));
        Some(Place { crowd: self.clone(), number, pulse })
    }

    /// Has the connection cut that has been idle for longest; says whether there is one.
    pub(super) fn make_room(&self) -> bool {
        let mut inside = self.inside();
        let idle = inside.open.iter().filter_map(|(number, pulse)| Some((pulse.idle_since()?, *number)));
        let Some((_, number)) = idle.min() else { return false };
        if let Some(pulse) = inside.open.remove(&number) {
            pulse.crowd_out();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.inside().open.remove(&self.number);
    }
}
