//! Leases: renewed, left, ended.

use ldm_core::JobId;
use ldm_engine::ledger::{Fence, LEASE, NodeId, NodeState, Order, Reaped, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ends::{expire, lose, put_back};
use super::rows::{self, int, time};
use super::thread::Core;

/// Renews a node's lease.
pub(super) fn beat(
    db: &Connection,
    core: &mut Core,
    node: &NodeId,
    state: &NodeState,
    now: Timestamp,
) -> rusqlite::Result<Vec<Order>> {
    db.prepare_cached("INSERT OR REPLACE INTO node (id, expires, capacity, draining) VALUES (?, ?, ?, ?)")?.execute(params![
        node.as_str(),
        time(now.after(LEASE)),
        state.capacity,
        state.draining
    ])?;
    let mut orders = Vec::new();
    let mut held = db.prepare_cached("SELECT cancel FROM job WHERE id = ? AND epoch = ? AND state = 1")?;
    for fence in &state.held {
        let cancel = held.query_row(params![fence.id.to_string(), int(fence.epoch)], |row| row.get::<_, bool>(0)).optional()?;
        match cancel {
            None => orders.push(Order::Lost(*fence)),
            Some(true) => orders.push(Order::Cancel(*fence)),
            Some(false) => {}
        }
    }
    // Claims whose answer was lost on the way.
    for (fence, started) in holdings(db, node)? {
        if started.after(LEASE) <= now && !state.held.contains(&fence) {
            put_back(db, fence.id, now)?;
            core.ring = true;
        }
    }
    Ok(orders)
}

fn holdings(db: &Connection, node: &NodeId) -> rusqlite::Result<Vec<(Fence, Timestamp)>> {
    let mut statement = db.prepare_cached("SELECT id, epoch, started FROM job WHERE state = 1 AND owner = ?")?;
    let read = |row: &Row<'_>| {
        let fence = Fence { id: rows::id(row)?, epoch: rows::number(row, "epoch")? };
        Ok((fence, rows::moment(row, "started")?.unwrap_or_default()))
    };
    statement.query_map([node.as_str()], read)?.collect()
}

/// The node goes in good order.
pub(super) fn leave(db: &Connection, core: &mut Core, node: &NodeId, now: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM node WHERE id = ?")?.execute([node.as_str()])?;
    for (fence, _) in holdings(db, node)? {
        put_back(db, fence.id, now)?;
    }
    core.gone.push(node.clone());
    core.ring = true;
    Ok(())
}

/// What follows on the end of leases and deadlines. `since` is the time of the reap before.
pub(super) fn reap(db: &Connection, core: &mut Core, since: Timestamp, now: Timestamp) -> rusqlite::Result<Reaped> {
    let mut gone = db.prepare_cached("DELETE FROM node WHERE expires <= ? RETURNING id")?;
    for node in gone.query_map([time(now)], |row| row.get(0))? {
        core.gone.push(NodeId::stored(node?));
    }
    let mut reaped = lose(db, orphans(db)?, now)?;
    let mut late = db.prepare_cached("SELECT id FROM job WHERE state = 0 AND deadline <= ?")?;
    let late: Vec<JobId> = late.query_map([time(now)], rows::id)?.collect::<rusqlite::Result<_>>()?;
    reaped.expired = late.len() as u64;
    for id in late {
        expire(db, id, now)?;
    }
    let sql = "DELETE FROM share WHERE vft <= coalesce((SELECT vft FROM clock WHERE clock.class = share.class), 0)";
    db.prepare_cached(sql)?.execute([])?;
    let due = db
        .prepare_cached("SELECT 1 FROM job WHERE state = 0 AND not_before > ? AND not_before <= ?")?
        .exists([time(since), time(now)])?;
    core.ring |= due || reaped.requeued > 0;
    Ok(reaped)
}

/// Jobs whose holder has no lease: an anti-join, so that no missing row can hide one.
pub(super) fn orphans(db: &Connection) -> rusqlite::Result<Vec<(JobId, u32, bool)>> {
    let sql = "SELECT id, crashes, cancel FROM job WHERE state = 1 AND NOT EXISTS (SELECT 1 FROM node WHERE node.id = job.owner)";
    let read = |row: &Row<'_>| Ok((rows::id(row)?, rows::small(row, "crashes")?, row.get("cancel")?));
    db.prepare_cached(sql)?.query_map([], read)?.collect()
}
