//! A picture from a prompt, a picture and its depths (Stable Diffusion 2 depth): img2img with the depths beside the latent.

use ldm_core::Failure;
use ldm_core::task::Depth;
use tch::{Kind, Tensor};

use super::{Bench, Start, img2img};
use crate::system::Concat;

pub(super) fn start(bench: &mut Bench<'_>, work: &Depth) -> Result<Start, Failure> {
    if !matches!(bench.concat, Concat::Depth) {
        return Err(bench.unsupported());
    }
    let [_, _, rows, columns] = bench.shape();
    let size = [1, 1, i64::from(work.depth.height()), i64::from(work.depth.width())];
    let depth = Tensor::from_slice(work.depth.data()).view(size).to_kind(Kind::Float).to_device(bench.stage.device());
    let depth = depth.upsample_bicubic2d([rows, columns], false, None, None); // [1, 1, H/f, W/f]
    let (least, most) = (depth.min(), depth.max());
    // A flat map has no near and far: it is the middle.
    let spread = (&most - &least).double_value(&[]);
    let depth = if spread > 0. { (depth - least) / spread * 2. - 1. } else { depth.zeros_like() };
    let latent = img2img::start(bench, &work.init)?;
    Ok(Start { concat: Some(depth), ..Start::at(latent) })
}
