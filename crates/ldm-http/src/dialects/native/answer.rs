//! From an order to its answer: JSON, the picture itself, or a stream of events.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ldm_core::{Catalogue, Ending, JobId, Output, Request, Timings};

use super::order::Order;
use super::{early, events, wire};
use crate::App;
use crate::access::Access;
use crate::calls::{Call, Guest, Leaving, Submission};
use crate::codec::{self, Encoding, base64};
use crate::error::{self, ApiError};
use crate::metadata::Notes;
use crate::negotiate::Form;
use crate::provenance::Provenance;
use crate::trace::Told;

/// Submits the order and answers in that form. Dropping the future, as axum does when the client goes, drops the call.
pub(super) async fn answer(app: App, guest: Guest, form: Form, order: Order) -> Result<Response, ApiError> {
    let Guest { access, caller, leaving } = guest;
    let Order { requests, terms, encoding, catalogue } = order;
    let Some(first) = requests.first() else { return Err(ApiError::internal()) };
    let parameters = wire::Parameters::of(first, requests.len(), encoding);
    let made = Provenance::of(&catalogue, &first.model);
    let submitted = SystemTime::now();
    let submission = Submission { leaving, ..Submission::new(requests, terms) };
    let call = Call::start(&app, &access, &caller, submission).await?;
    let (ids, requests) = (call.ids().to_vec(), call.requests().to_vec());
    let press = Press { app, access, encoding, catalogue, made: Arc::new(made), submitted, ids, requests, parameters };
    match form {
        Form::Json if leaving == Leaving::Continue => Ok(early::response(json(press, call))),
        Form::Json => Ok(Json(json(press, call).await?).into_response()),
        Form::Picture(_) => raw(press, call).await,
        Form::Events => Ok(events::response(press, call)),
    }
}

/// All pictures in one answer; the first failure is the answer and cancels the other jobs.
async fn json(press: Press, mut call: Call) -> Result<wire::Answer, ApiError> {
    let mut pictures: Vec<Option<wire::Picture>> = call.requests().iter().map(|_| None).collect();
    let mut writing = FuturesUnordered::new();
    loop {
        // A picture is written while the others are still being made.
        tokio::select! {
            Some(written) = writing.next() => {
                let (index, picture): (usize, Result<wire::Picture, ApiError>) = written;
                pictures[index] = Some(picture?);
            }
            Some((index, ending)) = call.next_ending() => {
                let press = &press;
                writing.push(async move { (index, press.picture(index, ending).await) });
            }
            else => break,
        }
    }
    drop(writing);
    Ok(press.bound(pictures.into_iter().flatten().collect()))
}

/// The picture itself; an order for several has been refused.
async fn raw(press: Press, mut call: Call) -> Result<Response, ApiError> {
    let (_, ending) = call.next_ending().await.ok_or_else(ApiError::internal)?;
    let Written { output, body, sha256, .. } = press.written(0, ending, |file| file).await?;
    let kind = HeaderValue::from_static(press.encoding.format.mime());
    let own = [(header::CONTENT_TYPE, kind), (HeaderName::from_static("x-seed"), HeaderValue::from(output.request.seed))];
    let headers: HeaderMap = own.into_iter().chain(press.made.headers(&sha256)).collect();
    Ok((headers, body).into_response())
}

/// A finished picture, written.
struct Written<T> {
    output: Output,
    body: T,
    sha256: String,
    image: Duration,
}

/// What turns an order's endings into its answer.
pub(super) struct Press {
    pub(super) app: App,
    pub(super) access: Access,
    encoding: Encoding,
    catalogue: Arc<Catalogue>,
    made: Arc<Provenance>,
    submitted: SystemTime,
    /// A job per picture, or one for all.
    ids: Vec<JobId>,
    requests: Vec<Arc<Request>>,
    parameters: wire::Parameters,
}

impl Press {
    /// The picture of the job with that index, on the wire.
    pub(super) async fn picture(&self, index: usize, ending: Ending) -> Result<wire::Picture, ApiError> {
        let Written { output, body, sha256, image } = self.written(index, ending, base64).await?;
        Ok(wire::Picture {
            id: self.id(index).map(|id| id.to_string()).unwrap_or_default(),
            b64: body,
            mime: self.encoding.format.mime(),
            seed: output.request.seed,
            width: output.image.width(),
            height: output.image.height(),
            sha256,
            timings: wire::PictureTimings::of(output.timings, image),
        })
    }

    /// All pictures, in one answer.
    pub(super) fn bound(self, images: Vec<wire::Picture>) -> wire::Answer {
        let total_ms = wire::ms(self.access.started().elapsed());
        let ids = self.ids.iter().map(JobId::to_string).collect();
        let engine = Arc::unwrap_or_clone(self.made);
        let (model, parameters) = (self.parameters.model.clone(), self.parameters);
        wire::Answer { ids, model, engine, images, parameters, total_ms, server_timing: None }
    }

    /// The picture's file as `shape` has it; on the way the job is told to the trace, and its times to the record.
    async fn written<T, F>(&self, index: usize, ending: Ending, shape: F) -> Result<Written<T>, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Vec<u8>) -> T + Send + 'static,
    {
        let reason = ending.reason();
        let output = error::finished(ending).inspect_err(|_| self.told(index, reason, None))?;
        let (picture, catalogue, made) = (output.clone(), Arc::clone(&self.catalogue), Arc::clone(&self.made));
        let (encoding, pixels) = (self.encoding, u64::from(output.image.width()) * u64::from(output.image.height()));
        let write = move || codec::signed(&picture, &catalogue, &made, encoding).map(|(file, sha256)| (shape(file), sha256));
        let ((body, sha256), image) = self.app.codec.write(pixels, write).await?;
        self.access.picture(output.timings, image);
        self.told(index, reason, Some((output.timings, image)));
        Ok(Written { output, body, sha256, image })
    }

    /// The job of the picture with that index.
    fn id(&self, index: usize) -> Option<JobId> {
        self.ids.get(index).or(self.ids.first()).copied()
    }

    fn told(&self, index: usize, reason: &'static str, stages: Option<(Timings, Duration)>) {
        let (Some(id), Some(request)) = (self.id(index), self.requests.get(index)) else { return };
        self.app.spans.job(self.access.span(), &Told { id, request, submitted: self.submitted, stages, reason });
    }
}

/// What a picture's file says of how it was made.
pub(crate) fn notes(request: &Request, catalogue: &Catalogue, encoding: Encoding) -> Notes {
    let label = catalogue.sampler(&request.sampler).map_or(request.sampler.as_str(), |(sampler, _)| &sampler.label);
    Notes::new(request, label, parameters(request, encoding))
}

/// The parameters of one picture, as JSON.
pub(crate) fn parameters(request: &Request, encoding: Encoding) -> String {
    // A struct of strings and numbers always becomes JSON.
    serde_json::to_string(&wire::Parameters::of(request, 1, encoding)).unwrap_or_default()
}
