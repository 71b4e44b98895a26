//! A job's life: permit → queue → schedule → run → report. Generic over an [`Executor`], so nothing here knows a tensor.
//!
//! [`Service::submit`] takes a permit per picture or refuses, and hands a [`Ticket`] back. The jobs travel through an inbox
//! to the one thread that owns the device (`worker.rs`, `device.rs`); between two executor calls it drains that inbox, asks the
//! scheduler (`scheduler.rs`, an ordinary struct without threads, clocks or tensors) what to do next, and does it.
//! Everything is bounded by the permits; a job that was accepted ends exactly once, guaranteed by `reporter.rs`.

mod device;
mod executor;
pub mod fake;
mod guard;
mod job;
mod monitor;
mod pace;
mod permits;
mod reporter;
mod scheduler;
mod service;
mod state;
mod ticket;
mod warmup;
mod worker;

pub use executor::{Advance, BatchKey, Executor, Price};
pub use monitor::{Monitor, Silent, Stage};
pub use permits::Load;
pub use service::{Limits, Refused, Service};
pub use state::Readiness;
pub use ticket::Ticket;
