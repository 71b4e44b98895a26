//! A named job from now to its end, wherever it is: in the ledger's queue, on this node, or ended.

use std::time::Duration;

use futures_util::stream::{self, Stream};
use ldm_core::JobId;
use ldm_engine::ledger::{JobState, JobView};
use ldm_engine::node::{Node, NodeError, Sight, Sightings};

use crate::error::ApiError;

/// How often a job that does not run here is looked at.
const LOOK: Duration = Duration::from_millis(100);

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
    over: bool,
}

/// What becomes of the job; looks that say nothing new are left out. An error ends it, as does the ending.
pub(crate) fn follow(node: &Node, id: JobId) -> impl Stream<Item = Result<Followed, ApiError>> + Send + 'static {
    let eye = Eye { node: node.clone(), id, sightings: None, position: None, over: false };
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
                return Ok(Followed::Queued(position));
            }
            self.sightings = self.node.watch(self.id);
            match &mut self.sightings {
                Some(sightings) => {
                    // What is there already is news, too.
                    sightings.mark_changed();
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}
