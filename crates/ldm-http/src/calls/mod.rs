//! Calls: the one way in which dialects have pictures made. A call's jobs are on the [`Roll`] while they run and for a while
//! after, so that whoever has a job's id can look at it and stop it; a call that outlives its connection is a named job.

mod follow;
mod guest;
mod kept;
mod note;
mod press;
mod roll;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ldm_core::{Ending, Event, JobId, Output, Request, Terms};
use ldm_engine::Ticket;

pub(crate) use follow::{Followed, follow};
pub(crate) use guest::{Guest, Leaving};
pub(crate) use note::Note;
pub(crate) use press::{Press, Written};
pub(crate) use roll::{Entry, Roll, State};

use crate::access::Access;
use crate::caller::Caller;
use crate::codec::{Encoding, Format};
use crate::error::{self, ApiError};
use crate::keys::Places;
use crate::{App, sse};

/// What is submitted together.
pub(crate) struct Submission {
    /// One per picture, which differ in their seeds alone.
    pub(crate) requests: Vec<Request>,
    /// How urgent they are; the tenant is the caller's.
    pub(crate) terms: Terms,
    /// What becomes of them when the client goes.
    pub(crate) leaving: Leaving,
    /// How the pictures are to be written, for whoever fetches those of a named job.
    pub(crate) encoding: Encoding,
    /// The client's own word for the call, by which its dialect finds it again.
    pub(crate) label: Option<String>,
}

impl Submission {
    /// Requests that end with their connection.
    pub(crate) fn new(requests: Vec<Request>, terms: Terms) -> Self {
        let encoding = Encoding { format: Format::Png, quality: None };
        Self { requests, terms, leaving: Leaving::Cancel, encoding, label: None }
    }
}

/// Pictures that are being made. Dropping it cancels them, unless they are to outlive their connection.
pub(crate) struct Call {
    /// A job per picture; a call that outlives its connection is one job.
    ids: Vec<JobId>,
    requests: Vec<Arc<Request>>,
    events: BoxStream<'static, (usize, Event)>,
    /// Of jobs that end with their connection.
    entries: Vec<Arc<Entry>>,
}

impl Call {
    /// Accepts all pictures or none of them; the record of the request knows the jobs from here on.
    pub(crate) async fn start(app: &App, access: &Access, caller: &Caller, submission: Submission) -> Result<Self, ApiError> {
        let started = Self::accept(app, caller, submission).await;
        let call = started.inspect_err(|error| app.metrics.rejected(error.code))?;
        access.jobs(call.ids.iter().copied());
        Ok(call)
    }

    async fn accept(app: &App, caller: &Caller, submission: Submission) -> Result<Self, ApiError> {
        let Submission { requests, terms, leaving, encoding, label } = submission;
        caller.check(&requests)?;
        let terms = caller.sign(terms);
        let named = app.node.as_ref().filter(|_| leaving == Leaving::Continue);
        let _entering = Places::enter(app, caller, if named.is_some() { 1 } else { requests.len() }).await?;
        if let Some(node) = named {
            return kept::start(app, node, requests, terms, encoding).await;
        }
        let tickets = app.service.submit_under(requests, &terms)?;
        let entries = tickets.iter().map(|ticket| app.roll.enter(ticket.watch(), &terms, label.clone())).collect();
        Ok(Self {
            ids: tickets.iter().map(Ticket::id).collect(),
            requests: tickets.iter().map(|ticket| Arc::clone(ticket.request())).collect(),
            events: sse::merged(tickets).boxed(),
            entries,
        })
    }

    /// The jobs.
    pub(crate) fn ids(&self) -> &[JobId] {
        &self.ids
    }

    /// What each picture is asked for by.
    pub(crate) fn requests(&self) -> &[Arc<Request>] {
        &self.requests
    }

    /// The next event and its picture's place; every picture tells its ending once, and after the last there is `None`.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        let (index, event) = self.events.next().await?;
        match (&event, self.entries.get(index)) {
            (Event::Progress(progress), Some(entry)) => entry.moved(progress),
            (Event::Ended(ending), Some(entry)) => entry.end(ending),
            (_, None) => {}
        }
        Some((index, event))
    }

    /// The next ending and its picture's place.
    pub(crate) async fn next_ending(&mut self) -> Option<(usize, Ending)> {
        loop {
            if let (index, Event::Ended(ending)) = self.next().await? {
                return Some((index, ending));
            }
        }
    }

    /// Waits for all pictures, in their order. The first failure is the answer and cancels the others.
    pub(crate) async fn finished(mut self) -> Result<Vec<Output>, ApiError> {
        let mut outputs: Vec<Option<Output>> = vec![None; self.requests.len()];
        while let Some((index, ending)) = self.next_ending().await {
            outputs[index] = Some(error::finished(ending)?);
        }
        // Every job tells its ending, so none is missing.
        outputs.into_iter().collect::<Option<Vec<_>>>().ok_or_else(ApiError::internal)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // What has not told its ending is cancelled with its ticket.
        self.entries.iter().for_each(|entry| entry.end(&Ending::Cancelled));
    }
}
