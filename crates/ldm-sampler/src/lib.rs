//! Noise schedules, timestep spacings and every sampler as a [`Plan`]: pure `f64`, no tensors, no services.
//!
//! A sampler is a function from a schedule to a plan of scalar coefficients ([`plan()`]); whoever owns tensors
//! executes the plan. Numbers equal diffusers' schedulers (0.42.1) as its Stable Diffusion pipelines drive them; by
//! [`Variant`] and [`Spacing`] they equal k-diffusion's samplers, or CompVis' DDIM and PLMS with their own rule for steps.

mod error;
mod form;
mod guidance;
mod noise;
mod plan;
mod registry;
mod samplers;
mod schedule;
mod sigmas;
mod spacing;
mod spec;
mod variant;

pub use error::PlanError;
pub use guidance::{GuidanceSpec, rescale_guidance};
pub use noise::{NoiseSource, NoiseSpec, RandomSource, Variation};
pub use plan::{Assign, Eval, Interval, Operand, Plan, Step};
pub use registry::{Alias, Entry, Resolved, Sampler, entries, resolve};
pub use schedule::{BetaSchedule, NoiseSchedule, Prediction, ScheduleConfig, rescale_zero_terminal_snr};
pub use sigmas::{FinalSigma, SigmaSchedule, beta, exponential, karras};
pub use spacing::Spacing;
pub use spec::{PlanSpec, SchedulerConfig, SolverConfig, SolverType, plan};
pub use variant::{InitScale, StepNoise, Variant};
