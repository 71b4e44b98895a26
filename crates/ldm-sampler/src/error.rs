//! Why a plan cannot be made: one named error per cause, each saying what was asked and what is possible.

use crate::{Sampler, SigmaSchedule, Spacing};

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
    /// A spacing that the sampler has no rule for.
    #[error("sampler {} does not support the {} spacing", .sampler.name(), .spacing.name())]
    SpacingUnsupported {
        /// The sampler asked for.
        sampler: Sampler,
        /// The spacing asked for.
        spacing: Spacing,
    },
    /// A solver order that the sampler does not have.
    #[error("sampler {} has solver orders 1 to 3, not {order}", .sampler.name())]
    SolverOrderUnsupported {
        /// The sampler asked for.
        sampler: Sampler,
        /// The order asked for.
        order: usize,
    },
    /// Brownian noise for a sampler whose steps are not increments of a path.
    #[error("sampler {} does not take Brownian noise", .sampler.name())]
    BrownianUnsupported {
        /// The sampler asked for.
        sampler: Sampler,
    },
    /// A number that a setting cannot be.
    #[error("{setting} cannot be {value}: {reason}")]
    InvalidSetting {
        /// The setting, as its field is named.
        setting: &'static str,
        /// What it was set to.
        value: f64,
        /// What it must be.
        reason: &'static str,
    },
    /// A network that predicts the clean latent, asked for the noise in a latent that has none.
    #[error("a clean latent has no noise that sample prediction could tell (inversion starts at timestep {timestep})")]
    NoiseUndefined {
        /// The first timestep of the inversion.
        timestep: usize,
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
