//! The one thread that owns the connection: it takes what waits, does it in one transaction, commits once, then answers.

use std::fs::File;
use std::sync::Arc;

use ldm_engine::ledger::rules::Turns;
use ldm_engine::ledger::{Bell, LedgerError, LedgerLimits, NodeId};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// Commands that share one transaction, and with it one flush, at most.
const BATCH: usize = 64;
/// Pages that are given back to the file system after records were deleted, at most.
const VACUUM_PAGES: u32 = 1_024;

/// What is beside the tables.
pub(super) struct Core {
    pub(super) limits: LedgerLimits,
    pub(super) turns: Turns,
    /// Something can be claimed anew.
    pub(super) ring: bool,
    /// Records were deleted.
    pub(super) freed: bool,
    /// Nodes that are gone.
    pub(super) gone: Vec<NodeId>,
}

impl Core {
    pub(super) fn new(limits: LedgerLimits) -> Self {
        Self { limits, turns: Turns::default(), ring: false, freed: false, gone: Vec::new() }
    }
}

/// How much a command loses when the machine (not the process) dies right after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flush {
    /// Nothing that matters: a lease, a claim.
    Later,
    /// What must not be lost: flushed before the answer.
    Now,
}

/// A command, and where its answer goes.
pub(super) trait Task: Send {
    fn flush(&self) -> Flush;
    fn run(&mut self, db: &Connection, core: &mut Core);
    fn answer(self: Box<Self>, committed: &Result<(), LedgerError>);
}

struct Call<T, F> {
    flush: Flush,
    work: Option<F>,
    outcome: Result<T, LedgerError>,
    reply: oneshot::Sender<Result<T, LedgerError>>,
}

/// A command of that work, and its answer to come.
pub(super) fn call<T, F>(flush: Flush, work: F) -> (Box<dyn Task>, oneshot::Receiver<Result<T, LedgerError>>)
where
    T: Send + 'static,
    F: FnOnce(&Connection, &mut Core) -> Result<T, rusqlite::Error> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Call { flush, work: Some(work), outcome: Err(LedgerError::Closed), reply }), answer)
}

impl<T, F> Task for Call<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Core) -> Result<T, rusqlite::Error> + Send,
{
    fn flush(&self) -> Flush {
        self.flush
    }

    /// In a savepoint of its own: a command that fails leaves the others of its batch alone.
    fn run(&mut self, db: &Connection, core: &mut Core) {
        let Some(work) = self.work.take() else { return };
        let outcome = step(db, "SAVEPOINT command").and_then(|()| {
            let outcome = work(db, core);
            if outcome.is_err() {
                step(db, "ROLLBACK TO command")?;
            }
            step(db, "RELEASE command")?;
            outcome
        });
        self.outcome = outcome.map_err(failed);
    }

    fn answer(self: Box<Self>, committed: &Result<(), LedgerError>) {
        // Who asked may have gone meanwhile.
        let _ = self.reply.send(committed.clone().and(self.outcome));
    }
}

fn step(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(drop)
}

fn failed(error: rusqlite::Error) -> LedgerError {
    LedgerError::Store(error.to_string())
}

/// Works until every handle is gone; then folds the log into the file and lets go of the folder.
pub(super) fn serve(db: Connection, lock: File, core: Core, mut inbox: mpsc::Receiver<Box<dyn Task>>, bell: Arc<Bell>) {
    let mut owner = Owner { db, core, flush: Flush::Now };
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = inbox.try_recv()
        {
            batch.push(next);
        }
        let committed = owner.commit(&mut batch).map_err(failed);
        if let Err(error) = &committed {
            tracing::error!(%error, "the ledger could not write");
            owner.rollback();
        }
        // Spurious rings harm nobody, lost ones do.
        if std::mem::take(&mut owner.core.ring) {
            bell.ring();
        }
        owner.core.gone.drain(..).for_each(|node| bell.forget(&node));
        batch.into_iter().for_each(|task| task.answer(&committed));
        if std::mem::take(&mut owner.core.freed)
            && let Err(error) = owner.shrink()
        {
            tracing::warn!(%error, "the ledger's file did not shrink");
        }
    }
    if let Err(error) = owner.db.pragma_query(None, "wal_checkpoint", |_| Ok(())) {
        tracing::warn!(%error, "the ledger's log was not folded in; it will be at the next start");
    }
    drop((owner, lock));
}

struct Owner {
    db: Connection,
    core: Core,
    /// The setting of the connection.
    flush: Flush,
}

impl Owner {
    fn commit(&mut self, batch: &mut [Box<dyn Task>]) -> rusqlite::Result<()> {
        let flush = batch.iter().map(|task| task.flush()).max().unwrap_or(Flush::Now);
        if flush != self.flush {
            let level = if flush == Flush::Now { "FULL" } else { "NORMAL" };
            self.db.pragma_update(None, "synchronous", level)?;
            self.flush = flush;
        }
        step(&self.db, "BEGIN IMMEDIATE")?;
        batch.iter_mut().for_each(|task| task.run(&self.db, &mut self.core));
        step(&self.db, "COMMIT")
    }

    fn rollback(&self) {
        if !self.db.is_autocommit()
            && let Err(error) = step(&self.db, "ROLLBACK")
        {
            tracing::error!(%error, "the ledger could not roll back");
        }
    }

    /// Gives freed pages back to the file system, a bounded number at a time.
    fn shrink(&self) -> rusqlite::Result<()> {
        let mut statement = self.db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }
}
