//! A gate that a test opens, closes, and lets the device thread through one pass at a time.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::guard::lock;

/// How long a test waits for a thread to arrive before it gives up: long, since it is only waited for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gate on the device thread's way; open until closed.
#[derive(Debug, Default)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    /// Passes that a closed gate still lets through.
    passes: usize,
    waiting: usize,
}

impl Inner {
    fn blocks(&self) -> bool {
        self.closed && self.passes == 0
    }
}

impl Gate {
    /// From now on only [`allow`](Self::allow) lets somebody through.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        {
            let mut inner = lock(&self.inner);
            (inner.closed, inner.passes) = (false, 0);
        }
        self.changed.notify_all();
    }

    /// Lets `passes` more through.
    pub fn allow(&self, passes: usize) {
        lock(&self.inner).passes += passes;
        self.changed.notify_all();
    }

    /// Blocks until the device thread stands before the gate and cannot pass.
    ///
    /// # Panics
    /// When nobody comes for half a minute.
    pub fn wait_blocked(&self) {
        let stands = |inner: &mut Inner| !(inner.blocks() && inner.waiting > 0);
        let (_inner, timeout) =
            self.changed.wait_timeout_while(lock(&self.inner), PATIENCE, stands).unwrap_or_else(|poison| poison.into_inner());
        assert!(!timeout.timed_out(), "nobody came to the gate");
    }

    /// The device thread's side.
    pub(super) fn pass(&self) {
        let mut inner = lock(&self.inner);
        inner.waiting += 1;
        self.changed.notify_all();
        inner = self.changed.wait_while(inner, |inner| inner.blocks()).unwrap_or_else(|poison| poison.into_inner());
        inner.waiting -= 1;
        if inner.closed {
            inner.passes -= 1;
        }
    }
}
