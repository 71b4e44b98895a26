//! Pictures to tensors and back.

use image::imageops::FilterType;
use ldm_core::task::Masking;
use ldm_core::{Failure, FailureKind, Plane, Raster, Rounding};
use tch::{Device, Kind, Tensor};

/// The picture resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized(picture: &Raster, width: u32, height: u32) -> Result<Raster, Failure> {
    if (picture.width(), picture.height()) == (width, height) {
        return Ok(picture.clone());
    }
    let buffer = image::RgbImage::from_raw(picture.width(), picture.height(), picture.data().to_vec())
        .ok_or_else(|| Failure::new(FailureKind::Unsupported, "the picture's bytes do not fit its size"))?;
    raster_of(image::imageops::resize(&buffer, width, height, FilterType::Lanczos3))
}

/// The map resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized_plane(plane: &Plane, width: u32, height: u32) -> Result<Plane, Failure> {
    if (plane.width(), plane.height()) == (width, height) {
        return Ok(plane.clone());
    }
    let buffer = image::GrayImage::from_raw(plane.width(), plane.height(), plane.data().to_vec())
        .ok_or_else(|| Failure::new(FailureKind::Unsupported, "the mask's bytes do not fit its size"))?;
    plane_of(image::imageops::resize(&buffer, width, height, FilterType::Lanczos3))
}

pub(crate) fn raster_of(image: image::RgbImage) -> Result<Raster, Failure> {
    let (width, height) = image.dimensions();
    Raster::new(width, height, image.into_raw()).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

pub(crate) fn plane_of(image: image::GrayImage) -> Result<Plane, Failure> {
    let (width, height) = image.dimensions();
    Plane::new(width, height, image.into_raw()).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
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
