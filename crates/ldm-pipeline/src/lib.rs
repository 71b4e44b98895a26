//! A request becomes tensors and back: families, tasks, and the executor that runs them. The only crate that sees both a
//! `Request` and a `Tensor`.
//!
//! Shape legend: `B` rows of a network call, `C` channels, `H` `W` height and width, `L` tokens, `D` width.

mod blueprint;
mod card;
mod catalogue;
mod conditioner;
mod conditioning;
pub mod convert;
mod digest;
mod executor;
mod families;
mod faults;
mod footprint;
mod hires;
mod inspect;
mod loras;
mod masking;
mod options;
mod picture;
mod profile;
mod reconstruct;
mod resize;
mod run;
mod scheduler;
mod sketch;
mod system;
mod tasks;
mod tiles;

pub use catalogue::samplers;
pub use executor::{DeviceExecutor, Given, Tamper, Watch};
pub use families::ModelError;
pub use inspect::{Inspection, Part, inspect, inspect_source};
pub use ldm_core::Mode;
pub use options::{Device, Dtype, EmaChoice, LoadOptions, Merge, ModelSource, ParseError};
pub use reconstruct::{Reconstruction, reconstruct};
pub use run::Run;
