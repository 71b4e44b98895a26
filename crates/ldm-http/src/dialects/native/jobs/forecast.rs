//! How far a job is, and how long it will take from here.

use std::time::{Duration, SystemTime};

use ldm_core::{Priority, Progress, Terms};
use ldm_engine::Readiness;
use ldm_engine::ledger::{JobState, JobView};
use ldm_engine::node::{Node, NodeError, Sight};

use crate::App;
use crate::calls::{Entry, State};
use crate::error::ApiError;

/// What steps are of a picture's way; the rest is decoding and writing.
const STEPS: f64 = 0.95;
/// From this share on, what a job took so far says what it will take.
const TELLING: f64 = 0.1;

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::dialects::native) struct Live {
    /// Steps of its foremost unfinished picture, and of how many.
    pub(super) step: Option<(u32, u32)>,
    /// 0 to 1.
    pub(super) share: f64,
    /// Until its pictures are there.
    pub(super) eta: Option<Duration>,
}

/// How far one picture is, 0 to 1.
fn share(progress: &Progress) -> f64 {
    match progress {
        Progress::Queued { .. } | Progress::Preparing => 0.0,
        Progress::Step { step, steps, .. } => STEPS * f64::from(*step) / f64::from((*steps).max(1)),
        Progress::Decoding => STEPS,
    }
}

fn step(progress: &Progress) -> Option<(u32, u32)> {
    match progress {
        Progress::Step { step, steps, .. } => Some((*step, *steps)),
        _ => None,
    }
}

/// What is left of a job that would take `solo` by itself, and took `spent` for its `share`.
fn left(solo: Duration, spent: Duration, share: f64) -> Duration {
    let rest = (1.0 - share).clamp(0.0, 1.0);
    let told = if share >= TELLING { spent.mul_f64(rest / share) } else { Duration::ZERO };
    // Company slows a job down; it never makes one faster.
    solo.mul_f64(rest).max(told)
}

/// Of a job that runs here.
pub(super) fn running(view: &JobView, sight: &Sight, node: &Node) -> Live {
    let parts = sight.parts.iter().flatten();
    let all = sight.parts.len().max(1) as f64;
    let done = (sight.done as f64 + parts.clone().map(share).sum::<f64>()) / all;
    let spent = view.started.map(|started| node.now().since(started)).unwrap_or_default();
    let eta = left(Duration::from_millis(view.cost_ms), spent, done);
    Live { step: parts.filter_map(step).max(), share: done.min(1.0), eta: Some(eta) }
}

/// Of a named job; of one that waits with an estimate, where `estimate` asks for it.
pub(super) async fn named(app: &App, view: &JobView, estimate: bool) -> Result<Live, ApiError> {
    let Some(node) = &app.node else { return Ok(Live::default()) };
    match &view.state {
        JobState::Queued { position } if estimate => {
            let wait = wait(app, node, view, *position).await?;
            Ok(Live { eta: Some(wait + Duration::from_millis(view.cost_ms)), ..Live::default() })
        }
        JobState::Running { .. } => {
            let sight = node.watch(view.id).map(|sightings| sightings.borrow().clone());
            Ok(sight.map(|sight| running(view, &sight, node)).unwrap_or_default())
        }
        state => Ok(Live { share: if state.name() == "succeeded" { 1.0 } else { 0.0 }, ..Live::default() }),
    }
}

/// Until a waiting job begins: what runs, and the mean of its lane for each that comes before it.
async fn wait(app: &App, node: &Node, view: &JobView, position: u64) -> Result<Duration, ApiError> {
    let load = node.ledger().load().await.map_err(NodeError::from)?;
    let mean = |lane: &ldm_engine::ledger::LaneLoad| lane.outstanding_ms / (lane.queued + lane.running).max(1);
    let own = load.lanes.iter().find(|lane| lane.model == view.model && lane.priority == view.priority);
    let urgent = load.lanes.iter().filter(|lane| lane.priority == Priority::Interactive && view.priority == Priority::Batch);
    let before =
        own.map_or(0, |lane| mean(lane).saturating_mul(position)) + urgent.map(|lane| mean(lane) * lane.queued).sum::<u64>();
    let workers = app.service.workers();
    let ready = workers.iter().filter(|worker| worker.readiness == Readiness::Ready).count().max(1);
    let busy: f64 = workers.iter().map(|worker| worker.outstanding).sum();
    let busy = Duration::try_from_secs_f64(busy).unwrap_or_default();
    Ok((Duration::from_millis(before) + busy) / u32::try_from(ready).unwrap_or(1))
}

/// Of a job that runs for a connection.
pub(super) fn passing(app: &App, entry: &Entry) -> Live {
    match entry.state() {
        State::Open(Progress::Queued { .. }) => {
            let terms = Terms { tenant: entry.tenant().clone(), priority: entry.priority(), deadline: None };
            Live { eta: app.service.estimate(entry.request(), &terms).ok().map(|estimate| estimate.p50), ..Live::default() }
        }
        State::Open(progress) => {
            let done = share(&progress);
            let spent = entry.started().and_then(|started| SystemTime::now().duration_since(started).ok()).unwrap_or_default();
            let (_, solo) = app.service.quote(entry.request());
            Live { step: step(&progress), share: done, eta: Some(left(solo, spent, done)) }
        }
        State::Succeeded => Live { share: 1.0, ..Live::default() },
        State::Failed(_) | State::Canceled => Live::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_what_it_took_and_never_by_less_than_it_takes_alone() {
        let s = Duration::from_secs;
        assert_eq!(left(s(10), s(0), 0.0), s(10));
        assert_eq!(left(s(10), s(60), 0.05), s(10).mul_f64(0.95), "too early to tell");
        assert_eq!(left(s(10), s(30), 0.5), s(30));
        assert_eq!(left(s(10), s(1), 0.5), s(5));
        assert_eq!(left(s(10), s(1), 1.0), s(0));
    }

    #[test]
    fn a_picture_only_goes_forward() {
        let step = |step| Progress::Step { step, steps: 3, preview: None };
        let way = [Progress::Queued { position: 2 }, Progress::Preparing, step(1), step(2), step(3), Progress::Decoding];
        let shares: Vec<f64> = way.iter().map(share).collect();
        assert!(shares.is_sorted() && shares[0] == 0.0 && shares[5] < 1.0, "{shares:?}");
    }
}
