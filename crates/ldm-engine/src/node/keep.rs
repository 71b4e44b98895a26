//! Checkpoints into the object store, and records and objects out of it.

use ldm_core::Checkpoint;
use tokio::sync::mpsc;

use super::Inner;
use super::bundle::{self, Part};
use crate::Keeper;
use crate::ledger::{Fence, Kept, ObjectRef};
use crate::objects::checkpoint_key;

/// Sends the checkpoints of one picture to the task that runs its job.
pub(super) struct PartKeeper {
    pub(super) part: usize,
    pub(super) to: mpsc::UnboundedSender<(usize, Checkpoint)>,
}

// Unbounded, and bounded all the same: a device writes one every few seconds, and the newest replaces those before it.
impl Keeper for PartKeeper {
    fn keep(&self, checkpoint: Checkpoint) {
        // The task has ended: so has the job.
        let _ = self.to.send((self.part, checkpoint));
    }
}

/// Where a job's checkpoints go. Two places that take turns: the one that the ledger knows is never written over.
pub(super) struct Shelf {
    fence: Fence,
    turn: u64,
    newest: Option<ObjectRef>,
}

impl Shelf {
    pub(super) fn new(fence: Fence) -> Self {
        Self { fence, turn: 0, newest: None }
    }

    /// Uploads the parts. `None` when that was not possible.
    pub(super) async fn upload(&mut self, node: &Inner, parts: &[Part]) -> Option<(ObjectRef, u32)> {
        self.turn += 1;
        let key = format!("{}-{}", checkpoint_key(self.fence.id, self.fence.epoch), self.turn);
        match node.objects.put(&key, bundle::write(parts).into()).await {
            Ok(object) => Some((object, steps(parts))),
            Err(error) => {
                tracing::warn!(job = %self.fence.id, %error, "no checkpoint");
                None
            }
        }
    }

    /// Uploads the parts and tells the ledger.
    pub(super) async fn keep(&mut self, node: &Inner, parts: &[Part]) {
        let Some((object, step)) = self.upload(node, parts).await else { return };
        match node.ledger.checkpoint(&self.fence, object.clone(), step).await {
            Ok(Kept::Recorded { replaced }) => {
                self.newest = Some(object);
                if let Some(replaced) = replaced {
                    node.forget(&replaced.key).await;
                }
            }
            Ok(Kept::Superseded) => node.forget(&object.key).await,
            Err(error) => tracing::warn!(job = %self.fence.id, %error, "the ledger did not take a checkpoint"),
        }
    }

    /// The newest one that the ledger knows.
    pub(super) fn newest(&self) -> Option<&ObjectRef> {
        self.newest.as_ref()
    }
}

/// Steps that the parts have behind them: those of pictures that are half done.
pub(super) fn steps(parts: &[Part]) -> u32 {
    let half = |part: &Part| match part {
        Part::Half(checkpoint) => checkpoint.step,
        Part::Fresh | Part::Done(..) => 0,
    };
    parts.iter().map(half).max().unwrap_or(0)
}

/// The parts of a claim's checkpoint; all fresh when there is none, or none that can be read.
pub(super) async fn fetch(node: &Inner, fence: Fence, ckpt: Option<&ObjectRef>, count: usize) -> Vec<Part> {
    let fresh = || vec![Part::Fresh; count];
    let Some(object) = ckpt else { return fresh() };
    let read = match node.objects.get(object).await {
        Ok(bytes) => bundle::read(&bytes, count).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        tracing::warn!(job = %fence.id, error, "the job starts from the beginning");
        fresh()
    })
}
