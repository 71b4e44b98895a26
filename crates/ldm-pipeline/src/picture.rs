//! Pictures to tensors and back.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use ldm_core::task::Masking;
use ldm_core::{Failure, FailureKind, Plane, Raster, Rounding};
use tch::{Device, Kind, Tensor};

/// The picture resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized(picture: &Raster, width: u32, height: u32) -> Result<Raster, Failure> {
    let from = [picture.width(), picture.height()];
    if from == [width, height] {
        return Ok(picture.clone());
    }
    let pixels = lanczos(picture.data(), from, [width, height], PixelType::U8x3)?;
    Raster::new(width, height, pixels).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

/// The map resized to `width`×`height` (Lanczos, antialiased).
pub(crate) fn resized_plane(plane: &Plane, width: u32, height: u32) -> Result<Plane, Failure> {
    let from = [plane.width(), plane.height()];
    if from == [width, height] {
        return Ok(plane.clone());
    }
    let values = lanczos(plane.data(), from, [width, height], PixelType::U8)?;
    Plane::new(width, height, values).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

/// Pixels of the size `from` at the size `to`, both width and height: Lanczos, antialiased, to the last level as Pillow's
/// `Image.resize` gives them.
fn lanczos(pixels: &[u8], from: [u32; 2], to: [u32; 2], kind: PixelType) -> Result<Vec<u8>, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::new(FailureKind::Unsupported, format!("a picture was not resized: {error}"));
    let before = ImageRef::new(from[0], from[1], pixels, kind).map_err(|error| wrong(&error))?;
    let mut after = Image::new(to[0], to[1], kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&before, &mut after, &options).map_err(|error| wrong(&error))?;
    Ok(after.into_vec())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow 13.0.0: `Image.frombytes("L", (5, 1), bytes([0, 255, 30, 200, 90])).resize((n, 1), Image.Resampling.LANCZOS)`.
    #[test]
    fn resizing_rounds_as_pillow_does() {
        let row = [0, 255, 30, 200, 90];
        let pillow: [(u32, &[u8]); 4] = [
            (3, &[106, 137, 128]),
            (4, &[72, 164, 115, 131]),
            (8, &[0, 121, 255, 90, 52, 195, 151, 73]),
            (11, &[0, 43, 185, 254, 137, 30, 84, 191, 182, 112, 68]),
        ];
        for (width, wanted) in pillow {
            let smaller = lanczos(&row, [5, 1], [width, 1], PixelType::U8).unwrap();
            assert_eq!(smaller, wanted, "{width} wide");
            let thrice: Vec<u8> = row.iter().flat_map(|level| [*level; 3]).collect();
            let colours = lanczos(&thrice, [5, 1], [width, 1], PixelType::U8x3).unwrap();
            assert_eq!(colours, wanted.iter().flat_map(|level| [*level; 3]).collect::<Vec<_>>());
        }
    }
}
