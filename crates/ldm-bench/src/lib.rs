//! The load generator: sends a mix of requests, open-loop or closed-loop, and says how they fared.
//!
//! [`run`] measures every kind alone first (its solo time), then puts the load on a [`Target`]: a server over HTTP
//! ([`HttpTarget`]) or an engine in this process ([`ServiceTarget`]). In an open loop requests leave at the times of a Poisson
//! process whatever the server does, and their latency counts from those times, so that a server that stands still shows in every
//! request that came meanwhile (no coordinated omission). Memory is bounded: latencies are in HDR histograms.

mod compare;
mod fairness;
mod flight;
mod honesty;
mod load;
mod mix;
mod options;
mod pictures;
mod random;
mod report;
mod run;
mod solo;
mod table;
mod tally;
mod targets;

pub use compare::{compare, side_by_side};
pub use fairness::{jain, max_min};
pub use mix::{Kind, Mix, MixError, Sender};
pub use options::{Length, Load, Options, OptionsError};
pub use pictures::{Content, Drawn};
pub use report::{
    Batches, Fairness, Figures, Generator, Honesty, KindReport, Quantiles, Report, Server, StageQuantiles, TenantReport,
};
pub use run::{BenchError, run};
pub use targets::{Counters, HttpTarget, Outcome, ServiceTarget, Shot, Stages, Target, UrlError};
