//! The ledger in SQLite: the contract, and what only a file can do: outlive its process, be damaged, be somebody else's.

mod contract;
mod file;
mod killed;

use std::path::Path;
use std::sync::Arc;

use ldm_cluster::Sqlite;
use ldm_engine::ledger::contract::{Bench, START};
use ldm_engine::ledger::{LedgerLimits, ManualClock};

/// A ledger in a new folder, which lives as long as the bench.
fn fresh(limits: LedgerLimits) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let bench = at(folder.path(), limits, &ManualClock::new(START));
    Bench { keep: Box::new(folder), ..bench }
}

/// The ledger in that folder.
fn at(folder: &Path, limits: LedgerLimits, clock: &ManualClock) -> Bench {
    let ledger = Sqlite::with_clock(folder, limits, Arc::new(clock.clone())).unwrap();
    Bench { ledger: Arc::new(ledger), clock: clock.clone(), keep: Box::new(()) }
}
