//! Latents to pixels: previews, finished pictures, and what is done when memory or half precision does not suffice.

use ldm_core::task::Work;
use ldm_core::{Failure, FailureKind, Raster, Rounding};
use ldm_engine::Decoding;
use ldm_nn::{FirstStage, Tiling};
use tch::{Kind, Tensor};

use super::{DeviceExecutor, Given};
use crate::picture::{from_tensor, is_finite, resized};
use crate::run::Run;
use crate::tasks::Paste;

/// Side of the latent that a preview is decoded from, at most: a preview must be cheap.
const PREVIEW_SIDE: i64 = 16;

/// Side of the latent's tiles that a large picture is decoded in, and how far they overlap, in cells.
const TILE: (i64, i64) = (64, 16);

/// The same when memory is short: a quarter of the memory, and tiles still large enough that their edges do not show.
const FRUGAL_TILE: (i64, i64) = (32, 8);

/// A latent `[1, C, H, W]` at the denoiser's scale as a picture `[1, 3, f·H, f·W]` in about [−1, 1], in tiles or at once.
fn decoded(stage: &FirstStage, latent: &Tensor, tile: Option<(i64, i64)>) -> Tensor {
    let latent = latent.to_kind(stage.kind());
    match tile.map(|(side, overlap)| Tiling::new(side, overlap)) {
        Some(Ok(tiling)) => stage.decode_tiled(&latent, tiling),
        _ => stage.decode(&latent),
    }
}

impl DeviceExecutor {
    /// The tiles that a latent is decoded in.
    fn tile(&self, stage: &FirstStage, latent: &Tensor, how: Decoding) -> Option<(i64, i64)> {
        let (_, _, height, width) = latent.size4().expect("a latent has four dimensions");
        match how {
            Decoding::Frugal => Some(FRUGAL_TILE),
            Decoding::Usual => (height.max(width) * stage.factor() > self.options.tile_from.into()).then_some(TILE),
        }
    }

    /// The clean latent as last estimated, as a small picture.
    pub(super) fn small_picture(&mut self, run: &Run) -> Result<Raster, Failure> {
        let Some(denoised) = &run.denoised else {
            return Err(Failure::new(FailureKind::Unsupported, "no estimate of the clean latent is kept"));
        };
        let (_, _, height, width) = denoised.size4().map_err(|error| Failure::new(FailureKind::Device, error.to_string()))?;
        let shrink = (height.max(width) / PREVIEW_SIDE).max(1);
        let small = if shrink == 1 {
            denoised.shallow_clone()
        } else {
            denoised.avg_pool2d([shrink, shrink], [shrink, shrink], [0, 0], false, true, None)
        };
        let system = &run.system;
        let picture = match &system.preview {
            Some(preview) => preview.decode(&small.to_kind(preview.kind())),
            None => decoded(&system.stage, &small, self.tile(&system.stage, &small, Decoding::Usual)),
        };
        from_tensor(&picture, Rounding::Round)
    }

    /// The finished picture.
    pub(super) fn picture(&mut self, run: &Run, how: Decoding) -> Result<Raster, Failure> {
        let latent = run.latent();
        if !is_finite(&latent) {
            return Err(Failure::new(FailureKind::NotFinite, "the latent holds NaN or infinity"));
        }
        let mut picture = self.finite_picture(run, &latent, how)?; // [1, 3, H, W]
        if let Some([height, width]) = run.crop {
            picture = picture.narrow(2, 0, height).narrow(3, 0, width);
        }
        if let Some(Paste { picture: under, mask }) = &run.paste {
            picture = under + (picture.clamp(-1., 1.) - under) * mask;
        }
        if let Some(watch) = &self.watch {
            watch(&latent, &picture);
        }
        let drawn = from_tensor(&picture, run.request.rounding)?;
        match (&run.overlay, &run.request.work) {
            (Some(overlay), _) => overlay.over(&drawn),
            // By another factor than the model's own.
            (None, Work::SuperResolution(_)) => resized(&drawn, run.request.width, run.request.height),
            (None, _) => Ok(drawn),
        }
    }

    /// The decoded latent in float32. Where half precision overflows, the same stage decodes it once more in float32.
    fn finite_picture(&mut self, run: &Run, latent: &Tensor, how: Decoding) -> Result<Tensor, Failure> {
        let stage = &run.system.stage;
        let tile = self.tile(stage, latent, how);
        let mut picture = decoded(stage, latent, tile);
        self.tamper(Given::Decoded(&mut picture));
        if stage.kind() != Kind::Float && !is_finite(&picture) {
            drop(picture);
            tracing::warn!(model = run.request.model, "the picture overflowed in half precision: it is decoded in float32");
            picture = decoded(&*run.system.exact_stage()?, latent, tile);
            self.tamper(Given::Decoded(&mut picture));
        }
        Ok(picture.to_kind(Kind::Float))
    }
}
