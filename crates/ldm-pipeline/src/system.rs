//! A latent diffusion model: conditioner, denoiser and first stage, with how they fit together (paper, Figure 3).

use std::rc::Rc;

use ldm_core::task::Work;
use ldm_core::{Failure, FailureKind, Request};
use ldm_nn::adapters::Part;
use ldm_nn::conditioners::SpatialRescaler;
use ldm_nn::unet::Conditioning as UNetConditioning;
use ldm_nn::{Attachment, FirstStage, TinyDecoder, UNet};
use ldm_sampler::SchedulerConfig;
use tch::{Kind, Tensor};

use crate::conditioner::{Conditioner, Given};
use crate::conditioning::Conditioning;
use crate::loras::{Chosen, Library};
use crate::run::Guided;
use crate::tasks::padded;
use crate::tiles;

/// What lies beside the latent, channel by channel, at every step.
pub(crate) enum Concat {
    /// Nothing.
    None,
    /// Latent of the masked picture, then the mask in ±1 (latent-diffusion's inpainting_big).
    MaskedMask,
    /// The mask in {0, 1}, then the latent of the masked picture (Stable Diffusion inpainting).
    MaskMasked,
    /// The small picture (bsr_sr).
    LowResolution,
    /// The small picture, noised to a level of this schedule's ᾱ (Stable Diffusion's x4 upscaler).
    NoisedLowResolution(Vec<f64>),
    /// Depths in [−1, 1] (Stable Diffusion 2 depth).
    Depth,
    /// The map of classes, made small.
    Semantic {
        /// The learned layer.
        rescaler: SpatialRescaler,
        /// Classes of the map.
        classes: i64,
    },
}

/// A loaded model.
pub(crate) struct System {
    pub(crate) about: ldm_core::Model,
    pub(crate) stage: FirstStage,
    /// A small decoder for previews.
    pub(crate) preview: Option<TinyDecoder>,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) unet: UNet,
    pub(crate) conditioner: Box<dyn Conditioner>,
    pub(crate) concat: Concat,
    /// Guidance is an input of the network, not two rows (latent consistency models).
    pub(crate) embeds_guidance: bool,
    /// Latents larger than this are denoised in overlapping tiles.
    pub(crate) tile: Option<i64>,
    /// Adapters that jobs may ask for.
    pub(crate) loras: Rc<Library>,
}

impl System {
    /// Shape of a request's latent, `[C, H, W]`.
    pub(crate) fn latent(&self, request: &Request) -> [i64; 3] {
        let (channels, factor) = (self.stage.latent_channels(), self.stage.factor());
        let side = |pixels: u32| i64::from(pixels) / factor;
        let [height, width] = [side(request.height), side(request.width)];
        match &request.work {
            Work::SuperResolution(_) => [channels, padded(height), padded(width)],
            _ => [channels, height, width],
        }
    }

    /// Whether a request runs two rows: at guidance of 1 or below the negative prompt has no part, as in diffusers.
    pub(crate) fn is_guided(&self, request: &Request) -> bool {
        request.guidance > 1. && !self.embeds_guidance
    }

    /// Everything that stays the same over a job's steps.
    pub(crate) fn condition(
        &mut self,
        request: &Request,
        loras: &Chosen,
        concat: Option<&Tensor>,
    ) -> Result<Guided<Rc<Conditioning>>, Failure> {
        let guided = self.is_guided(request);
        let given = self.conditioner.condition(request, guided)?;
        let guidance = self.embeds_guidance.then(|| Tensor::from_slice(&[request.guidance as f32]));
        given.try_map(|given: Given| {
            let label = given.label.map(|label| Tensor::from_slice(&[label]));
            let parts = UNetConditioning {
                tokens: given.tokens.as_ref(),
                labels: label.as_ref(),
                vector: given.vector.as_ref(),
                guidance: guidance.as_ref(),
            };
            let context = self.loras.with(loras, Part::Unet, self.unet.slots(), || self.unet.condition(1, &parts));
            let context = context.map_err(|error| Failure::new(FailureKind::Unsupported, error.to_string()))?;
            Ok(Rc::new(Conditioning { context, concat: concat.map(Tensor::shallow_clone) }))
        })
    }

    /// `x` float32 `[B, C, H, W]`, `t` float32 `[B]`, `conditioning` of `B` rows, adapters for rows of them → float32
    /// `[B, C, H, W]`.
    pub(crate) fn denoise(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning, loras: &[Attachment]) -> Tensor {
        let x = match &conditioning.concat {
            Some(concat) => Tensor::cat(&[x, concat], 1),
            None => x.shallow_clone(),
        };
        let x = x.to_kind(self.unet.kind());
        let once = |x: &Tensor| self.unet.forward(x, t, &conditioning.context).to_kind(Kind::Float);
        self.unet.slots().with(loras, || match self.tile {
            Some(side) => tiles::apply(&x, side, once),
            None => once(&x),
        })
    }
}
