//! The outbox of webhooks.

use ldm_core::Tenant;
use ldm_engine::ledger::{Delivery, HOOK_LEASE, MAX_PAGE, NewJob, Phase, Timestamp};
use rusqlite::{Connection, Row, params};

use super::rows::{self, time};

/// Notes who wants to hear how a new job ends; the file's triggers do the rest.
pub(super) fn enter(db: &Connection, job: &NewJob) -> rusqlite::Result<()> {
    let Some(hook) = &job.hook else { return Ok(()) };
    let sql = "INSERT INTO hook (job, tenant, url, endings) VALUES (?, ?, ?, ?)";
    let endings = Phase::mask(&hook.endings);
    db.prepare_cached(sql)?.execute(params![job.id.to_string(), job.tenant.name(), hook.url, endings])?;
    Ok(())
}

/// Ends that are to be told, of unfinished jobs too.
pub(super) fn count(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT count(*) AS n FROM hook")?.query_row([], |row| rows::number(row, "n"))
}

/// Those of jobs that have ended.
pub(super) fn untold(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) AS n FROM hook INDEXED BY hook_due WHERE due IS NOT NULL";
    db.prepare_cached(sql)?.query_row([], |row| rows::number(row, "n"))
}

/// Takes ends that are due.
pub(super) fn take(db: &Connection, most: u32, now: Timestamp) -> rusqlite::Result<Vec<Delivery>> {
    let sql = "SELECT job AS id, tenant, url, state, ended, attempts + 1 AS attempt FROM hook INDEXED BY hook_due \
               WHERE due <= ? ORDER BY due, job LIMIT ?";
    let mut statement = db.prepare_cached(sql)?;
    let due = statement.query_map(params![time(now), most.min(MAX_PAGE)], delivery)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut take = db.prepare_cached("UPDATE hook SET due = ?2, attempts = attempts + 1, taken = 1 WHERE job = ?1")?;
    for delivery in &due {
        take.execute(params![delivery.job.to_string(), time(now.after(HOOK_LEASE))])?;
    }
    Ok(due)
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        job: rows::id(row)?,
        tenant: Tenant::new(&row.get::<_, String>("tenant")?),
        url: row.get("url")?,
        phase: rows::phase(row)?,
        ended: rows::moment(row, "ended")?.unwrap_or_default(),
        attempt: rows::small(row, "attempt")?,
    })
}

/// What came of telling an end.
pub(super) fn settle(db: &Connection, delivery: &Delivery, again: Option<Timestamp>) -> rusqlite::Result<bool> {
    let (job, attempt) = (delivery.job.to_string(), delivery.attempt);
    let changed = match again {
        None => db.prepare_cached("DELETE FROM hook WHERE job = ? AND attempts = ?")?.execute(params![job, attempt])?,
        Some(at) => db
            .prepare_cached("UPDATE hook SET due = ?3, taken = 0 WHERE job = ?1 AND attempts = ?2")?
            .execute(params![job, attempt, time(at)])?,
    };
    Ok(changed > 0)
}

/// Whoever told an end is dead: it is due at once.
pub(super) fn give_back(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.execute("UPDATE hook SET due = ?, taken = 0 WHERE taken = 1", [time(now)]).map(drop)
}
