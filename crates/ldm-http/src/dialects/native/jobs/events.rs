//! A job's events for whoever wants to watch it: `GET /v1/jobs/{job}/events`. One recorder per watched job writes them down;
//! watchers read, hold nothing up, and cancel nothing when they go.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Event as Sent;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use ldm_core::{JobId, Progress};
use ldm_engine::Readiness;
use ldm_engine::node::NodeError;

use super::look::{Found, find};
use super::replay::{After, Replay, Replays};
use super::wire;
use crate::access::Access;
use crate::caller::Caller;
use crate::calls::{Entry, Followed, follow};
use crate::dialects::native::events::preview;
use crate::error::ApiError;
use crate::{App, sse};

/// How often a recorder looks whether somebody still watches, and whether the service stops.
const TICK: Duration = Duration::from_millis(500);
/// Ticks for which events are written down though nobody watches: who was cut off comes back.
const PATIENCE: u32 = 60;

/// Whose events.
#[derive(Clone)]
enum Source {
    Named(JobId),
    Passing(Arc<Entry>),
}

impl Source {
    fn id(&self) -> JobId {
        match self {
            Self::Named(id) => *id,
            Self::Passing(entry) => entry.id(),
        }
    }

    /// The job as it is; `None` when it is kept no longer.
    async fn look(&self, app: &App) -> Result<Option<wire::Job>, ApiError> {
        match (self, &app.node) {
            (Self::Passing(entry), _) => Ok(Some(wire::Job::passing(app, entry))),
            (Self::Named(_), None) => Ok(None),
            (Self::Named(id), Some(node)) => match node.ledger().get(&[*id]).await.map_err(NodeError::from)?.pop() {
                Some(view) => wire::Job::named(app, &view, true).await.map(Some),
                None => Ok(None),
            },
        }
    }
}

/// The stream of a job's events.
pub(super) async fn events(
    State(app): State<App>,
    access: Access,
    caller: Caller,
    Path(job): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // What is no number of ours is no event of ours: as if nothing was said.
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse::<u64>().ok());
    let source = match find(&app, &caller, &job).await? {
        Found::Named(view) => Source::Named(view.id),
        Found::Passing(entry) => Source::Passing(entry),
    };
    let now = source.look(&app).await?.ok_or_else(ApiError::gone)?;
    if let Some((_, _, id)) = now.last_event() {
        // Who has seen the end is told not to come again: so the HTML standard has it.
        return Ok(match seen.is_some_and(|seen| seen >= id) {
            true => StatusCode::NO_CONTENT.into_response(),
            false => sse::response(stream::iter(last(&now))),
        });
    }
    let replay = app.replays.of(source.id(), |replay| {
        tokio::spawn(record(app.clone(), source.clone(), replay));
    });
    let full = || ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", "too many jobs are watched").later(TICK);
    let replay = replay.ok_or_else(full)?;
    let watcher = Watcher { app, source, seen, replay, over: false, _access: access };
    Ok(sse::response(stream::unfold(watcher, |mut watcher| async move { watcher.next().await.map(|sent| (sent, watcher)) })))
}

/// The last event of a job that has ended.
fn last(job: &wire::Job) -> Option<Sent> {
    job.last_event().map(|(name, data, id)| event(id, name, &data))
}

fn event(id: u64, name: &str, data: &str) -> Sent {
    Sent::default().id(id.to_string()).event(name).data(data)
}

struct Watcher {
    app: App,
    source: Source,
    /// The number of the last event that was sent.
    seen: Option<u64>,
    replay: Arc<Replay>,
    over: bool,
    /// The record of the request covers the stream.
    _access: Access,
}

impl Watcher {
    async fn next(&mut self) -> Option<Sent> {
        let mut changes = self.replay.changes();
        while !self.over {
            changes.mark_unchanged();
            match self.seen.map_or(After::Lost, |seen| self.replay.after(seen)) {
                After::Next(told) => {
                    self.seen = Some(told.id);
                    return Some(event(told.id, told.name, &told.data));
                }
                After::Nothing => changes.changed().await.ok()?,
                After::Over => return None,
                After::Lost => return self.state().await,
            }
        }
        None
    }

    /// Where the job is now, in place of what is not known any more.
    async fn state(&mut self) -> Option<Sent> {
        // What is told meanwhile may say the same once more, and nothing is missed.
        let id = self.replay.newest();
        // Whoever comes again hears why.
        let job = self.source.look(&self.app).await.ok()??;
        self.over = job.last_event().is_some();
        self.seen = Some(id);
        Some(last(&job).unwrap_or_else(|| event(id, "state", &job.text())))
    }
}

/// Writes a job's events down until it has ended, or nobody has watched for a while.
async fn record(app: App, source: Source, replay: Arc<Replay>) {
    let mut scribe = Scribe { app: app.clone(), replay: Arc::clone(&replay), last: Vec::new(), previewed: Vec::new() };
    let told = async {
        match &source {
            Source::Named(id) => scribe.named(*id).await,
            Source::Passing(entry) => scribe.passing(entry).await,
        }
    };
    tokio::select! {
        () = told => finish(&app, &source, &replay).await,
        () = unwatched(&app, &source, &replay) => replay.close(),
    }
    app.replays.forget(source.id());
}

/// Tells the last event; where that cannot be had, who watches asks again.
async fn finish(app: &App, source: &Source, replay: &Replay) {
    match source.look(app).await.ok().flatten().and_then(|job| job.last_event()) {
        Some((name, data, id)) => replay.tell_last(name, data, id),
        None => replay.close(),
    }
}

/// Waits until nobody watches any more, or the service stops and the job goes on in another process.
async fn unwatched(app: &App, source: &Source, replay: &Arc<Replay>) {
    let mut idle = 0;
    loop {
        tokio::time::sleep(TICK).await;
        let elsewhere = matches!(source, Source::Named(id) if app.node.as_ref().is_none_or(|node| node.watch(*id).is_none()));
        if elsewhere && app.service.readiness() == Readiness::Draining {
            return;
        }
        idle = if Replays::is_unwatched(replay) { idle + 1 } else { 0 };
        if idle >= PATIENCE && app.replays.forget_unwatched(source.id(), replay) {
            return;
        }
    }
}

/// Who writes down what a job tells.
struct Scribe {
    app: App,
    replay: Arc<Replay>,
    /// The newest progress that was told, per picture.
    last: Vec<Option<Progress>>,
    /// The step of the newest preview that was told, per picture.
    previewed: Vec<u32>,
}

impl Scribe {
    async fn named(&mut self, id: JobId) {
        let Some(node) = &self.app.node else { return };
        let mut seen = std::pin::pin!(follow(node, id));
        while let Some(Ok(seen)) = seen.next().await {
            match seen {
                Followed::Queued(position) => {
                    // It may have run before, in a process that is gone.
                    self.last.clear();
                    self.previewed.clear();
                    self.queued(position);
                }
                Followed::Runs(sight) => {
                    for (image, progress) in sight.parts.into_iter().enumerate() {
                        if let Some(progress) = progress {
                            self.progress(image, progress).await;
                        }
                    }
                }
                Followed::Ended(_) => {}
            }
        }
    }

    async fn passing(&mut self, entry: &Arc<Entry>) {
        let mut watch = entry.watch();
        loop {
            match watch.progress() {
                Progress::Queued { position } => self.queued(position as u64),
                progress => self.progress(0, progress).await,
            }
            let told = tokio::select! {
                told = watch.changed() => told,
                () = entry.over() => false,
            };
            if !told {
                break;
            }
        }
        entry.over().await;
    }

    fn queued(&self, position: u64) {
        self.tell("queued", &wire::Queued { position });
    }

    async fn progress(&mut self, image: usize, progress: Progress) {
        if self.last.len() <= image {
            self.last.resize(image + 1, None);
            self.previewed.resize(image + 1, 0);
        }
        if self.last[image].as_ref() == Some(&progress) || matches!(progress, Progress::Queued { .. }) {
            return;
        }
        self.tell("progress", &wire::Moved::of(image, &progress));
        if let Progress::Step { preview: Some(shown), .. } = &progress
            && shown.step > self.previewed[image]
        {
            self.previewed[image] = shown.step;
            // One that cannot be written is left out: the picture will be there all the same.
            if let Ok(shown) = preview(&self.app.codec, image, shown.clone()).await {
                self.tell("preview", &shown);
            }
        }
        self.last[image] = Some(progress);
    }

    fn tell(&self, name: &'static str, data: &impl serde::Serialize) {
        // A struct of strings and numbers always becomes JSON.
        self.replay.tell(name, serde_json::to_string(data).unwrap_or_default());
    }
}

impl ApiError {
    /// It was there, and is kept no longer.
    pub(super) fn gone() -> Self {
        Self::new(StatusCode::GONE, "gone", "the job has ended, and what became of it is kept no longer")
    }
}
