//! A request becomes tensors and back: families, tasks, and the executor that runs them. The only crate that sees both a
//! `Request` and a `Tensor`.
//!
//! Shape legend: `B` rows of a network call, `C` channels, `H` `W` height and width, `L` tokens, `D` width.

mod card;
mod catalogue;
mod conditioning;
mod executor;
mod families;
mod inspect;
mod options;
mod picture;
mod run;
mod scheduler;
mod tasks;

pub use catalogue::samplers;
pub use executor::DeviceExecutor;
pub use families::ModelError;
pub use inspect::{Inspection, Part, inspect};
pub use options::{Device, Dtype, LoadOptions, ModelSource, ParseError};
pub use run::Run;
