//! A picture through a first stage and back, without a denoiser (paper, Section 3.1).

use std::path::Path;

use ldm_core::{Raster, Rounding};
use ldm_nn::Layout;
use tch::{Kind, Tensor};

use crate::blueprint::{Builder, Depth, Site};
use crate::families::{self, ModelError};
use crate::options::LoadOptions;
use crate::picture::{from_tensor, to_tensor};

/// What came of a picture.
pub struct Reconstruction {
    /// The picture.
    pub picture: Raster,
    /// The latent, the posterior's mode at the denoiser's scale, float32 `[1, C, H/f, W/f]`.
    pub latent: Tensor,
    /// The picture before rounding, float32 `[1, 3, H, W]` in about [−1, 1].
    pub image: Tensor,
}

/// Encodes and decodes `picture`, whose sides must be multiples of the first stage's factor. `model` is a diffusers directory (of a
/// pipeline or of an autoencoder alone) or an original file, which `config` describes.
pub fn reconstruct(
    model: &Path,
    config: Option<&Path>,
    options: &LoadOptions,
    picture: &Raster,
    rounding: Rounding,
) -> Result<Reconstruction, ModelError> {
    let _no_grad = tch::no_grad_guard();
    if let Some(threads) = options.threads {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
    let part = families::read_stage(model, config)?;
    let factor = part.config.factor() as u32;
    let (width, height) = (picture.width(), picture.height());
    if width % factor != 0 || height % factor != 0 {
        return Err(ModelError::Mismatch(format!(
            "the picture is {width}x{height}: width and height must be multiples of {factor} for this first stage"
        )));
    }
    let device = options.device.tch();
    let mut builder =
        Builder::new(Site { depth: Depth::Build, kind: Some(options.dtype.kind()), device, layout: Layout::ChannelsLast });
    let stage = builder.stage(part);
    builder.finish()?;
    let failed = |failure: ldm_core::Failure| ModelError::Mismatch(failure.message);
    let x = to_tensor(picture, width, height, device).map_err(failed)?; // [1, 3, H, W]
    let latent = stage.encode(&x.to_kind(stage.kind())).to_kind(Kind::Float).mode(); // [1, C, H/f, W/f]
    let image = stage.decode(&latent.to_kind(stage.kind())).to_kind(Kind::Float); // [1, 3, H, W]
    let picture = from_tensor(&image, rounding).map_err(failed)?;
    Ok(Reconstruction { picture, latent, image })
}
