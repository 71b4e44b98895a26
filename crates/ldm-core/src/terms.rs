//! On whose behalf a job runs, and how urgently: what the engine needs to know beside the picture.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whoever pays for a job. Jobs of different tenants share a device fairly. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The tenant of that name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Everybody who gave no name.
impl Default for Tenant {
    fn default() -> Self {
        Self::new("anonymous")
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How urgent a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It may wait for those that somebody waits for; it always gets a share.
    Batch,
}

impl Priority {
    /// Both, the urgent one first.
    pub const ALL: [Priority; 2] = [Priority::Interactive, Priority::Batch];

    /// The name that wires, metrics and logs use.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Interactive => "interactive",
            Priority::Batch => "batch",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a job is submitted under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// On whose behalf.
    pub tenant: Tenant,
    /// How urgent.
    pub priority: Priority,
    /// How long after submission the picture is of use, at most; `None` is as long as it takes.
    pub deadline: Option<Duration>,
}
