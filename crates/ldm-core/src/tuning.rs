//! Settings that only those turn who reproduce other programs' pictures.

use crate::{Violation, Violations};

/// Whose random numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Random {
    /// torch's CPU generator, as diffusers' `Generator("cpu")`.
    #[default]
    Cpu,
    /// torch's GPU generator (Philox), as stable-diffusion-webui's "NV".
    Gpu,
}

impl Random {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Gpu];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// Whose habits where libraries differ in the same sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Library {
    /// diffusers.
    #[default]
    Diffusers,
    /// k-diffusion: the first noise is scaled by the largest σ, timesteps are not rounded.
    KDiffusion,
}

impl Library {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Diffusers, Self::KDiffusion];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::KDiffusion => "k-diffusion",
        }
    }
}

/// Another seed that the first noise leans to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variation {
    /// The other seed.
    pub seed: u64,
    /// How far, from 0 to 1.
    pub strength: f64,
}

/// Settings with defaults that change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// Share of a guided output that is rescaled to the deviation of the conditional one (Lin et al. 2023), from 0 to 1.
    pub guidance_rescale: f64,
    /// Noise levels σ between which guidance applies (Kynkäänniemi et al. 2024); everywhere when absent.
    pub guidance_interval: Option<(f64, f64)>,
    /// Whose random numbers.
    pub random: Random,
    /// Whose habits.
    pub library: Library,
    /// Another seed.
    pub variation: Option<Variation>,
    /// What is added to the seed for all noise but the first (stable-diffusion-webui's ENSD); 0 is one stream.
    pub eta_seed_delta: i64,
    /// Layers of the text encoder that are left out at its end.
    pub clip_skip: u32,
}

/// Layers that `clip_skip` may leave out.
const MOST_SKIPPED: u32 = 11;

impl Tuning {
    pub(crate) fn check(&self, bad: &mut Violations) {
        let mut between = |field: &str, value: f64, most: f64| {
            if !(0.0..=most).contains(&value) {
                let limit = format!("0..={most}");
                bad.push(Violation::new(field, format!("`{field}` must be from 0 to {most}, not {value}"), limit, value));
            }
        };
        between("guidance_rescale", self.guidance_rescale, 1.0);
        between("clip_skip", f64::from(self.clip_skip), f64::from(MOST_SKIPPED));
        if let Some(variation) = self.variation {
            between("subseed_strength", variation.strength, 1.0);
        }
        if let Some((low, high)) = self.guidance_interval
            && !(low >= 0.0 && high > low)
        {
            let message = format!("`guidance_interval` must be two rising noise levels from 0 on, not {low} and {high}");
            bad.push(Violation::new("guidance_interval", message, "0 <= low < high", format!("{low}, {high}")));
        }
    }
}
