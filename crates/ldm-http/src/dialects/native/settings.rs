//! What parameters say beside what every request has: only what a request's task takes, and what differs from doing nothing.

use ldm_core::task::{self, Bbox, Work};
use ldm_core::{Library, Prompting, Random, Request};
use serde::Serialize;
use utoipa::ToSchema;

/// Spelled as requests are. Pictures, maps and embeddings are not repeated.
#[derive(Serialize, ToSchema)]
pub(super) struct Settings {
    rounding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompting: Option<&'static str>,
    #[serde(flatten)]
    tuning: Tuning,
    #[serde(flatten)]
    masking: Masking,
    #[serde(skip_serializing_if = "Option::is_none")]
    hires: Option<Hires>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boxes: Option<Vec<Placed>>,
}

/// Settings for reproducing other programs' pictures, where they are not the usual ones.
#[derive(Serialize, ToSchema)]
struct Tuning {
    #[serde(skip_serializing_if = "Option::is_none")]
    clip_skip: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance_rescale: Option<f64>,
    /// An upper end that is infinite is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<f64>>>)]
    guidance_interval: Option<(f64, Option<f64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    random: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    library: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subseed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subseed_strength: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seed_delta: Option<i64>,
}

/// How a mask was taken; nothing where there is none.
#[derive(Default, Serialize, ToSchema)]
struct Masking {
    #[serde(skip_serializing_if = "Option::is_none")]
    mask_blur: Option<Blur>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invert_mask: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    only_masked: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fill: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    composite: Option<bool>,
}

/// The same in both directions, or across and down.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BlurSaid)]
enum Blur {
    Alike(f64),
    Apart([f64; 2]),
}

/// A second pass.
#[derive(Serialize, ToSchema)]
#[schema(as = HiresPass)]
struct Hires {
    width: u32,
    height: u32,
    steps: u32,
    strength: f64,
    upscaler: &'static str,
}

/// A box.
#[derive(Serialize, ToSchema)]
#[schema(as = PlacedBox)]
struct Placed {
    label: i64,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    is_occluded: bool,
    is_group_of: bool,
    is_depiction: bool,
    is_inside: bool,
}

impl Settings {
    pub(super) fn of(request: &Request) -> Self {
        let mut settings = Self {
            rounding: request.rounding.name(),
            prompting: Some(request.prompting).filter(|how| *how != Prompting::default()).map(Prompting::name),
            tuning: request.tuning.into(),
            masking: Masking::default(),
            hires: request.hires().map(Into::into),
            scale: None,
            noise_level: None,
            class: None,
            boxes: None,
        };
        match &request.work {
            Work::Inpaint(work) => settings.masking = work.masking.into(),
            Work::SuperResolution(work) => {
                (settings.scale, settings.noise_level) = (Some(work.scale), work.noise_level);
            }
            Work::Class(work) => settings.class = Some(work.class),
            Work::Layout(work) => settings.boxes = Some(work.boxes.iter().copied().map(Into::into).collect()),
            _ => {}
        }
        settings
    }
}

impl From<ldm_core::Tuning> for Tuning {
    fn from(tuning: ldm_core::Tuning) -> Self {
        let ldm_core::Tuning { guidance_rescale, guidance_interval, random, library, variation, eta_seed_delta, clip_skip } =
            tuning;
        Self {
            clip_skip: (clip_skip != 0).then_some(clip_skip),
            guidance_rescale: (guidance_rescale != 0.0).then_some(guidance_rescale),
            guidance_interval: guidance_interval.map(|(low, high)| (low, high.is_finite().then_some(high))),
            random: Some(random).filter(|random| *random != Random::default()).map(Random::name),
            library: Some(library).filter(|library| *library != Library::default()).map(Library::name),
            subseed: variation.map(|variation| variation.seed),
            subseed_strength: variation.map(|variation| variation.strength),
            eta_seed_delta: (eta_seed_delta != 0).then_some(eta_seed_delta),
        }
    }
}

impl From<task::Masking> for Masking {
    fn from(task::Masking { blur, invert, only_masked, fill, composite }: task::Masking) -> Self {
        let mask_blur = if blur[0] == blur[1] { Blur::Alike(blur[0]) } else { Blur::Apart(blur) };
        Self {
            mask_blur: Some(mask_blur),
            invert_mask: Some(invert),
            only_masked: Some(only_masked.is_some()),
            padding: only_masked,
            fill: Some(fill.name()),
            composite: Some(composite),
        }
    }
}

impl From<&task::Hires> for Hires {
    fn from(&task::Hires { width, height, steps, strength, upscaler }: &task::Hires) -> Self {
        Self { width, height, steps, strength, upscaler: upscaler.name() }
    }
}

impl From<Bbox> for Placed {
    fn from(bbox: Bbox) -> Self {
        let Bbox { label, bbox: [x, y, width, height], is_occluded, is_group_of, is_depiction, is_inside } = bbox;
        Self { label, x, y, width, height, is_occluded, is_group_of, is_depiction, is_inside }
    }
}
