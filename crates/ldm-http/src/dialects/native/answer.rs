//! From an order to its answer: JSON, the picture itself, or a stream of events.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ldm_core::{Catalogue, Ending, JobId, Request};

use super::order::Order;
use super::{early, events, wire};
use crate::App;
use crate::calls::{Call, Guest, Leaving, Press, Submission, Written};
use crate::codec::{Encoding, base64};
use crate::error::ApiError;
use crate::metadata::Notes;
use crate::negotiate::Form;

/// Submits the order and answers in that form. Dropping the future, as axum does when the client goes, drops the call.
pub(super) async fn answer(app: App, guest: Guest, form: Form, order: Order) -> Result<Response, ApiError> {
    let Guest { access, caller, leaving } = guest;
    let Order { requests, terms, encoding, catalogue, .. } = order;
    let Some(first) = requests.first() else { return Err(ApiError::internal()) };
    let parameters = wire::Parameters::of(first, requests.len(), encoding);
    let submission = Submission { leaving, encoding, ..Submission::new(requests, terms) };
    let call = Call::start(&app, &access, &caller, submission).await?;
    let desk = Desk { press: Press::new(app, access, catalogue, encoding, &call), parameters };
    match form {
        Form::Json if leaving == Leaving::Continue => {
            let request_id = desk.press.access.request_id().to_owned();
            Ok(early::response(request_id, json(desk, call)))
        }
        Form::Json => Ok(Json(json(desk, call).await?).into_response()),
        Form::Picture(_) => raw(desk, call).await,
        Form::Events => Ok(events::response(desk, call)),
    }
}

/// All pictures in one answer; the first failure is the answer and cancels the other jobs.
async fn json(desk: Desk, mut call: Call) -> Result<wire::Answer, ApiError> {
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
                let desk = &desk;
                writing.push(async move { (index, desk.picture(index, ending).await) });
            }
            else => break,
        }
    }
    drop(writing);
    Ok(desk.bound(pictures.into_iter().flatten().collect()))
}

/// The picture itself; an order for several has been refused.
async fn raw(Desk { press, .. }: Desk, mut call: Call) -> Result<Response, ApiError> {
    let (_, ending) = call.next_ending().await.ok_or_else(ApiError::internal)?;
    let Written { output, body, sha256, .. } = press.written(0, ending, |file| file).await?;
    let kind = HeaderValue::from_static(press.encoding.format.mime());
    let own = [(header::CONTENT_TYPE, kind), (HeaderName::from_static("x-seed"), HeaderValue::from(output.request.seed))];
    let headers: HeaderMap = own.into_iter().chain(press.made.headers(&sha256)).collect();
    Ok((headers, body).into_response())
}

/// What turns an order's endings into its answer.
pub(super) struct Desk {
    pub(super) press: Press,
    parameters: wire::Parameters,
}

impl Desk {
    /// The picture of the job with that index, on the wire.
    pub(super) async fn picture(&self, index: usize, ending: Ending) -> Result<wire::Picture, ApiError> {
        let Written { output, body, sha256, image } = self.press.written(index, ending, base64).await?;
        Ok(wire::Picture {
            id: self.press.id(index).map(|id| id.to_string()).unwrap_or_default(),
            b64: body,
            mime: self.press.encoding.format.mime(),
            seed: output.request.seed,
            width: output.image.width(),
            height: output.image.height(),
            sha256,
            timings: wire::PictureTimings::of(output.timings, image),
        })
    }

    /// All pictures, in one answer.
    pub(super) fn bound(self, images: Vec<wire::Picture>) -> wire::Answer {
        let Self { press, parameters } = self;
        let total_ms = wire::ms(press.access.started().elapsed());
        let ids = press.ids.iter().map(JobId::to_string).collect();
        let engine = Arc::unwrap_or_clone(press.made);
        let model = parameters.model.clone();
        wire::Answer { ids, model, engine, images, parameters, total_ms, server_timing: None }
    }
}

/// What a picture's file says of how it was made.
pub(crate) fn notes(request: &Request, catalogue: &Catalogue, encoding: Encoding) -> Notes {
    let label = catalogue.sampler(&request.sampler).map_or(request.sampler.as_str(), |(sampler, _)| &sampler.label);
    Notes::new(request, label, parameters(request, encoding))
}

/// The request as AUTOMATIC1111's web UI writes it.
pub(crate) fn infotext(request: &Request, catalogue: &Catalogue) -> String {
    let encoding = Encoding { format: crate::codec::Format::Png, quality: None };
    let notes = notes(request, catalogue, encoding);
    notes.texts().find(|(keyword, _)| *keyword == "parameters").map(|(_, text)| text.to_owned()).unwrap_or_default()
}

/// The parameters of one picture, as JSON.
pub(crate) fn parameters(request: &Request, encoding: Encoding) -> String {
    // A struct of strings and numbers always becomes JSON.
    serde_json::to_string(&wire::Parameters::of(request, 1, encoding)).unwrap_or_default()
}
