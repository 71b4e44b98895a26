//! The vocabulary of the service: what is asked for, what may be asked for, what is told, what comes out.
//!
//! Nothing here knows HTTP or tensors, and nothing here is `Serialize`: each edge owns its wire types.
//! A [`Draft`] holds what a client said; [`Draft::check`] turns it into a [`Request`] against the [`Catalogue`] that the
//! executor reported, or lists *every* violation at once. Nothing after that re-checks.

mod catalogue;
mod draft;
mod event;
mod id;
mod lora;
mod raster;
mod request;
mod strangers;
pub mod task;
mod terms;
mod tuning;
mod violation;

pub use catalogue::{
    Alias, Bounds, BoxBounds, Catalogue, Conditions, Defaults, Mode, Model, NeighborBounds, Rounding, Sampler, Sizes,
};
pub use draft::{Draft, MAX_SEED};
pub use event::{Checkpoint, Ending, Event, Failure, FailureKind, Output, Preview, Progress, Timings};
pub use id::JobId;
pub use lora::Lora;
pub use raster::{Plane, PlaneError, Raster, RasterError};
pub use request::{Prompting, Request};
pub use task::Task;
pub use terms::{Priority, Tenant, Terms};
pub use tuning::{Library, Random, Tuning, Variation};
pub use violation::{Violation, Violations};
