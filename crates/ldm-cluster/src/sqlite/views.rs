//! What can be looked at, and what is kept.

use ldm_core::{JobId, Tenant};
use ldm_engine::ledger::{
    JobState, JobView, LaneLoad, LedgerLoad, MAX_PAGE, Outcome, Page, Phase, Query, Retention, Stale, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::hooks;
use super::jobs::capacity;
use super::rows::{self, int, time};
use super::thread::Core;

/// A job.
pub(super) fn one(db: &Connection, id: JobId) -> rusqlite::Result<Option<JobView>> {
    let view = db.prepare_cached("SELECT * FROM job WHERE id = ?")?.query_row([id.to_string()], rows::view).optional()?;
    view.map(|view| placed(db, view)).transpose()
}

pub(super) fn get(db: &Connection, ids: &[JobId]) -> rusqlite::Result<Vec<JobView>> {
    ids.iter().filter_map(|id| one(db, *id).transpose()).collect()
}

pub(super) fn named(db: &Connection, tenant: &Tenant, name: &str) -> rusqlite::Result<Option<JobView>> {
    let sql = "SELECT * FROM job WHERE tenant = ? AND name = ?";
    let view = db.prepare_cached(sql)?.query_row(params![tenant.name(), name], rows::view).optional()?;
    view.map(|view| placed(db, view)).transpose()
}

/// Counts the jobs of its model and class that come before a waiting one.
fn placed(db: &Connection, mut view: JobView) -> rusqlite::Result<JobView> {
    if let JobState::Queued { position } = &mut view.state {
        let sql = "SELECT count(*) AS n FROM job AS ahead JOIN job AS me ON me.id = ?1 WHERE ahead.state = 0 \
                   AND ahead.class = me.class AND ahead.model = me.model AND (ahead.vft, ahead.id) < (me.vft, me.id)";
        *position = db.prepare_cached(sql)?.query_row([view.id.to_string()], |row| rows::number(row, "n"))?;
    }
    Ok(view)
}

pub(super) fn list(db: &Connection, query: &Query) -> rusqlite::Result<Page> {
    let limit = query.limit.min(MAX_PAGE);
    // Hyphens sort before letters and digits alike, so ids sort as text as they do as numbers; "~" comes after all.
    let before = query.before.map_or_else(|| "~".to_owned(), |id| id.to_string());
    let wanted = if query.phases.is_empty() { &Phase::ALL } else { query.phases.as_slice() };
    let sql = "SELECT * FROM job WHERE tenant = ? AND id < ? AND ((? >> state) & 1) = 1 ORDER BY id DESC LIMIT ?";
    let mut statement = db.prepare_cached(sql)?;
    let views = statement.query_map(params![query.tenant.name(), before, Phase::mask(wanted), limit + 1], rows::view)?;
    let mut jobs = views.map(|view| placed(db, view?)).collect::<rusqlite::Result<Vec<_>>>()?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next = jobs.last().filter(|_| more).map(|last| last.id);
    Ok(Page { jobs, next })
}

pub(super) fn load(db: &Connection, now: Timestamp) -> rusqlite::Result<LedgerLoad> {
    let sql = "SELECT model, class, sum(state = 0) AS queued, sum(state = 1) AS running, sum(cost_ms) AS outstanding \
               FROM job WHERE state < 2 GROUP BY model, class ORDER BY model, class";
    let lane = |row: &Row<'_>| {
        let (model, priority) = (row.get("model")?, rows::priority(row.get("class")?));
        let (queued, running) = (rows::number(row, "queued")?, rows::number(row, "running")?);
        Ok(LaneLoad { model, priority, queued, running, outstanding_ms: rows::number(row, "outstanding")? })
    };
    let lanes = db.prepare_cached(sql)?.query_map([], lane)?.collect::<rusqlite::Result<_>>()?;
    let number = |sql: &str, at: i64| db.prepare_cached(sql)?.query_row([at], |row| rows::number(row, "n"));
    Ok(LedgerLoad {
        lanes,
        bytes: number("SELECT bytes AS n FROM tally WHERE scope = '' AND ?1 >= 0", 0)?,
        capacity: capacity(db, now)?,
        nodes: number("SELECT count(*) AS n FROM node WHERE expires > ?1", time(now))?,
        ended: number("SELECT jobs AS n FROM tally WHERE scope = 'e' AND ?1 >= 0", 0)?,
        untold: hooks::untold(db)?,
    })
}

/// Records that are to go, the longest ended first.
pub(super) fn prune(db: &Connection, keep: &Retention, now: Timestamp) -> rusqlite::Result<Vec<Stale>> {
    let tally = "SELECT jobs, bytes FROM tally WHERE scope = 'e'";
    let (mut count, mut bytes) =
        db.prepare_cached(tally)?.query_row([], |row| Ok((rows::number(row, "jobs")?, rows::number(row, "bytes")?)))?;
    let sql = "SELECT * FROM job INDEXED BY job_ended WHERE state >= 2 ORDER BY ended, id LIMIT ?";
    let mut statement = db.prepare_cached(sql)?;
    let mut found = statement.query([MAX_PAGE])?;
    let mut stale = Vec::new();
    while let Some(row) = found.next()? {
        let ended = rows::moment(row, "ended")?.unwrap_or_default();
        if ended.after(keep.ttl) > now && count <= keep.count && bytes <= keep.bytes {
            break;
        }
        count -= 1;
        bytes = bytes.saturating_sub(rows::number(row, "kept")?);
        stale.push(Stale { id: rows::id(row)?, keys: keys(row)? });
    }
    Ok(stale)
}

/// What a record has in the object store.
fn keys(row: &Row<'_>) -> rusqlite::Result<Vec<String>> {
    let mut objects = rows::column_objects(row, "inputs")?;
    objects.extend(rows::column_objects(row, "ckpt")?);
    if let JobState::Ended(Outcome::Succeeded { outputs, .. }) = rows::state(row)? {
        objects.extend(outputs);
    }
    Ok(objects.into_iter().map(|object| object.key).collect())
}

/// Deletes records of ended jobs.
pub(super) fn forget(db: &Connection, core: &mut Core, ids: &[JobId]) -> rusqlite::Result<()> {
    let mut remember = db
        .prepare_cached("INSERT INTO departed (id, tenant, name) SELECT id, tenant, name FROM job WHERE id = ? AND state >= 2")?;
    let mut delete = db.prepare_cached("DELETE FROM job WHERE id = ? AND state >= 2")?;
    for id in ids {
        remember.execute([id.to_string()])?;
        delete.execute([id.to_string()])?;
    }
    let sql = "DELETE FROM departed WHERE seq <= (SELECT max(seq) FROM departed) - ?";
    db.prepare_cached(sql)?.execute([int(core.limits.departed)])?;
    core.freed = true;
    Ok(())
}

/// Whether the tenant had a job of that id or name, which was forgotten.
pub(super) fn departed(db: &Connection, tenant: &Tenant, handle: &str) -> rusqlite::Result<bool> {
    // As ids are written here, whatever the letters that were asked for.
    let id = handle.parse::<JobId>().map_or_else(|_| handle.to_owned(), |id| id.to_string());
    let sql =
        "SELECT 1 FROM departed WHERE tenant = ?1 AND id = ?2 UNION ALL SELECT 1 FROM departed WHERE tenant = ?1 AND name = ?3";
    db.prepare_cached(sql)?.exists(params![tenant.name(), id, handle])
}
