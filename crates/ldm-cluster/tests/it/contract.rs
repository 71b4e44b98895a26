//! The contract of all ledgers.

ldm_engine::ledger_contract!(crate::fresh);
