//! From an order to its answer: JSON, the picture itself, or a stream of events.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::future;
use ldm_core::{Catalogue, Ending, Output, Request};
use ldm_engine::Ticket;

use super::order::Order;
use super::{events, wire};
use crate::App;
use crate::access::Access;
use crate::codec::{Encoding, base64};
use crate::error::{self, ApiError};
use crate::metadata::Notes;
use crate::negotiate::Form;

/// Submits the order and answers in that form. Dropping the future, as axum does when the client goes, drops the tickets.
pub(super) async fn answer(app: App, access: Access, form: Form, order: Order) -> Result<Response, ApiError> {
    let Order { requests, encoding, catalogue } = order;
    let Some(first) = requests.first() else { return Err(ApiError::internal()) };
    let parameters = wire::Parameters::of(first, requests.len(), encoding);
    let tickets = app.service.submit(requests).map_err(ApiError::from).inspect_err(|error| app.metrics.rejected(error.code))?;
    access.jobs(tickets.iter().map(Ticket::id));
    let ids = tickets.iter().map(|ticket| ticket.id().to_string()).collect();
    let press = Press { app, access, encoding, catalogue, ids, parameters };
    match form {
        Form::Json => json(press, tickets).await,
        Form::Picture(_) => raw(press, tickets).await,
        Form::Events => Ok(events::response(press, tickets)),
    }
}

/// All pictures in one answer; the first failure is the answer and cancels the other jobs.
async fn json(press: Press, tickets: Vec<Ticket>) -> Result<Response, ApiError> {
    let endings = tickets.into_iter().map(Ticket::finished).enumerate();
    let pictures = endings.map(|(index, ending)| {
        let press = &press;
        async move { press.picture(index, ending.await).await }
    });
    let pictures = future::try_join_all(pictures).await?;
    Ok(Json(press.bound(pictures)).into_response())
}

/// The picture itself; an order for several has been refused.
async fn raw(press: Press, mut tickets: Vec<Ticket>) -> Result<Response, ApiError> {
    let ticket = tickets.pop().ok_or_else(ApiError::internal)?;
    let output = error::finished(ticket.finished().await)?;
    let (file, _) = press.written(&output, |file| file).await?;
    let kind = press.encoding.format.mime().to_owned();
    let headers = [(header::CONTENT_TYPE, kind), (HeaderName::from_static("x-seed"), output.request.seed.to_string())];
    Ok((headers, file).into_response())
}

/// What turns an order's endings into its answer.
pub(super) struct Press {
    pub(super) app: App,
    pub(super) access: Access,
    encoding: Encoding,
    catalogue: Arc<Catalogue>,
    ids: Vec<String>,
    parameters: wire::Parameters,
}

impl Press {
    /// The picture of the job with that index, on the wire.
    pub(super) async fn picture(&self, index: usize, ending: Ending) -> Result<wire::Picture, ApiError> {
        let output = error::finished(ending)?;
        let (b64, encode) = self.written(&output, base64).await?;
        Ok(wire::Picture {
            id: self.ids.get(index).cloned().unwrap_or_default(),
            b64,
            mime: self.encoding.format.mime(),
            seed: output.request.seed,
            width: output.image.width(),
            height: output.image.height(),
            timings: wire::PictureTimings::of(output.timings, encode),
        })
    }

    /// All pictures, in one answer.
    pub(super) fn bound(self, images: Vec<wire::Picture>) -> wire::Answer {
        let total_ms = wire::ms(self.access.started().elapsed());
        wire::Answer { ids: self.ids, model: self.parameters.model.clone(), images, parameters: self.parameters, total_ms }
    }

    async fn written<T, F>(&self, output: &Output, shape: F) -> Result<(T, Duration), ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Vec<u8>) -> T + Send + 'static,
    {
        let notes = notes(&output.request, &self.catalogue, self.encoding);
        self.app.codec.encode(output.image.clone(), self.encoding, Some(notes), shape).await
    }
}

/// What a picture's file says of how it was made.
pub(crate) fn notes(request: &Request, catalogue: &Catalogue, encoding: Encoding) -> Notes {
    let label = catalogue.sampler(&request.sampler).map_or(request.sampler.as_str(), |(sampler, _)| &sampler.label);
    // A struct of strings and numbers always becomes JSON.
    let parameters = serde_json::to_string(&wire::Parameters::of(request, 1, encoding)).unwrap_or_default();
    Notes::new(request, label, parameters)
}
