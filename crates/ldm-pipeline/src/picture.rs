//! Pictures to tensors and back.

use image::imageops::FilterType;
use ldm_core::task::Inpaint;
use ldm_core::{Failure, FailureKind, Plane, Raster, Rounding};
use tch::{Device, Kind, Tensor};

/// The picture resized to `width`×`height` (Lanczos, antialiased) as float32 `[1, 3, H, W]` in [−1, 1].
pub(crate) fn to_tensor(picture: &Raster, width: u32, height: u32, device: Device) -> Result<Tensor, Failure> {
    let same = picture.width() == width && picture.height() == height;
    let pixels = if same {
        Tensor::from_slice(picture.data())
    } else {
        let buffer = image::RgbImage::from_raw(picture.width(), picture.height(), picture.data().to_vec())
            .ok_or_else(|| Failure::new(FailureKind::Unsupported, "the picture's bytes do not fit its size"))?;
        Tensor::from_slice(image::imageops::resize(&buffer, width, height, FilterType::Lanczos3).as_raw())
    };
    let pixels = pixels.view([1, i64::from(height), i64::from(width), 3]).permute([0, 3, 1, 2]); // [1, 3, H, W]
    Ok(pixels.to_device(device).to_kind(Kind::Float) / 255. * 2. - 1.)
}

/// The mask resized to `width`×`height` (Lanczos, antialiased), 1 from 128 on and 0 below, float32 `[1, 1, H, W]`.
pub(crate) fn mask_to_tensor(mask: &Plane, width: u32, height: u32, device: Device) -> Result<Tensor, Failure> {
    let values = if mask.width() == width && mask.height() == height {
        Tensor::from_slice(mask.data())
    } else {
        let buffer = image::GrayImage::from_raw(mask.width(), mask.height(), mask.data().to_vec())
            .ok_or_else(|| Failure::new(FailureKind::Unsupported, "the mask's bytes do not fit its size"))?;
        Tensor::from_slice(image::imageops::resize(&buffer, width, height, FilterType::Lanczos3).as_raw())
    };
    let values = values.view([1, 1, i64::from(height), i64::from(width)]).to_device(device);
    Ok(values.ge(i64::from(Inpaint::THRESHOLD)).to_kind(Kind::Float))
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
