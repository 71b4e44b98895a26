//! A larger picture: the small one, in pixels, lies beside the latent (paper, Section 4.4; Stable Diffusion's x4 upscaler).

use ldm_core::Failure;
use ldm_core::task::SuperResolution;
use tch::Tensor;

use super::{Bench, Start};
use crate::picture::to_tensor;
use crate::run::draw;
use crate::system::Concat;

/// Sides of the small picture are made a multiple of this: the denoiser halves them that often at most.
pub(crate) const MULTIPLE: i64 = 8;

/// The next multiple of [`MULTIPLE`].
pub(crate) fn padded(side: i64) -> i64 {
    (side + MULTIPLE - 1) / MULTIPLE * MULTIPLE
}

pub(super) fn start(bench: &mut Bench<'_>, work: &SuperResolution) -> Result<Start, Failure> {
    let factor = bench.stage.factor();
    let [width, height] = work.shown(factor as u32);
    let device = bench.stage.device();
    let low = to_tensor(&work.low, width, height, device)?; // [1, 3, h, w]
    let (right, below) = (padded(width.into()) - i64::from(width), padded(height.into()) - i64::from(height));
    let low = low.replication_pad2d([0, right, 0, below]); // [1, 3, h', w']
    let concat = match (bench.concat, work.noise_level) {
        (Concat::LowResolution, _) => low,
        (Concat::NoisedLowResolution(alphas_cumprod), level) => {
            let level = level.unwrap_or(0) as usize;
            let alpha_bar = alphas_cumprod.get(level).copied().unwrap_or(1.);
            let noise = draw(bench.noise, &low.size(), device);
            low * alpha_bar.sqrt() + noise * (1. - alpha_bar).sqrt()
        }
        _ => return Err(bench.unsupported()),
    };
    let (_, _, rows, columns) = concat.size4().expect("a picture has four dimensions");
    let shape = [1, bench.stage.latent_channels(), rows, columns];
    let latent: Tensor = bench.first_noise(&shape) * bench.plan.init_scale;
    let crop = (right + below > 0).then(|| [i64::from(height) * factor, i64::from(width) * factor]);
    Ok(Start { concat: Some(concat), crop, ..Start::at(latent) })
}
