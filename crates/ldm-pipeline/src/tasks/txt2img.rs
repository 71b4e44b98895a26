//! A picture from a prompt: starts from noise alone.

use ldm_core::Request;
use ldm_nn::AutoencoderKl;
use ldm_sampler::{NoiseSource, Plan};
use tch::Tensor;

use super::latent_shape;
use crate::run::draw;

/// Scaled noise.
pub(super) fn start(vae: &AutoencoderKl, request: &Request, plan: &Plan, noise: &mut NoiseSource) -> Tensor {
    draw(noise, &latent_shape(vae, request), vae.device()) * plan.init_scale
}
