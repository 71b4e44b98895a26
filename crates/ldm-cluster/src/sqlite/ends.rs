//! A job's ways out of a holder's hands: back to the queue, or to its one ending.

use ldm_core::JobId;
use ldm_engine::ledger::rules::{self, Loss};
use ldm_engine::ledger::{
    Fence, Finish, JobView, Kept, MAX_TOMBSTONES, ObjectRef, Outcome, REFUSED_PAUSE, Reaped, Release, TOMBSTONE, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, int, time};
use super::views::one;

/// Whether this fence still holds its job.
fn holds(db: &Connection, fence: &Fence) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM job WHERE id = ? AND epoch = ? AND state = 1")?
        .exists(params![fence.id.to_string(), int(fence.epoch)])
}

/// The job ends, as somebody said.
pub(super) fn end(db: &Connection, id: JobId, outcome: &Outcome, now: Timestamp) -> rusqlite::Result<()> {
    let (state, text) = rows::ending(outcome);
    terminal(db, id, state, &text, rules::outcome_bytes(outcome), now)
}

/// The job ends, because its deadline has passed.
pub(super) fn expire(db: &Connection, id: JobId, now: Timestamp) -> rusqlite::Result<()> {
    terminal(db, id, rows::EXPIRED, "{}", 0, now)
}

/// The one place where a job ends.
fn terminal(db: &Connection, id: JobId, state: i64, outcome: &str, bytes: u64, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE job SET state = ?2, outcome = ?3, ended = ?4, owner = NULL, \
               kept = bytes + ?5 + coalesce(json_extract(ckpt, '$[0][1]'), 0) WHERE id = ?1 AND state < 2";
    db.prepare_cached(sql)?.execute(params![id.to_string(), state, outcome, time(now), int(bytes)])?;
    Ok(())
}

/// Ends a job for its holder.
pub(super) fn finish(db: &Connection, fence: &Fence, outcome: &Outcome, now: Timestamp) -> rusqlite::Result<Finish> {
    if !holds(db, fence)? {
        return Ok(Finish::Superseded);
    }
    end(db, fence.id, outcome, now)?;
    Ok(Finish::Recorded)
}

/// Notes a checkpoint.
pub(super) fn checkpoint(db: &Connection, fence: &Fence, ckpt: &ObjectRef, step: u32) -> rusqlite::Result<Kept> {
    if !holds(db, fence)? {
        return Ok(Kept::Superseded);
    }
    let before = db
        .prepare_cached("SELECT ckpt FROM job WHERE id = ?")?
        .query_row([fence.id.to_string()], |row| Ok(rows::column_objects(row, "ckpt")?.pop()))?;
    note(db, fence.id, ckpt, step)?;
    Ok(Kept::Recorded { replaced: before.filter(|before| before.key != ckpt.key) })
}

fn note(db: &Connection, id: JobId, ckpt: &ObjectRef, step: u32) -> rusqlite::Result<()> {
    let ckpt = rows::objects(std::slice::from_ref(ckpt));
    db.prepare_cached("UPDATE job SET ckpt = ?, step = ? WHERE id = ?")?.execute(params![ckpt, step, id.to_string()])?;
    Ok(())
}

/// Lets go of a job that has not ended.
pub(super) fn release(db: &Connection, fence: &Fence, why: &Release, now: Timestamp) -> rusqlite::Result<Finish> {
    if !holds(db, fence)? {
        return Ok(Finish::Superseded);
    }
    match why {
        Release::Expired => {
            expire(db, fence.id, now)?;
            return Ok(Finish::Recorded);
        }
        Release::Drained { ckpt: Some(ckpt), step } => note(db, fence.id, ckpt, *step)?,
        Release::Drained { ckpt: None, .. } => {}
        Release::Refused => {
            let due = time(now.after(REFUSED_PAUSE));
            db.prepare_cached("UPDATE job SET not_before = ? WHERE id = ?")?.execute(params![due, fence.id.to_string()])?;
        }
    }
    put_back(db, fence.id, now)?;
    Ok(Finish::Recorded)
}

/// The job loses its holder in good order: it waits again, or ends if somebody wanted it stopped.
pub(super) fn put_back(db: &Connection, id: JobId, now: Timestamp) -> rusqlite::Result<()> {
    let canceled = db.prepare_cached("SELECT 1 FROM job WHERE id = ? AND cancel = 1")?.exists([id.to_string()])?;
    if canceled { end(db, id, &Outcome::Canceled, now) } else { requeue(db, id, 0) }
}

fn requeue(db: &Connection, id: JobId, crashes: u32) -> rusqlite::Result<()> {
    let sql = "UPDATE job SET state = 0, owner = NULL, epoch = epoch + 1, crashes = crashes + ?2 WHERE id = ?1 AND state = 1";
    db.prepare_cached(sql)?.execute(params![id.to_string(), crashes])?;
    Ok(())
}

/// Wants a job stopped.
pub(super) fn cancel(db: &Connection, id: JobId, now: Timestamp) -> rusqlite::Result<Option<JobView>> {
    let text = id.to_string();
    let state: Option<i64> =
        db.prepare_cached("SELECT state FROM job WHERE id = ?")?.query_row([&text], |row| row.get(0)).optional()?;
    match state {
        None => {
            db.prepare_cached("DELETE FROM tombstone WHERE until <= ?")?.execute([time(now)])?;
            db.prepare_cached("INSERT OR REPLACE INTO tombstone (id, until) VALUES (?, ?)")?
                .execute(params![text, time(now.after(TOMBSTONE))])?;
            let sql = "DELETE FROM tombstone WHERE seq NOT IN (SELECT seq FROM tombstone ORDER BY seq DESC LIMIT ?)";
            db.prepare_cached(sql)?.execute([int(MAX_TOMBSTONES as u64)])?;
            return Ok(None);
        }
        Some(rows::QUEUED) => end(db, id, &Outcome::Canceled, now)?,
        Some(rows::RUNNING) => drop(db.prepare_cached("UPDATE job SET cancel = 1 WHERE id = ?")?.execute([&text])?),
        Some(_) => {}
    }
    one(db, id)
}

/// What follows on the death of the holders of these jobs.
pub(super) fn lose(db: &Connection, lost: Vec<(JobId, u32, bool)>, now: Timestamp) -> rusqlite::Result<Reaped> {
    let mut reaped = Reaped::default();
    for (id, crashes, cancel) in lost {
        match rules::after_loss(crashes + 1, cancel) {
            Loss::Requeue => {
                requeue(db, id, 1)?;
                reaped.requeued += 1;
            }
            Loss::End(outcome) => {
                if outcome == Outcome::Canceled {
                    reaped.canceled += 1
                } else {
                    reaped.failed += 1
                }
                requeue(db, id, 1)?;
                end(db, id, &outcome, now)?;
            }
        }
    }
    Ok(reaped)
}
