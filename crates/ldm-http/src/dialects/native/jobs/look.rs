//! Looking at jobs and stopping them: one's own, by id or name.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query as Asked, State};
use axum::http::StatusCode;
use ldm_core::{JobId, Violation, Violations};
use ldm_engine::ledger::{JobView, Phase, Query};
use ldm_engine::node::NodeError;
use serde::Deserialize;

use super::{node, wire};
use crate::App;
use crate::caller::Caller;
use crate::calls::Entry;
use crate::error::ApiError;

/// Jobs of a page, unless fewer are asked for.
const PAGE: u32 = 50;

/// A job that can be looked at.
pub(super) enum Found {
    /// It outlives its connection.
    Named(Box<JobView>),
    /// It runs for a connection, or did.
    Passing(Arc<Entry>),
}

/// The caller's job of that id or name. Another tenant's job is none of theirs: it is not there.
pub(super) async fn find(app: &App, caller: &Caller, job: &str) -> Result<Found, ApiError> {
    let (id, tenant) = (job.parse::<JobId>().ok(), caller.tenant());
    if let Some(entry) = id.and_then(|id| app.roll.find(tenant, id)) {
        return Ok(Found::Passing(entry));
    }
    let mut gone = id.is_some_and(|id| app.roll.departed(tenant, id));
    if let Some(node) = &app.node {
        let ledger = node.ledger();
        let by_id = match id {
            Some(id) => ledger.get(&[id]).await.map_err(NodeError::from)?.pop().filter(|view| view.tenant == *tenant),
            None => None,
        };
        // A name may look like an id.
        let view = match by_id {
            Some(view) => Some(view),
            None => ledger.named(tenant, job).await.map_err(NodeError::from)?,
        };
        if let Some(view) = view {
            return Ok(Found::Named(Box::new(view)));
        }
        gone = gone || ledger.departed(tenant, job).await.map_err(NodeError::from)?;
    }
    let never = || ApiError::new(StatusCode::NOT_FOUND, "no_such_job", format!("there is no job {job:?}"));
    Err(if gone { ApiError::gone() } else { never() })
}

pub(super) async fn show(State(app): State<App>, caller: Caller, Path(job): Path<String>) -> Result<Json<wire::Job>, ApiError> {
    Ok(Json(match find(&app, &caller, &job).await? {
        Found::Named(view) => wire::Job::named(&app, &view, true).await?,
        Found::Passing(entry) => wire::Job::passing(&app, &entry),
    }))
}

/// Stops the job; one that has ended stays as it is.
pub(super) async fn cancel(State(app): State<App>, caller: Caller, Path(job): Path<String>) -> Result<Json<wire::Job>, ApiError> {
    match find(&app, &caller, &job).await? {
        Found::Passing(entry) => {
            entry.cancel();
            Ok(Json(wire::Job::passing(&app, &entry)))
        }
        Found::Named(view) => {
            let now = node(&app)?.cancel(view.id).await.map_err(NodeError::from)?;
            Ok(Json(wire::Job::named(&app, &now.unwrap_or(*view), true).await?))
        }
    }
}

/// Which page.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    before: Option<String>,
    limit: Option<String>,
    /// Phases between commas.
    state: Option<String>,
}

/// A page, read.
struct Wanted {
    before: Option<JobId>,
    limit: u32,
    phases: Vec<Phase>,
}

impl Page {
    fn read(self) -> Result<Wanted, Violations> {
        let mut bad = Violations::default();
        let mut wrong = |field: &str, limit: &str, value: &str| {
            bad.push(Violation::new(field, format!("`{field}` must be {limit}, not {value:?}"), limit, value));
        };
        let before = self.before.and_then(|text| text.parse().map_err(|_| wrong("before", "a job's id", &text)).ok());
        let whole = |text: &String| text.parse::<u32>().ok().filter(|limit| *limit > 0);
        let limit = match &self.limit {
            None => PAGE,
            Some(text) => whole(text).map(|limit| limit.min(PAGE)).unwrap_or_else(|| {
                wrong("limit", "a whole number from 1", text);
                PAGE
            }),
        };
        let mut phases = Vec::new();
        for name in self.state.iter().flat_map(|names| names.split(',')) {
            match Phase::named(name) {
                Some(phase) => phases.push(phase),
                None => wrong("state", &Phase::ALL.map(Phase::name).join(", "), name),
            }
        }
        if bad.is_empty() { Ok(Wanted { before, limit, phases }) } else { Err(bad) }
    }
}

pub(super) async fn list(State(app): State<App>, caller: Caller, Asked(page): Asked<Page>) -> Result<Json<wire::Jobs>, ApiError> {
    let Wanted { before, limit, phases } = page.read()?;
    let mut jobs = Vec::new();
    if let Some(node) = &app.node {
        let query = Query { tenant: caller.tenant().clone(), before, phases: phases.clone(), limit };
        for view in node.ledger().list(&query).await.map_err(NodeError::from)?.jobs {
            jobs.push((view.id, wire::Job::named(&app, &view, false).await?));
        }
    }
    let wanted = |entry: &Entry| phases.is_empty() || phases.contains(&wire::phase(&entry.state()));
    let passing = app.roll.list(caller.tenant(), before, limit as usize, wanted);
    jobs.extend(passing.iter().map(|entry| (entry.id(), wire::Job::passing(&app, entry))));
    jobs.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let full = jobs.len() >= limit as usize;
    jobs.truncate(limit as usize);
    let next = jobs.last().filter(|_| full).map(|(id, _)| id.to_string());
    Ok(Json(wire::Jobs { jobs: jobs.into_iter().map(|(_, job)| job).collect(), next }))
}
