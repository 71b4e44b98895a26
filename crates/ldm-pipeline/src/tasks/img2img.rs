//! A picture from a picture and a prompt: starts from the noised latent of the given picture (SDEdit, Meng et al. 2022).

use ldm_core::task::Img2Img;
use ldm_core::{Failure, Request};
use ldm_nn::AutoencoderKl;
use ldm_sampler::{NoiseSource, Plan};
use tch::{Kind, Tensor};

use super::latent_shape;
use crate::picture::to_tensor;
use crate::run::draw;

/// A sample of the picture's posterior, then noise on it: two draws, as `StableDiffusionImg2ImgPipeline` does.
pub(super) fn start(
    vae: &AutoencoderKl,
    request: &Request,
    work: &Img2Img,
    plan: &Plan,
    noise: &mut NoiseSource,
) -> Result<Tensor, Failure> {
    let shape = latent_shape(vae, request);
    let picture = to_tensor(&work.init, request.width, request.height, vae.device())?; // [1, 3, H, W]
    let posterior = vae.encode(&picture.to_kind(vae.kind())).to_kind(Kind::Float);
    let clean = posterior.sample(&draw(noise, &shape, vae.device())) * vae.config().scaling_factor; // [1, C, H/f, W/f]
    Ok(clean * plan.start.0 + draw(noise, &shape, vae.device()) * plan.start.1)
}
