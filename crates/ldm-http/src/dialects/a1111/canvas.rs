//! Pictures brought to a size, in the web UI's ways (`modules/images.py`, `resize_image`).

use image::imageops::{self, FilterType};
use image::{GrayImage, ImageBuffer, Pixel, RgbImage};
use ldm_core::{Plane, Raster};

use crate::codec::Picture;

/// What becomes of the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is lost.
    Stretch,
    /// The middle is kept.
    Crop,
    /// All is kept; the margins are filled with what is at the edges.
    Fill,
}

impl Mode {
    /// By the web UI's number; its latent upscale stretches, too.
    pub(super) fn of(number: i64) -> Option<Self> {
        match number {
            0 | 3 => Some(Self::Stretch),
            1 => Some(Self::Crop),
            2 => Some(Self::Fill),
            _ => None,
        }
    }
}

/// The picture at that size.
pub(super) fn fitted(picture: &Raster, width: u32, height: u32, mode: Mode) -> Raster {
    let Some(image) = RgbImage::from_raw(picture.width(), picture.height(), picture.data().to_vec()) else {
        return picture.clone();
    };
    let image = placed(&image, width, height, mode, FilterType::Lanczos3);
    Raster::new(image.width(), image.height(), image.into_raw()).unwrap_or_else(|_| picture.clone())
}

/// The mask at that size, in the same way.
pub(super) fn fitted_mask(mask: &Plane, width: u32, height: u32, mode: Mode) -> Plane {
    let Some(image) = GrayImage::from_raw(mask.width(), mask.height(), mask.data().to_vec()) else { return mask.clone() };
    let image = placed(&image, width, height, mode, FilterType::Lanczos3);
    Plane::new(image.width(), image.height(), image.into_raw()).unwrap_or_else(|_| mask.clone())
}

/// A mask as large as the picture: the web UI takes one of any size.
pub(super) fn like(mask: &Plane, picture: &Raster) -> Plane {
    fitted_mask(mask, picture.width(), picture.height(), Mode::Stretch)
}

/// What a mask says to paint: its brightness, nothing where it is transparent.
pub(super) fn painted(mask: &Picture) -> Plane {
    let grey = mask.grey();
    let Some(alpha) = &mask.alpha else { return grey };
    let data: Vec<u8> = grey.data().iter().zip(alpha.data()).map(|(&grey, &alpha)| if alpha < 128 { 0 } else { grey }).collect();
    Plane::new(grey.width(), grey.height(), data).unwrap_or(grey)
}

fn placed<P>(image: &ImageBuffer<P, Vec<u8>>, width: u32, height: u32, mode: Mode, filter: FilterType) -> ImageBuffer<P, Vec<u8>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let (width, height) = (width.max(1), height.max(1));
    if (image.width(), image.height()) == (width, height) {
        return image.clone();
    }
    if mode == Mode::Stretch {
        return imageops::resize(image, width, height, filter);
    }
    let scale = scales([image.width(), image.height()], [width, height], mode);
    let side = |side: u32, scale: f64| ((f64::from(side) * scale).round() as u32).max(1);
    let resized = imageops::resize(image, side(image.width(), scale[0]), side(image.height(), scale[1]), filter);
    let (left, top) = (middle(width, resized.width()), middle(height, resized.height()));
    // Crop: inside by construction. Fill: a place in a margin takes the pixel at the nearest edge.
    ImageBuffer::from_fn(width, height, |x, y| {
        let within = |place: u32, start: i64, side: u32| (i64::from(place) - start).clamp(0, i64::from(side) - 1) as u32;
        *resized.get_pixel(within(x, left, resized.width()), within(y, top, resized.height()))
    })
}

/// How many times wider and higher what is in a picture becomes.
pub(super) fn scales(from: [u32; 2], to: [u32; 2], mode: Mode) -> [f64; 2] {
    let [x, y] = [0, 1].map(|i| f64::from(to[i]) / f64::from(from[i].max(1)));
    match mode {
        Mode::Stretch => [x, y],
        Mode::Crop => [x.max(y); 2],
        Mode::Fill => [x.min(y); 2],
    }
}

/// Where something of that length begins when it lies in the middle.
fn middle(outer: u32, inner: u32) -> i64 {
    (i64::from(outer) - i64::from(inner)).div_euclid(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_stretched_cropped_or_filled() {
        // Two pixels wide, one high: black and white.
        let picture = Raster::new(2, 1, [[0; 3], [255; 3]].concat()).unwrap();
        let at = |picture: &Raster, x: usize, y: usize| picture.data()[(y * picture.width() as usize + x) * 3];
        let stretched = fitted(&picture, 2, 2, Mode::Stretch);
        assert_eq!([at(&stretched, 0, 0), at(&stretched, 1, 1)], [0, 255]);
        let filled = fitted(&picture, 2, 3, Mode::Fill);
        assert_eq!([at(&filled, 0, 0), at(&filled, 1, 0), at(&filled, 0, 2), at(&filled, 1, 2)], [0, 255, 0, 255]);
        let wide = Raster::new(4, 1, [[9; 3], [0; 3], [0; 3], [9; 3]].concat()).unwrap();
        let cropped = fitted(&wide, 2, 1, Mode::Crop);
        assert_eq!((cropped.width(), at(&cropped, 0, 0), at(&cropped, 1, 0)), (2, 0, 0));
        assert_eq!(Mode::of(4), None);
    }
}
