//! The second pass of txt2img: the finished latent is made larger, noised again, and denoised as in img2img.

use std::rc::Rc;
use std::sync::Arc;

use ldm_core::task::{Hires, Txt2Img, Upscaler, Work};
use ldm_core::{Failure, Request, Rounding};
use ldm_sampler::{NoiseSource, Plan};
use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::picture::{from_tensor, to_tensor};
use crate::run::{Guided, draw};
use crate::sketch::Sketch;
use crate::system::System;
use crate::tasks;

/// A pass that is to come.
#[derive(Clone)]
pub(crate) struct Second {
    /// What is asked of it, as if it were a job of its own.
    pub(crate) request: Arc<Request>,
    pub(crate) plan: Plan,
    upscaler: Upscaler,
}

/// A pass that is ready for its first network call.
pub(crate) struct Pass {
    pub(crate) latent: Tensor,
    pub(crate) noise: NoiseSource,
    pub(crate) conditioning: Guided<Rc<Conditioning>>,
}

impl Second {
    /// The second pass of a request, if it has one.
    pub(crate) fn of(sketch: &Sketch, request: &Request) -> Result<Option<Self>, Failure> {
        let Work::Txt2Img(Txt2Img { hires: Some(hires) }) = &request.work else { return Ok(None) };
        let Hires { width, height, steps, strength, upscaler } = *hires;
        let mut request = request.clone();
        request.work = Work::Txt2Img(Txt2Img::default());
        (request.width, request.height, request.steps) = (width, height, steps);
        let plan = tasks::plan_of(&sketch.scheduler, &request, Some(strength))?;
        Ok(Some(Self { request: Arc::new(request), plan, upscaler }))
    }

    /// Begins the pass from the first one's clean latent `[1, C, H, W]` at the denoiser's scale; the noise goes on where it is.
    ///
    /// Held against a `StableDiffusionImg2ImgPipeline` that is given the latent, or the picture, and the same generator.
    pub(crate) fn begin(&self, system: &System, clean: &Tensor, mut noise: NoiseSource) -> Result<Pass, Failure> {
        let clean = self.enlarged(system, clean, &mut noise)?;
        let fresh = draw(&mut noise, &clean.size(), clean.device());
        let latent = clean * self.plan.start.0 + fresh * self.plan.start.1;
        let loras = system.loras.choose(&self.request)?;
        let conditioning = system.condition(&self.request, &loras, None)?;
        Ok(Pass { latent, noise, conditioning })
    }

    fn enlarged(&self, system: &System, clean: &Tensor, noise: &mut NoiseSource) -> Result<Tensor, Failure> {
        let [_, height, width] = system.sketch.latent(&self.request).map(i64::from);
        let stage = &system.stage;
        Ok(match self.upscaler {
            Upscaler::LatentBilinear => clean.upsample_bilinear2d([height, width], false, None, None),
            Upscaler::LatentNearest => clean.upsample_nearest2d([height, width], None, None),
            Upscaler::PixelLanczos => {
                let picture = from_tensor(&stage.decode(&clean.to_kind(stage.kind())), Rounding::Round)?;
                let larger = to_tensor(&picture, self.request.width, self.request.height, stage.device())?;
                let encoded = stage.encode(&larger.to_kind(stage.kind())).to_kind(Kind::Float);
                encoded.sample(|shape| draw(noise, shape, stage.device()))
            }
        })
    }
}
