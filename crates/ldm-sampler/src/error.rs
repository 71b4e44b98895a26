//! Why a plan cannot be made: one named error per cause, each saying what was asked and what is possible.

use crate::{Sampler, SigmaSchedule};

/// Why there is no plan for a [`PlanSpec`](crate::PlanSpec) under a [`SchedulerConfig`](crate::SchedulerConfig).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No steps were asked for.
    #[error("steps must be at least 1")]
    ZeroSteps,
    /// More steps than the noise schedule (or, for LCM, the distillation schedule) has timesteps.
    #[error("{steps} steps are more than the {limit} timesteps there are to choose from")]
    TooManySteps {
        /// Steps asked for.
        steps: usize,
        /// The most there can be.
        limit: usize,
    },
    /// So many steps that two of them fall on the same noise level, where a multistep solver has no meaning.
    #[error("{steps} steps put two steps on the same noise level")]
    StepsTooDense {
        /// Steps asked for.
        steps: usize,
    },
    /// The spacing (with its offset) asks for a timestep the model was never trained on.
    #[error("timestep {timestep} lies beyond the last trained timestep {last}")]
    TimestepBeyondTraining {
        /// The timestep that the spacing led to.
        timestep: usize,
        /// The last timestep of the noise schedule.
        last: usize,
    },
    /// A nonzero eta for a sampler whose stochasticity is not adjustable.
    #[error("sampler {} does not take eta", .sampler.name())]
    EtaUnsupported {
        /// The sampler asked for.
        sampler: Sampler,
    },
    /// Eta outside [0, 1].
    #[error("eta must lie in [0, 1], not {eta}")]
    EtaOutOfRange {
        /// Eta asked for.
        eta: f64,
    },
    /// A sigma schedule that the sampler has no use for.
    #[error("sampler {} does not support the {} schedule", .sampler.name(), .schedule.name())]
    ScheduleUnsupported {
        /// The sampler asked for.
        sampler: Sampler,
        /// The sigma schedule asked for.
        schedule: SigmaSchedule,
    },
    /// Img2img strength outside (0, 1].
    #[error("strength must lie in (0, 1], not {strength}")]
    StrengthOutOfRange {
        /// Strength asked for.
        strength: f64,
    },
    /// Strength so low that no step is left.
    #[error("strength {strength} leaves none of the {steps} steps")]
    StrengthTooLow {
        /// Strength asked for.
        strength: f64,
        /// Steps asked for.
        steps: usize,
    },
    /// The model's noise schedule makes no sense.
    #[error("invalid noise schedule: {reason}")]
    InvalidNoiseSchedule {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Epsilon prediction at a timestep without any signal, where it says nothing about the clean latent.
    #[error("epsilon prediction cannot start from a terminal signal-to-noise ratio of zero")]
    ZeroTerminalSnr,
}
