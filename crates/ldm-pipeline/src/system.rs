//! A latent diffusion model: conditioner, denoiser and first stage, with how they fit together (paper, Figure 3).

use std::cell::RefCell;
use std::rc::Rc;

use ldm_core::{Failure, FailureKind, Request};
use ldm_engine::{BatchKey, CacheCounts};
use ldm_nn::adapters::Part;
use ldm_nn::conditioners::SpatialRescaler;
use ldm_nn::unet::Conditioning as UNetConditioning;
use ldm_nn::{Attachment, FirstStage, TinyDecoder, UNet};
use tch::{Kind, Tensor};

use crate::conditioner::{Conditioner, Given};
use crate::conditioning::Conditioning;
use crate::families;
use crate::loras::{Chosen, Library};
use crate::options::ModelSource;
use crate::run::Guided;
use crate::sketch::Sketch;
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
    /// What it was read from.
    pub(crate) source: ModelSource,
    /// Names the weights among all that were loaded under the model's id.
    pub(crate) name: String,
    pub(crate) sketch: Sketch,
    pub(crate) stage: FirstStage,
    /// A small decoder for previews.
    pub(crate) preview: Option<TinyDecoder>,
    /// The first stage in float32, while half precision is not enough.
    pub(crate) exact: RefCell<Option<Rc<FirstStage>>>,
    pub(crate) unet: UNet,
    pub(crate) conditioner: RefCell<Box<dyn Conditioner>>,
    pub(crate) concat: Concat,
    /// Latents larger than this are denoised in overlapping tiles.
    pub(crate) tile: Option<i64>,
    /// Adapters that jobs may ask for.
    pub(crate) loras: Rc<Library>,
}

impl System {
    /// Who can share a call with a request.
    pub(crate) fn key(&self, request: &Request) -> Result<BatchKey, Failure> {
        let cross = self.conditioner.borrow().shape(request, self.sketch.is_guided(request))?;
        Ok(BatchKey { model: self.name.clone(), latent: self.sketch.latent(request), cross })
    }

    /// Everything that stays the same over a job's steps.
    pub(crate) fn condition(
        &self,
        request: &Request,
        loras: &Chosen,
        concat: Option<&Tensor>,
    ) -> Result<Guided<Rc<Conditioning>>, Failure> {
        let guided = self.sketch.is_guided(request);
        let given = self.conditioner.borrow_mut().condition(request, guided)?;
        let guidance = self.sketch.embeds_guidance.then(|| Tensor::from_slice(&[request.guidance as f32]));
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

    /// The first stage in float32, read from the model's files if it is not there yet.
    pub(crate) fn exact_stage(&self) -> Result<Rc<FirstStage>, Failure> {
        if let Some(stage) = &*self.exact.borrow() {
            return Ok(Rc::clone(stage));
        }
        let stage = families::exact_stage(&self.source, &self.about.weights, self.stage.device());
        let stage = stage.map_err(|error| Failure::new(FailureKind::NotFinite, format!("no first stage in float32: {error}")))?;
        let stage = Rc::new(stage);
        *self.exact.borrow_mut() = Some(Rc::clone(&stage));
        Ok(stage)
    }

    /// How often prompts were known.
    pub(crate) fn cache(&self) -> CacheCounts {
        self.conditioner.borrow().cache()
    }

    /// Lets go of what the next job can do without.
    pub(crate) fn relieve(&self) {
        self.conditioner.borrow_mut().forget();
        *self.exact.borrow_mut() = None;
    }
}
