//! The engine from outside, with the fake executor. Nothing sleeps: gates hold the device still while a test looks.

mod admission;
mod batching;
mod cancelling;
mod chaos;
mod events;
mod failing;
mod ledger;
mod models;
mod named;
mod pool;
mod rehearsals;
mod rig;
mod spec;
mod starting;
mod stopping;
mod terms;
