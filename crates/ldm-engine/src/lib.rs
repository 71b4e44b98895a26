//! A job's life: permit → queue → schedule → run → report. Generic over an [`Executor`], so nothing here knows a tensor.
//!
//! [`Service::submit`] takes a permit per picture or refuses, and hands a [`Ticket`] back. The jobs travel through an inbox
//! to the one thread that owns the device (`worker.rs`, `device.rs`); between two executor calls it drains that inbox, asks the
//! scheduler (`scheduler.rs`, an ordinary struct without threads, clocks or tensors) what to do next, and does it.
//! Everything is bounded by the permits; a job that was accepted ends exactly once, guaranteed by `reporter.rs`.

pub mod cost;
mod device;
mod executor;
pub mod fake;
mod guard;
mod job;
pub mod ledger;
mod monitor;
pub mod node;
pub mod objects;
mod pace;
mod permits;
mod pool;
mod quotes;
mod reporter;
pub mod scheduler;
mod service;
mod state;
mod ticket;
mod warmup;
mod worker;

pub use executor::{Advance, BatchKey, CacheCounts, Decoding, Executor, ModelChange, Prepared, Price, Resident};
pub use monitor::{Batch, Incident, Monitor, Silent, Stage};
pub use permits::Load;
pub use reporter::Keeper;
pub use scheduler::Policy;
pub use service::{Estimate, Limits, Refused, Service, Submission, WorkerStatus};
pub use state::Readiness;
pub use ticket::{Ticket, Watch};
pub use worker::Worker;
