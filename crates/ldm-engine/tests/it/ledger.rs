//! The ledger in memory keeps the contract.

use std::sync::Arc;

use ldm_engine::ledger::contract::{Bench, START};
use ldm_engine::ledger::{LedgerLimits, ManualClock, Memory};

/// An empty one.
pub(crate) fn memory(limits: LedgerLimits) -> Bench {
    let clock = ManualClock::new(START);
    Bench { ledger: Arc::new(Memory::with_clock(limits, Arc::new(clock.clone()))), clock, keep: Box::new(()) }
}

/// Runs a test that waits.
pub(crate) fn wait<F: Future<Output = ()>>(test: F) {
    ldm_engine::ledger::contract::block_on(test);
}

ldm_engine::ledger_contract!(super::memory);
