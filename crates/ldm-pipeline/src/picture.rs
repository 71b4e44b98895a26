//! Pictures to tensors and back.

use ldm_core::task::Masking;
use ldm_core::{Failure, FailureKind, Plane, Raster, Rounding};
use tch::{Device, Kind, Tensor};

use crate::resize::resize;

/// The picture resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized(picture: &Raster, width: u32, height: u32) -> Result<Raster, Failure> {
    let from = [picture.width(), picture.height()];
    if from == [width, height] {
        return Ok(picture.clone());
    }
    let pixels = resize::<3>(picture.data(), sides(from), sides([width, height]));
    Raster::new(width, height, pixels).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

/// The map resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized_plane(plane: &Plane, width: u32, height: u32) -> Result<Plane, Failure> {
    let from = [plane.width(), plane.height()];
    if from == [width, height] {
        return Ok(plane.clone());
    }
    let values = resize::<1>(plane.data(), sides(from), sides([width, height]));
    Plane::new(width, height, values).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

fn sides(size: [u32; 2]) -> [usize; 2] {
    size.map(|side| side as usize)
}

/// The picture resized to `width`×`height` (Lanczos, antialiased) as float32 `[1, 3, H, W]` in [−1, 1].
pub(crate) fn to_tensor(picture: &Raster, width: u32, height: u32, device: Device) -> Result<Tensor, Failure> {
    let picture = resized(picture, width, height)?;
    let pixels = Tensor::from_slice(picture.data());
    let pixels = pixels.view([1, i64::from(height), i64::from(width), 3]).permute([0, 3, 1, 2]); // [1, 3, H, W]
    Ok(pixels.to_device(device).to_kind(Kind::Float) / 255. * 2. - 1.)
}

/// The mask, 1 from 128 on and 0 below, float32 `[1, 1, H, W]`.
pub(crate) fn mask_to_tensor(mask: &Plane, device: Device) -> Tensor {
    let size = [1, 1, i64::from(mask.height()), i64::from(mask.width())];
    Tensor::from_slice(mask.data()).view(size).to_device(device).ge(i64::from(Masking::THRESHOLD)).to_kind(Kind::Float)
}

/// One picture `[1, 3, H, W]` in about [−1, 1] as bytes: rounded as diffusers rounds, or truncated as CompVis' scripts do.
pub(crate) fn from_tensor(picture: &Tensor, rounding: Rounding) -> Result<Raster, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Device, error.to_string());
    let (_, _, height, width) = picture.size4().map_err(|error| wrong(&error))?;
    let picture = picture.to_kind(Kind::Float);
    if !is_finite(&picture) {
        return Err(Failure::new(FailureKind::NotFinite, "the decoded picture holds NaN or infinity"));
    }
    let levels = (picture * 0.5 + 0.5).clamp(0., 1.) * 255.;
    let levels = match rounding {
        Rounding::Round => levels.round(),
        Rounding::Truncate => levels.floor(),
    };
    let levels = levels.to_kind(Kind::Uint8);
    let bytes = levels.squeeze_dim(0).permute([1, 2, 0]).contiguous().to_device(Device::Cpu).flatten(0, -1); // [H, W, 3]
    let bytes = Vec::<u8>::try_from(bytes).map_err(|error| wrong(&error))?;
    Raster::new(width as u32, height as u32, bytes).map_err(|error| wrong(&error))
}

/// Whether no number is NaN or infinite. On a GPU this waits for the device.
pub(crate) fn is_finite(x: &Tensor) -> bool {
    x.isfinite().all().int64_value(&[]) != 0
}
