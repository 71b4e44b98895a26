//! Where libraries differ in the same sampler: what diffusers does is the default, and k-diffusion's way has names.

/// What the initial latent of a sigma-space sampler is scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum InitScale {
    /// What the sampler's diffusers class does: sqrt(sigma² + 1) for DPM++ and UniPC and under leading spacing, else
    /// the largest sigma.
    #[default]
    Class,
    /// The largest sigma (k-diffusion, and A1111 with it).
    SigmaMax,
}

/// Where a stochastic sampler's noise comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StepNoise {
    /// What the sampler's class does: Brownian for DPM++ SDE and DPM++ 3M SDE, else independent.
    #[default]
    Class,
    /// Drawn anew at every step.
    Independent,
    /// Increments of one Brownian path (k-diffusion, for its SDE samplers).
    Brownian,
}

/// The habits of a run that do not belong to the sampler as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// The scale of the initial latent.
    pub init_scale: InitScale,
    /// Whether the timesteps of noise levels between trained ones are rounded; `None` does as the sampler's class.
    pub round_t: Option<bool>,
    /// The noise of SDE samplers.
    pub noise: StepNoise,
    /// Whether one level more is laid out and the last one above zero left out (A1111 does so for DPM2, DPM2 a and
    /// DPM++ 3M SDE).
    pub discard_next_to_last_sigma: bool,
}

impl Variant {
    /// What diffusers does: the default.
    pub const DIFFUSERS: Variant =
        Variant { init_scale: InitScale::Class, round_t: None, noise: StepNoise::Class, discard_next_to_last_sigma: false };

    /// What k-diffusion does with a latent model ([`Spacing::KDiffusion`](crate::Spacing) gives its noise levels).
    /// `noise` is left alone, since only SDE samplers can take the Brownian one.
    pub const K_DIFFUSION: Variant = Variant { init_scale: InitScale::SigmaMax, round_t: Some(false), ..Variant::DIFFUSERS };
}
