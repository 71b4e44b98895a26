//! How many of a key's jobs may be unfinished at once.

use axum::http::StatusCode;
use ldm_core::{Violation, Violations};
use ldm_engine::ledger::{Phase, Query};
use ldm_engine::node::NodeError;
use tokio::sync::{Mutex, MutexGuard};

use crate::App;
use crate::caller::Caller;
use crate::error::ApiError;

/// Named jobs of a page, when they are counted.
const PAGE: u32 = 100;
/// Pages that are looked at; older jobs have ended, or wait behind all of these.
const PAGES: usize = 10;

/// The places of one key.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    /// Held while jobs are counted and handed in, so that no two requests take the same place.
    gate: Mutex<()>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, gate: Mutex::new(()) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the caller may have `more` jobs now. They are handed in while the guard is held.
    pub(crate) async fn enter<'a>(app: &App, caller: &'a Caller, more: usize) -> Result<Option<MutexGuard<'a, ()>>, ApiError> {
        let Some(places) = caller.places() else { return Ok(None) };
        let limit = places.limit;
        if more > limit {
            let message = format!("`images` must be from 1 to {limit} with this key, not {more}");
            return Err(Violations(vec![Violation::new("images", message, format!("1..={limit}"), more)]).into());
        }
        let guard = places.gate.lock().await;
        let held = passing(app, caller) + named(app, caller, limit).await?;
        if held + more > limit {
            let message = format!("{held} of this key's jobs are unfinished, and it may have {limit}");
            let after = app.service.until_free(held + more - limit);
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_jobs", message).later(after));
        }
        Ok(Some(guard))
    }
}

/// Unfinished jobs that run for a connection.
fn passing(app: &App, caller: &Caller) -> usize {
    app.roll.of(caller.tenant(), None).iter().filter(|entry| entry.ended().is_none()).count()
}

/// Unfinished named jobs, as far as `enough` of them.
async fn named(app: &App, caller: &Caller, enough: usize) -> Result<usize, ApiError> {
    let Some(node) = &app.node else { return Ok(0) };
    let phases = vec![Phase::Queued, Phase::Running];
    let mut query = Query { tenant: caller.tenant().clone(), before: None, phases, limit: PAGE };
    let mut held = 0;
    for _ in 0..PAGES {
        let page = node.ledger().list(&query).await.map_err(NodeError::from)?;
        held += page.jobs.len();
        query.before = page.next;
        if held >= enough || query.before.is_none() {
            break;
        }
    }
    Ok(held)
}
