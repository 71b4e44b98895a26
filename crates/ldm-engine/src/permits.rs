//! Permits: how many jobs may be unfinished at once, in all and of one tenant, and how many bytes they may hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ldm_core::Tenant;

use crate::Monitor;
use crate::guard::lock;

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait for a device.
    pub queued: usize,
    /// Jobs on a device.
    pub running: usize,
    /// Jobs that may be unfinished at once, waiting and running together.
    pub limit: usize,
    /// Bytes that unfinished jobs hold: requests and pictures.
    pub bytes: usize,
}

/// What may be unfinished at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) jobs: usize,
    pub(crate) bytes: usize,
    pub(crate) per_tenant: usize,
}

/// Which bound stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    Jobs(Load),
    Bytes { held: usize },
    Tenant { held: usize },
}

#[derive(Default)]
struct Taken {
    load: Load,
    tenants: HashMap<Tenant, usize>,
}

/// The permits of one service.
pub(crate) struct Permits {
    bounds: Bounds,
    taken: Mutex<Taken>,
    monitor: Arc<dyn Monitor>,
}

impl Permits {
    pub(crate) fn new(bounds: Bounds, monitor: Arc<dyn Monitor>) -> Arc<Self> {
        let load = Load { limit: bounds.jobs, ..Load::default() };
        Arc::new(Self { bounds, taken: Mutex::new(Taken { load, tenants: HashMap::new() }), monitor })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn load(&self) -> Load {
        lock(&self.taken).load
    }

    pub(crate) fn monitor(&self) -> &dyn Monitor {
        &*self.monitor
    }

    /// A permit for each job, which holds so many bytes, or none at all: then what stood in the way.
    pub(crate) fn take(self: &Arc<Self>, tenant: &Tenant, bytes: &[usize]) -> Result<Vec<Permit>, Short> {
        let (count, sum) = (bytes.len(), bytes.iter().sum::<usize>());
        self.change(|taken| {
            let Taken { load, tenants } = taken;
            if load.queued + load.running + count > self.bounds.jobs {
                return Err(Short::Jobs(*load));
            }
            if load.bytes + sum > self.bounds.bytes {
                return Err(Short::Bytes { held: load.bytes });
            }
            let own = tenants.get(tenant).copied().unwrap_or_default();
            if own + count > self.bounds.per_tenant {
                return Err(Short::Tenant { held: own });
            }
            load.queued += count;
            load.bytes += sum;
            *tenants.entry(tenant.clone()).or_default() += count;
            Ok(())
        })?;
        let permit = |&bytes| Permit { permits: Arc::clone(self), tenant: tenant.clone(), bytes, running: false };
        Ok(bytes.iter().map(permit).collect())
    }

    // The monitor is told under the lock, so that what it heard last is how things are.
    fn change<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        let mut taken = lock(&self.taken);
        let before = taken.load;
        let answer = change(&mut taken);
        if taken.load != before {
            self.monitor.load(&taken.load);
        }
        answer
    }
}

/// The right to be unfinished; dropping it gives it back.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    tenant: Tenant,
    bytes: usize,
    running: bool,
}

impl Permit {
    /// The job goes from the queue to a device.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.running, true) {
            self.permits.change(|taken| {
                taken.load.queued -= 1;
                taken.load.running += 1;
            });
        }
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.change(|Taken { load, tenants }| {
            if self.running {
                load.running -= 1
            } else {
                load.queued -= 1
            }
            load.bytes -= self.bytes;
            if let Some(own) = tenants.get_mut(&self.tenant) {
                *own -= 1;
                if *own == 0 {
                    tenants.remove(&self.tenant);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    fn permits(jobs: usize, bytes: usize, per_tenant: usize) -> Arc<Permits> {
        Permits::new(Bounds { jobs, bytes, per_tenant }, Arc::new(Silent))
    }

    #[test]
    fn all_or_nothing_and_given_back_on_drop() {
        let (permits, tenant) = (permits(3, 100, 3), Tenant::default());
        let mut two = permits.take(&tenant, &[10, 20]).ok().unwrap();
        let load = Load { queued: 2, running: 0, limit: 3, bytes: 30 };
        assert_eq!(permits.take(&tenant, &[1, 1]).err(), Some(Short::Jobs(load)));
        two[0].start();
        two[0].start();
        assert_eq!(permits.load(), Load { queued: 1, running: 1, ..load });
        two.remove(0);
        assert_eq!(permits.load(), Load { queued: 1, running: 0, bytes: 20, ..load });
        drop(two);
        assert_eq!(permits.take(&tenant, &[0, 0, 0]).map(|taken| taken.len()).ok(), Some(3));
        assert_eq!(permits.load(), Load { queued: 0, running: 0, limit: 3, bytes: 0 });
    }

    #[test]
    fn bytes_and_tenants_are_bounded_apart() {
        let (permits, one, two) = (permits(9, 100, 2), Tenant::new("one"), Tenant::new("two"));
        let held = permits.take(&one, &[30, 30]).ok().unwrap();
        assert_eq!(permits.take(&one, &[1]).err(), Some(Short::Tenant { held: 2 }));
        assert_eq!(permits.take(&two, &[41]).err(), Some(Short::Bytes { held: 60 }));
        let other = permits.take(&two, &[40]).ok().unwrap();
        drop(held);
        assert!(permits.take(&one, &[30, 30]).is_ok());
        drop(other);
        assert_eq!(permits.load().bytes, 0);
        assert!(lock(&permits.taken).tenants.is_empty(), "tenants that hold nothing are forgotten");
    }
}
