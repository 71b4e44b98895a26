//! A job's way in, and to a holder.

use ldm_core::{JobId, Priority};
use ldm_engine::ledger::rules::{self, Usage};
use ldm_engine::ledger::{Claim, HOT_BONUS_MS, JobView, Lane, NewJob, NodeId, Outcome, Submitted, Timestamp, Want};
use rusqlite::{Connection, OptionalExtension, params};

use super::ends::{end, expire};
use super::hooks;
use super::rows::{self, class, int, time};
use super::thread::Core;
use super::views::one;

/// Hands a job in.
pub(super) fn submit(db: &Connection, core: &mut Core, job: &NewJob, now: Timestamp) -> rusqlite::Result<Submitted> {
    match same(db, job)? {
        Some((id, true)) => return Ok(Submitted::Existing(known(db, id)?)),
        Some((id, false)) => return Ok(Submitted::Conflict(id)),
        None => {}
    }
    if let Some(full) = rules::full(&core.limits, usage(db, job, now)?, job) {
        return Ok(Submitted::Full(full));
    }
    enter(db, job, now)?;
    let canceled =
        db.prepare_cached("DELETE FROM tombstone WHERE id = ? AND until > ?")?.execute(params![job.id.to_string(), time(now)])?;
    if canceled > 0 {
        end(db, job.id, &Outcome::Canceled, now)?;
    }
    core.ring = true;
    Ok(Submitted::New(known(db, job.id)?))
}

fn known(db: &Connection, id: JobId) -> rusqlite::Result<JobView> {
    one(db, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// The job that holds this one's id, key or name; whether it is the same one.
fn same(db: &Connection, job: &NewJob) -> rusqlite::Result<Option<(JobId, bool)>> {
    let finders = [
        ("SELECT id, tenant, fingerprint FROM job WHERE id = ?2", Some(job.id.to_string())),
        ("SELECT id, tenant, fingerprint FROM job WHERE tenant = ?1 AND key = ?2", job.key.clone()),
        ("SELECT id, tenant, fingerprint FROM job WHERE tenant = ?1 AND name = ?2", job.name.clone()),
    ];
    let mut first = None;
    for (sql, handle) in finders {
        let Some(handle) = handle else { continue };
        let mut statement = db.prepare_cached(sql)?;
        // The first statement has no ?1, but two parameters all the same.
        let found = statement.query_row(params![job.tenant.name(), handle], |row| {
            let same = row.get::<_, String>(1)? == job.tenant.name() && row.get::<_, [u8; 32]>(2)? == job.fingerprint;
            Ok((rows::id(row)?, same))
        });
        let Some((id, same)) = found.optional()? else { continue };
        if !same || first.is_some_and(|first| first != id) {
            return Ok(Some((id, false)));
        }
        first = Some(id);
    }
    Ok(first.map(|id| (id, true)))
}

fn usage(db: &Connection, job: &NewJob, now: Timestamp) -> rusqlite::Result<Usage> {
    let mut tally = db.prepare_cached("SELECT jobs, bytes, cost_ms FROM tally WHERE scope = ?")?;
    let mut scope = |scope: String| {
        let sums = tally.query_row([scope], |row| {
            Ok([rows::number(row, "jobs")?, rows::number(row, "bytes")?, rows::number(row, "cost_ms")?])
        });
        Ok::<_, rusqlite::Error>(sums.optional()?.unwrap_or_default())
    };
    let [jobs, bytes, cost_ms] = scope(String::new())?;
    let [tenant_jobs, ..] = scope(format!("t{}", job.tenant.name()))?;
    let [ended, ..] = scope("e".to_owned())?;
    let hooks = if job.hook.is_some() { hooks::count(db)? } else { 0 };
    Ok(Usage { jobs, tenant_jobs, bytes, cost_ms, records: jobs + ended, capacity: capacity(db, now)?, hooks })
}

/// Jobs that live nodes which are not draining run at once.
pub(super) fn capacity(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(sum(capacity), 0) AS n FROM node WHERE expires > ? AND draining = 0";
    db.prepare_cached(sql)?.query_row([time(now)], |row| rows::number(row, "n"))
}

fn clock(db: &Connection, class: i64) -> rusqlite::Result<u64> {
    let clock = db.prepare_cached("SELECT vft FROM clock WHERE class = ?")?.query_row([class], |row| rows::number(row, "vft"));
    Ok(clock.optional()?.unwrap_or(0))
}

fn enter(db: &Connection, job: &NewJob, now: Timestamp) -> rusqlite::Result<()> {
    let (tenant, class) = (job.tenant.name(), class(job.priority));
    let last = db
        .prepare_cached("SELECT vft FROM share WHERE tenant = ? AND class = ?")?
        .query_row(params![tenant, class], |row| rows::number(row, "vft"))
        .optional()?;
    let vft = int(rules::virtual_finish(clock(db, class)?, last.unwrap_or(0), job.cost_ms));
    db.prepare_cached("INSERT OR REPLACE INTO share (tenant, class, vft) VALUES (?, ?, ?)")?
        .execute(params![tenant, class, vft])?;
    let sql = "INSERT INTO job (id, tenant, class, model, bucket, cost_ms, spec, inputs, fingerprint, key, name, deadline, \
               not_before, created, vft, bytes, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    db.prepare_cached(sql)?.execute(params![
        job.id.to_string(),
        tenant,
        class,
        job.model,
        job.bucket,
        int(job.cost_ms),
        job.spec,
        rows::objects(&job.inputs),
        job.fingerprint,
        job.key,
        job.name,
        job.deadline.map(time),
        job.not_before.map(time),
        time(now),
        vft,
        int(rules::live_bytes(job)),
        job.note,
    ])?;
    hooks::enter(db, job)
}

/// Takes jobs to run; `None`: the node has no lease.
pub(super) fn claim(
    db: &Connection,
    core: &mut Core,
    node: &NodeId,
    want: &Want,
    now: Timestamp,
) -> rusqlite::Result<Option<Vec<Claim>>> {
    let lease = db
        .prepare_cached("SELECT draining FROM node WHERE id = ? AND expires > ?")?
        .query_row(params![node.as_str(), time(now)], |row| row.get::<_, bool>(0))
        .optional()?;
    match lease {
        None => return Ok(None),
        Some(true) => return Ok(Some(Vec::new())),
        Some(false) => {}
    }
    let mut claims = Vec::new();
    while claims.len() < want.credit as usize {
        let interactive = head(db, Priority::Interactive, want, now)?;
        let batch = head(db, Priority::Batch, want, now)?;
        let waiting = batch.is_some();
        let Some(class) = core.turns.next(interactive.is_some(), waiting) else { break };
        let Some(head) = (if class == Priority::Interactive { interactive } else { batch }) else { break };
        let (holds, guarded) = db
            .prepare_cached("SELECT count(*), coalesce(max(crashes), 0) FROM job WHERE state = 1 AND owner = ?")?
            .query_row([node.as_str()], |row| Ok((row.get::<_, i64>(0)? > 0, row.get::<_, i64>(1)? > 0)))?;
        // A job that may kill its process shares it with no other.
        if guarded || (holds && head.crashes > 0) {
            break;
        }
        core.turns.took(class, waiting);
        claims.push(take(db, &head, node, now)?);
    }
    Ok(Some(claims))
}

/// The next job of a class.
struct Head {
    id: JobId,
    class: i64,
    vft: u64,
    crashes: i64,
    deadline: Option<Timestamp>,
}

/// The next job of a class; late ones expire on the way.
fn head(db: &Connection, priority: Priority, want: &Want, now: Timestamp) -> rusqlite::Result<Option<Head>> {
    loop {
        let mut least: Option<((u64, u64, JobId), Head)> = None;
        for lane in want.lanes.iter().filter(|lane| lane.priority == priority) {
            let hot = lane.hot.iter().map(|bucket| (Some(bucket.as_str()), HOT_BONUS_MS));
            for (bucket, bonus) in std::iter::once((None, 0)).chain(hot) {
                let Some(head) = first(db, lane, bucket, now)? else { continue };
                let rank = (head.vft.saturating_sub(bonus), head.vft, head.id);
                if least.as_ref().is_none_or(|(least, _)| rank < *least) {
                    least = Some((rank, head));
                }
            }
        }
        match least {
            Some((_, head)) if head.deadline.is_some_and(|deadline| deadline <= now) => expire(db, head.id, now)?,
            least => return Ok(least.map(|(_, head)| head)),
        }
    }
}

/// The job of a lane, or of one bucket of it, with the least virtual finishing time.
fn first(db: &Connection, lane: &Lane, bucket: Option<&str>, now: Timestamp) -> rusqlite::Result<Option<Head>> {
    let sql = match bucket {
        None => {
            "SELECT id, class, vft, crashes, deadline FROM job INDEXED BY job_lane WHERE state = 0 AND class = ?1 AND model = ?2 \
             AND (not_before IS NULL OR not_before <= ?3) ORDER BY vft, id LIMIT 1"
        }
        Some(_) => {
            "SELECT id, class, vft, crashes, deadline FROM job INDEXED BY job_bucket WHERE state = 0 AND class = ?1 AND model = ?2 \
             AND bucket = ?4 AND (not_before IS NULL OR not_before <= ?3) ORDER BY vft, id LIMIT 1"
        }
    };
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let (class, crashes) = (row.get("class")?, row.get("crashes")?);
        let (vft, deadline) = (rows::number(row, "vft")?, rows::moment(row, "deadline")?);
        Ok(Head { id: rows::id(row)?, class, vft, crashes, deadline })
    };
    let lane = (class(lane.priority), &lane.model, time(now));
    let found = match bucket {
        None => statement.query_row(params![lane.0, lane.1, lane.2], read),
        Some(bucket) => statement.query_row(params![lane.0, lane.1, lane.2, bucket], read),
    };
    found.optional()
}

fn take(db: &Connection, head: &Head, node: &NodeId, now: Timestamp) -> rusqlite::Result<Claim> {
    db.prepare_cached("INSERT INTO clock VALUES (?, ?) ON CONFLICT (class) DO UPDATE SET vft = max(vft, excluded.vft)")?
        .execute(params![head.class, int(head.vft)])?;
    let sql = "UPDATE job SET state = 1, owner = ?2, epoch = epoch + 1, started = ?3 WHERE id = ?1 AND state = 0 RETURNING *";
    db.prepare_cached(sql)?.query_row(params![head.id.to_string(), node.as_str(), time(now)], rows::claim)
}
