//! A named job from now to its end, wherever it is: in the ledger's queue, on this node, or ended.

use std::time::Duration;

use futures_util::stream::{self, Stream};
use ldm_core::JobId;
use ldm_engine::ledger::{JobState, JobView};
use ldm_engine::node::{Node, NodeError, Sight, Sightings};

use crate::error::ApiError;

/// After which pause a job that does not run here is looked at again; the longer nothing happens, the longer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is seen of a named job.
#[derive(Clone, Debug)]
pub(crate) enum Followed {
    /// It waits; so many come before it.
    Queued(u64),
    /// It runs here.
    Runs(Sight),
    /// It has ended; the last thing that is seen.
    Ended(Box<JobView>),
}

struct Eye {
    node: Node,
    id: JobId,
    sightings: Option<Sightings>,
    /// What was told last, so that the same is not told again.
    position: Option<u64>,
    pause: Duration,
    over: bool,
}

/// What becomes of the job; looks that say nothing new are left out. An error ends it, as does the ending.
pub(crate) fn follow(node: &Node, id: JobId) -> impl Stream<Item = Result<Followed, ApiError>> + Send + 'static {
    let eye = Eye { node: node.clone(), id, sightings: None, position: None, pause: FIRST_PAUSE, over: false };
    stream::unfold(eye, |mut eye| async move {
        if eye.over {
            return None;
        }
        let seen = eye.next().await;
        eye.over = matches!(seen, Err(_) | Ok(Followed::Ended(_)));
        Some((seen, eye))
    })
}

impl Eye {
    async fn next(&mut self) -> Result<Followed, ApiError> {
        loop {
            if let Some(sightings) = &mut self.sightings {
                // Its sender goes with the job's task, whose last word is `over`.
                let told = sightings.changed().await.is_ok();
                let sight = sightings.borrow_and_update().clone();
                if told && !sight.over {
                    return Ok(Followed::Runs(sight));
                }
                self.sightings = None;
            }
            let gone = || ApiError::new(axum::http::StatusCode::GONE, "gone", format!("job {} is kept no longer", self.id));
            let view = self.node.ledger().get(&[self.id]).await.map_err(NodeError::from)?.pop().ok_or_else(gone)?;
            if view.state.is_terminal() {
                return Ok(Followed::Ended(Box::new(view)));
            }
            if let JobState::Queued { position } = view.state
                && self.position.replace(position) != Some(position)
            {
                self.pause = FIRST_PAUSE;
                return Ok(Followed::Queued(position));
            }
            self.wait().await;
        }
    }

    /// Waits until the job begins here, or until it is time to look again.
    async fn wait(&mut self) {
        let mut taken = self.node.taken();
        let rest = tokio::time::sleep(self.pause);
        let mut rest = std::pin::pin!(rest);
        loop {
            self.sightings = self.node.watch(self.id);
            if let Some(sightings) = &mut self.sightings {
                // What is there already is news, too.
                sightings.mark_changed();
                return;
            }
            tokio::select! {
                () = &mut rest => break,
                changed = taken.changed() => if changed.is_err() { break },
            }
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
