//! What a device is asked to do: one picture, everything resolved and within bounds.

use crate::task::Work;
use crate::{Lora, Rounding, Tuning};

/// How a prompt is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompting {
    /// With weights, `(word:1.2)` and `[word]`, and of any length, as stable-diffusion-webui reads it.
    #[default]
    Weighted,
    /// As it stands, cut where the text encoder ends, as diffusers' pipelines read it.
    Plain,
}

impl Prompting {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Weighted, Self::Plain];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::Plain => "plain",
        }
    }
}

/// One picture, checked. Only [`Draft::check`](crate::Draft::check) makes one, so nothing after re-checks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The model's id in the catalogue.
    pub model: String,
    /// The task with what only it needs.
    pub work: Work,
    /// What the picture shall show.
    pub prompt: String,
    /// What it shall not show.
    pub negative_prompt: String,
    /// How both are read.
    pub prompting: Prompting,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// Steps of the sampler.
    pub steps: u32,
    /// The sampler's canonical name.
    pub sampler: String,
    /// The sigma schedule's name.
    pub schedule: String,
    /// Guidance scale; 1 means no guidance.
    pub guidance: f64,
    /// Share of fresh noise in DDIM, in [0, 1].
    pub eta: f64,
    /// Seed of the noise.
    pub seed: u64,
    /// Adapters, each at most once.
    pub loras: Vec<Lora>,
    /// Settings for reproducing other programs' pictures.
    pub tuning: Tuning,
    /// How numbers become bytes.
    pub rounding: Rounding,
    /// A preview picture is wanted every so many steps.
    pub preview_every: Option<u32>,
}
