//! The doorbell of ledgers that live in one process: a node that waits hears of every job that came since its last claim.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use super::{NodeId, Wake};
use crate::guard::lock;

/// Counts what came; remembers the count that each node knew before its last claim.
#[derive(Debug)]
pub struct Bell {
    count: watch::Sender<u64>,
    known: Mutex<HashMap<NodeId, u64>>,
}

impl Default for Bell {
    /// A node that never claimed is rung at once.
    fn default() -> Self {
        Self { count: watch::Sender::new(1), known: Mutex::default() }
    }
}

impl Bell {
    /// Something may be claimed now; called after it was written down.
    pub fn ring(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// A claim begins: what came until now, it will see.
    pub fn claims(&self, node: &NodeId) {
        let count = *self.count.borrow();
        lock(&self.known).insert(node.clone(), count);
    }

    /// The node is gone.
    pub fn forget(&self, node: &NodeId) {
        lock(&self.known).remove(node);
    }

    /// Waits for something that came after the node's last claim began.
    pub async fn wait(&self, node: &NodeId, patience: Duration) -> Wake {
        let known = lock(&self.known).get(node).copied().unwrap_or(0);
        let mut count = self.count.subscribe();
        // The sender lives in this bell, so there is no error.
        match tokio::time::timeout(patience, count.wait_for(|count| *count > known)).await {
            Ok(_) => Wake::Rung,
            Err(_) => Wake::TimedOut,
        }
    }
}
