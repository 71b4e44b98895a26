//! What is known of a model before its weights are: enough to price a request.

use ldm_core::Request;
use ldm_core::task::Work;
use ldm_sampler::SchedulerConfig;

use crate::blueprint::{Blueprint, ConditionerPlan};
use crate::tasks::padded;

/// A model without its weights.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    pub(crate) scheduler: SchedulerConfig,
    /// Guidance is an input of the network, not two rows (latent consistency models).
    pub(crate) embeds_guidance: bool,
    /// Tokens of a prompt that are read at once, without the two marks at their ends.
    pub(crate) prompt_tokens: u32,
    channels: i64,
    factor: i64,
    /// Conditioning tokens of most requests, `[L, D]`.
    usual: [u32; 2],
}

impl Sketch {
    pub(crate) fn of(blueprint: &Blueprint) -> Self {
        let length = match &blueprint.conditioner {
            ConditionerPlan::Text(text) | ConditionerPlan::TextPair { second: text, .. } => text.tokenizer.length(),
            ConditionerPlan::Bert { tokenizer, .. } => tokenizer.length(),
            _ => 0,
        } as u32;
        Self {
            scheduler: blueprint.scheduler.config.clone(),
            embeds_guidance: blueprint.unet.config.guidance.is_some(),
            prompt_tokens: length.saturating_sub(2),
            channels: blueprint.stage.config.latent_channels(),
            factor: blueprint.stage.config.factor(),
            usual: [length.max(1), blueprint.unet.config.cross_attention_dim.max(0) as u32],
        }
    }

    /// Shape of a request's latent, `[C, H, W]`.
    pub(crate) fn latent(&self, request: &Request) -> [u32; 3] {
        let side = |pixels: u32| i64::from(pixels) / self.factor;
        let [height, width] = [side(request.height), side(request.width)];
        let shape = match &request.work {
            Work::SuperResolution(work) => {
                let [width, height] = work.shown(self.factor as u32).map(i64::from);
                [self.channels, padded(height), padded(width)]
            }
            _ => [self.channels, height, width],
        };
        shape.map(|side| side as u32)
    }

    /// Whether a request runs two rows: at guidance of 1 or below the negative prompt has no part, as in diffusers.
    pub(crate) fn is_guided(&self, request: &Request) -> bool {
        request.guidance > 1. && !self.embeds_guidance
    }

    /// Conditioning tokens of a request, about.
    pub(crate) fn cross(&self, request: &Request) -> [u32; 2] {
        match &request.work {
            Work::Rdm(work) => [work.neighbors.len() as u32, self.usual[1]],
            _ => self.usual,
        }
    }
}
