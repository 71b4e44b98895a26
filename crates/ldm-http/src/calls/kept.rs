//! Calls that outlive their connection: a named job, told as the tickets of other calls tell theirs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use ldm_core::{Ending, Event, Failure, FailureKind, JobId, Output, Progress, Raster, Request, Terms, Timings};
use ldm_engine::ledger::{JobState, JobView, ObjectRef, Outcome, Submitted, Timestamp};
use ldm_engine::node::{Named, Node};
use sha2::{Digest, Sha256};

use super::{Call, Followed, Note, follow};
use crate::App;
use crate::codec::{Codec, Encoding, read_picture};
use crate::error::ApiError;

pub(super) async fn start(
    app: &App,
    node: &Node,
    requests: Vec<Request>,
    terms: Terms,
    encoding: Encoding,
) -> Result<Call, ApiError> {
    let images = requests.len() as u32;
    let Some(request) = requests.first().cloned() else { return Err(ApiError::internal()) };
    let id = JobId::new();
    // Nobody else knows the id, so nothing is compared with this.
    let fingerprint = Sha256::digest(id.to_string()).into();
    let note = Note::new(requests.len(), encoding).text();
    match node.submit(Named { id, terms, request, images, fingerprint, key: None, name: None, note, hook: None }).await? {
        Submitted::New(_) | Submitted::Existing(_) => {}
        Submitted::Conflict(_) => return Err(ApiError::internal()),
        Submitted::Full(full) => return Err(ApiError::full(full.limit as usize, full.retry_after)),
    }
    let requests: Vec<_> = requests.into_iter().map(Arc::new).collect();
    let events = events(app, node, id, requests.clone());
    Ok(Call { ids: vec![id], requests, events, entries: Vec::new() })
}

/// What the job's pictures tell, until each has told its ending.
fn events(app: &App, node: &Node, id: JobId, requests: Vec<Arc<Request>>) -> BoxStream<'static, (usize, Event)> {
    let shelf = Shelf { node: node.clone(), codec: app.codec.clone(), pixels: app.limits.pixels, requests };
    let told = Told { seen: follow(node, id).boxed(), shelf, last: Vec::new(), ready: VecDeque::new(), over: false };
    stream::unfold(told, |mut told| async move { told.next().await.map(|event| (event, told)) }).fuse().boxed()
}

struct Told<S> {
    seen: S,
    shelf: Shelf,
    /// The newest progress that was told, per picture.
    last: Vec<Option<Progress>>,
    ready: VecDeque<(usize, Event)>,
    over: bool,
}

impl<S: Stream<Item = Result<Followed, ApiError>> + Unpin> Told<S> {
    async fn next(&mut self) -> Option<(usize, Event)> {
        while self.ready.is_empty() {
            if self.over {
                return None;
            }
            match self.seen.next().await {
                Some(Ok(Followed::Queued(position))) => {
                    let position = usize::try_from(position).unwrap_or(usize::MAX);
                    let queued = |index| (index, Event::Progress(Progress::Queued { position: position.saturating_add(index) }));
                    self.ready.extend((0..self.shelf.requests.len()).map(queued));
                }
                Some(Ok(Followed::Runs(sight))) => self.progress(sight.parts),
                Some(Ok(Followed::Ended(view))) => {
                    let endings = self.shelf.endings(&view).await;
                    self.ready.extend(endings.into_iter().enumerate().map(|(index, ending)| (index, Event::Ended(ending))));
                    self.over = true;
                }
                lost @ (Some(Err(_)) | None) => {
                    let why =
                        lost.and_then(Result::err).map_or_else(|| "the job was lost sight of".to_owned(), |error| error.message);
                    let ending = Ending::Failed(Failure::new(FailureKind::WorkerLost, why));
                    let count = self.shelf.requests.len();
                    self.ready.extend((0..count).map(|index| (index, Event::Ended(ending.clone()))));
                    self.over = true;
                }
            }
        }
        self.ready.pop_front()
    }

    fn progress(&mut self, parts: Vec<Option<Progress>>) {
        self.last.resize(self.shelf.requests.len(), None);
        for (index, (last, now)) in self.last.iter_mut().zip(parts).enumerate() {
            if let Some(progress) = now.filter(|now| last.as_ref() != Some(now)) {
                *last = Some(progress.clone());
                self.ready.push_back((index, Event::Progress(progress)));
            }
        }
    }
}

/// Where the pictures lie, and what they were asked for by.
struct Shelf {
    node: Node,
    codec: Codec,
    pixels: u64,
    requests: Vec<Arc<Request>>,
}

impl Shelf {
    /// How each picture ended.
    async fn endings(&self, view: &JobView) -> Vec<Ending> {
        let failed = |kind, message: &str| Ending::Failed(Failure::new(kind, message));
        let all = |ending: Ending| vec![ending; self.requests.len()];
        match &view.state {
            JobState::Ended(Outcome::Succeeded { outputs, .. }) => {
                let mut endings = Vec::with_capacity(self.requests.len());
                for (index, request) in self.requests.iter().enumerate() {
                    let picture = match outputs.get(index) {
                        Some(output) => self.picture(output).await,
                        None => Err("the job has fewer pictures than were asked for".to_owned()),
                    };
                    let timings = timings(view);
                    let output = |image| Ending::Finished(Output { image, request: Arc::clone(request), timings });
                    endings.push(picture.map_or_else(|message| failed(FailureKind::WorkerLost, &message), output));
                }
                endings
            }
            JobState::Ended(Outcome::Failed { reason, message }) => all(failed(kind(reason), message)),
            JobState::Ended(Outcome::Canceled) => all(Ending::Cancelled),
            JobState::Expired => all(failed(FailureKind::DeadlineExceeded, "the deadline passed before the picture was there")),
            JobState::Queued { .. } | JobState::Running { .. } => {
                all(failed(FailureKind::WorkerLost, "the job was lost sight of"))
            }
        }
    }

    async fn picture(&self, output: &ObjectRef) -> Result<Raster, String> {
        let file = self.node.objects().get(output).await.map_err(|error| {
            tracing::error!(%error, "a picture that was kept cannot be read");
            "the picture was kept and cannot be read; the log says why".to_owned()
        })?;
        // It was made here: requests bound it, not what clients may send.
        let pixels = self.pixels.max(u64::from(u32::MAX));
        let read = self.codec.run(move || read_picture(&file, pixels)).await.map_err(|error| error.message)?;
        read.map_err(|error| error.to_string())
    }
}

fn kind(reason: &str) -> FailureKind {
    FailureKind::ALL.into_iter().find(|kind| kind.name() == reason).unwrap_or(FailureKind::Device)
}

/// What the ledger knows of a job's times.
fn timings(view: &JobView) -> Timings {
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| match (from, to) {
        (Some(from), Some(to)) => to.since(from),
        _ => Duration::ZERO,
    };
    let queued = between(Some(view.created), view.started);
    Timings { queued, steps: between(view.started, view.ended), ..Timings::default() }
}
