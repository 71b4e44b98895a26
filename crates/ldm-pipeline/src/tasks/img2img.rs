//! A picture from a picture and a prompt: starts from the noised latent of the given picture (SDEdit, Meng et al. 2022).

use ldm_core::{Failure, Raster};
use tch::Tensor;

use super::Bench;
use crate::picture::to_tensor;

/// A sample of the picture's posterior, then noise on it: two draws, as `StableDiffusionImg2ImgPipeline` does.
pub(super) fn start(bench: &mut Bench<'_>, init: &Raster) -> Result<Tensor, Failure> {
    let picture = to_tensor(init, bench.request.width, bench.request.height, bench.stage.device())?; // [1, 3, H, W]
    let clean = bench.encode(&picture); // [1, C, H/f, W/f]
    Ok(clean * bench.plan.start.0 + bench.draw() * bench.plan.start.1)
}
