//! The JSON of a spec, version 1. Fields are only ever added, with a default; anything else is another version.

use std::time::Duration;

use ldm_core::task::{Bbox, Fill, HiresDraft, MaskingDraft, Upscaler};
use ldm_core::{Library, Lora, Priority, Prompting, Random, Rounding, Tuning, Variation};
use serde::{Deserialize, Serialize};

/// The version that is written.
pub(super) const VERSION: u32 = 1;

/// What is read first: is the rest understood?
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) version: u32,
    pub(super) tenant: String,
    #[serde(with = "PriorityWire")]
    pub(super) priority: Priority,
    pub(super) deadline: Option<Duration>,
    pub(super) images: u32,
    pub(super) task: String,
    pub(super) model: String,
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    #[serde(with = "PromptingWire")]
    pub(super) prompting: Prompting,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) steps: u32,
    pub(super) sampler: String,
    pub(super) schedule: String,
    pub(super) guidance: f64,
    pub(super) eta: f64,
    pub(super) seed: u64,
    pub(super) tuning: TuningWire,
    #[serde(with = "RoundingWire")]
    pub(super) rounding: Rounding,
    pub(super) preview_every: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) loras: Vec<LoraWire>,
    pub(super) work: Work,
}

/// An adapter.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoraWire {
    name: String,
    strength: f64,
}

impl From<Lora> for LoraWire {
    fn from(Lora { name, strength }: Lora) -> Self {
        Self { name, strength }
    }
}

impl From<LoraWire> for Lora {
    fn from(LoraWire { name, strength }: LoraWire) -> Self {
        Self { name, strength }
    }
}

/// What only one task needs.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Work {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) init_image: Option<Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strength: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mask: Option<Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) masking: Option<MaskingWire>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lr_image: Option<Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) noise_level: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) depth: Option<Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) class: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) boxes: Option<Vec<BboxWire>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) semantic: Option<Picture>,
    /// Their lengths; the numbers are in one object, little-endian f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) neighbors: Option<Neighbors>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hires: Option<HiresWire>,
}

/// How a mask is taken.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskingWire {
    blur: Option<[f64; 2]>,
    invert: Option<bool>,
    only_masked: Option<bool>,
    padding: Option<i64>,
    fill: Option<FillWire>,
    composite: Option<bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FillWire {
    Original,
    Smear,
    LatentNoise,
    LatentNothing,
}

impl From<Fill> for FillWire {
    fn from(fill: Fill) -> Self {
        match fill {
            Fill::Original => Self::Original,
            Fill::Smear => Self::Smear,
            Fill::LatentNoise => Self::LatentNoise,
            Fill::LatentNothing => Self::LatentNothing,
        }
    }
}

impl From<FillWire> for Fill {
    fn from(fill: FillWire) -> Self {
        match fill {
            FillWire::Original => Self::Original,
            FillWire::Smear => Self::Smear,
            FillWire::LatentNoise => Self::LatentNoise,
            FillWire::LatentNothing => Self::LatentNothing,
        }
    }
}

impl From<MaskingDraft> for MaskingWire {
    fn from(MaskingDraft { blur, invert, only_masked, padding, fill, composite }: MaskingDraft) -> Self {
        Self { blur, invert, only_masked, padding, fill: fill.map(Into::into), composite }
    }
}

impl From<MaskingWire> for MaskingDraft {
    fn from(MaskingWire { blur, invert, only_masked, padding, fill, composite }: MaskingWire) -> Self {
        Self { blur, invert, only_masked, padding, fill: fill.map(Into::into), composite }
    }
}

/// A second pass.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HiresWire {
    width: Option<i64>,
    height: Option<i64>,
    scale: Option<f64>,
    steps: Option<i64>,
    strength: Option<f64>,
    #[serde(with = "UpscalerWire")]
    upscaler: Upscaler,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Upscaler", rename_all = "kebab-case")]
enum UpscalerWire {
    LatentBilinear,
    LatentNearest,
    PixelLanczos,
}

impl From<HiresDraft> for HiresWire {
    fn from(HiresDraft { width, height, scale, steps, strength, upscaler }: HiresDraft) -> Self {
        Self { width, height, scale, steps, strength, upscaler }
    }
}

impl From<HiresWire> for HiresDraft {
    fn from(HiresWire { width, height, scale, steps, strength, upscaler }: HiresWire) -> Self {
        Self { width, height, scale, steps, strength, upscaler }
    }
}

/// A picture or a map whose bytes, `[H, W, 3]` or `[H, W]`, are in an object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Picture {
    pub(super) object: usize,
    pub(super) width: u32,
    pub(super) height: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbors {
    pub(super) object: usize,
    pub(super) lengths: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BboxWire {
    label: i64,
    bbox: [f64; 4],
    is_occluded: bool,
    is_group_of: bool,
    is_depiction: bool,
    is_inside: bool,
}

impl From<Bbox> for BboxWire {
    fn from(bbox: Bbox) -> Self {
        let Bbox { label, bbox, is_occluded, is_group_of, is_depiction, is_inside } = bbox;
        Self { label, bbox, is_occluded, is_group_of, is_depiction, is_inside }
    }
}

impl From<BboxWire> for Bbox {
    fn from(wire: BboxWire) -> Self {
        let BboxWire { label, bbox, is_occluded, is_group_of, is_depiction, is_inside } = wire;
        Self { label, bbox, is_occluded, is_group_of, is_depiction, is_inside }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TuningWire {
    guidance_rescale: f64,
    /// The upper end is absent when it is infinite, which JSON cannot say.
    guidance_interval: Option<(f64, Option<f64>)>,
    #[serde(with = "RandomWire")]
    random: Random,
    #[serde(with = "LibraryWire")]
    library: Library,
    variation: Option<(u64, f64)>,
    eta_seed_delta: i64,
    clip_skip: u32,
}

impl From<Tuning> for TuningWire {
    fn from(tuning: Tuning) -> Self {
        let Tuning { guidance_rescale, guidance_interval, random, library, variation, eta_seed_delta, clip_skip } = tuning;
        let guidance_interval = guidance_interval.map(|(low, high)| (low, high.is_finite().then_some(high)));
        let variation = variation.map(|Variation { seed, strength }| (seed, strength));
        Self { guidance_rescale, guidance_interval, random, library, variation, eta_seed_delta, clip_skip }
    }
}

impl From<TuningWire> for Tuning {
    fn from(wire: TuningWire) -> Self {
        let TuningWire { guidance_rescale, guidance_interval, random, library, variation, eta_seed_delta, clip_skip } = wire;
        let guidance_interval = guidance_interval.map(|(low, high)| (low, high.unwrap_or(f64::INFINITY)));
        let variation = variation.map(|(seed, strength)| Variation { seed, strength });
        Self { guidance_rescale, guidance_interval, random, library, variation, eta_seed_delta, clip_skip }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Priority", rename_all = "snake_case")]
enum PriorityWire {
    Interactive,
    Batch,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Prompting", rename_all = "snake_case")]
enum PromptingWire {
    Weighted,
    Plain,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Rounding", rename_all = "snake_case")]
enum RoundingWire {
    Round,
    Truncate,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Random", rename_all = "snake_case")]
enum RandomWire {
    Cpu,
    Gpu,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Library", rename_all = "snake_case")]
enum LibraryWire {
    Diffusers,
    KDiffusion,
}
