//! Permits: how many jobs may be unfinished at once, and how many of them are on the device.

use std::sync::{Arc, Mutex};

use crate::Monitor;
use crate::guard::lock;

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait for the device.
    pub queued: usize,
    /// Jobs on the device.
    pub running: usize,
    /// Jobs that may be unfinished at once, waiting and running together.
    pub limit: usize,
}

/// The permits of one service.
pub(crate) struct Permits {
    load: Mutex<Load>,
    monitor: Arc<dyn Monitor>,
}

impl Permits {
    pub(crate) fn new(limit: usize, monitor: Arc<dyn Monitor>) -> Arc<Self> {
        Arc::new(Self { load: Mutex::new(Load { limit, ..Load::default() }), monitor })
    }

    pub(crate) fn load(&self) -> Load {
        *lock(&self.load)
    }

    pub(crate) fn monitor(&self) -> &dyn Monitor {
        &*self.monitor
    }

    /// `count` permits, or none: then the load that stood in the way.
    pub(crate) fn take(self: &Arc<Self>, count: usize) -> Result<Vec<Permit>, Load> {
        self.change(|load| {
            if load.queued + load.running + count > load.limit {
                return Err(*load);
            }
            load.queued += count;
            Ok(())
        })?;
        Ok((0..count).map(|_| Permit { permits: Arc::clone(self), running: false }).collect())
    }

    // The monitor is told under the lock, so that what it heard last is how things are.
    fn change<T>(&self, change: impl FnOnce(&mut Load) -> T) -> T {
        let mut load = lock(&self.load);
        let before = *load;
        let answer = change(&mut load);
        if *load != before {
            self.monitor.load(load.queued, load.running);
        }
        answer
    }
}

/// The right to be unfinished; dropping it gives it back.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    running: bool,
}

impl Permit {
    /// The job goes from the queue to the device.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.running, true) {
            self.permits.change(|load| {
                load.queued -= 1;
                load.running += 1;
            });
        }
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.change(|load| if self.running { load.running -= 1 } else { load.queued -= 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn all_or_nothing_and_given_back_on_drop() {
        let permits = Permits::new(3, Arc::new(Silent));
        let mut two = permits.take(2).ok().unwrap();
        assert_eq!(permits.take(2).err(), Some(Load { queued: 2, running: 0, limit: 3 }));
        two[0].start();
        two[0].start();
        assert_eq!(permits.load(), Load { queued: 1, running: 1, limit: 3 });
        two.remove(0);
        assert_eq!(permits.load(), Load { queued: 1, running: 0, limit: 3 });
        drop(two);
        assert_eq!(permits.take(3).map(|taken| taken.len()).ok(), Some(3));
        assert_eq!(permits.load(), Load { queued: 0, running: 0, limit: 3 });
    }
}
