//! Pictures in: PNG, JPEG and WebP files, in base64 or not, as a `Raster` or one channel.

use std::io::Cursor;

use base64::Engine;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use ldm_core::{Plane, Raster};

use super::{BASE64, Format, container};

/// Why a picture was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Of too many pixels.
    #[error("is {width}x{height}, more than {limit} pixels")]
    TooLarge {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// Wrongly wrapped.
    #[error("is not base64: {0}")]
    Base64(String),
    /// Of no format that is read.
    #[error("is no PNG, JPEG or WebP picture: {0}")]
    Picture(String),
}

/// Reads a picture in base64, with or without `data:` in front: upright, on white where it is transparent.
///
/// Its size is checked before its pixels are unpacked.
pub(crate) fn decode(text: &str, max_pixels: u64) -> Result<Raster, Unreadable> {
    read_picture(&unwrapped(text)?, max_pixels)
}

/// Reads a picture in base64, with or without `data:` in front, with what it says of transparency.
pub(crate) fn decode_with_alpha(text: &str, max_pixels: u64) -> Result<Picture, Unreadable> {
    read_with_alpha(&unwrapped(text)?, max_pixels)
}

/// A picture as its file has it, upright.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The colours as they are stored, where the picture is transparent too.
    pub colours: Raster,
    /// 0 is transparent, 255 is opaque; `None` if the file has no such channel.
    pub alpha: Option<Plane>,
}

impl Picture {
    /// The picture on white paper.
    pub fn on_white(self) -> Raster {
        let Some(alpha) = self.alpha else { return self.colours };
        let over =
            |colour: u8, alpha: u8| ((u32::from(colour) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8;
        let pixels = self.colours.data().chunks_exact(3).zip(alpha.data());
        let data: Vec<u8> = pixels.flat_map(|(rgb, &a)| [over(rgb[0], a), over(rgb[1], a), over(rgb[2], a)]).collect();
        // As many pixels as before.
        Raster::new(self.colours.width(), self.colours.height(), data).unwrap_or(self.colours)
    }

    /// The colours, and 255 where they are transparent: what to paint. Without a transparent place there is no such mask.
    pub fn with_mask(self) -> (Raster, Option<Plane>) {
        match self.alpha.filter(|alpha| alpha.data().iter().any(|&alpha| alpha < 128)) {
            // The colours as they are stored: what lies under the mask is the request's affair.
            Some(alpha) => (self.colours, Some(alpha.map(|alpha| 255 - alpha))),
            None => (self.colours, None),
        }
    }

    /// The brightness of the colours as stored, whatever is transparent: ITU-R 601-2 luma, as Pillow's `convert("L")` computes it.
    /// A grey level is itself.
    pub fn grey(&self) -> Plane {
        let luma = |rgb: &[u8]| {
            let weighed = 19595 * u32::from(rgb[0]) + 38470 * u32::from(rgb[1]) + 7471 * u32::from(rgb[2]);
            ((weighed + 0x8000) >> 16) as u8
        };
        let (width, height) = (self.colours.width(), self.colours.height());
        let data: Vec<u8> = self.colours.data().chunks_exact(3).map(luma).collect();
        // A value per pixel.
        Plane::new(width, height, data).unwrap_or_else(|_| Plane::filled(width, height, 0))
    }
}

/// Reads a PNG, JPEG or WebP file of at most `max_pixels`: upright, on white where it is transparent.
pub fn read_picture(file: &[u8], max_pixels: u64) -> Result<Raster, Unreadable> {
    read_with_alpha(file, max_pixels).map(Picture::on_white)
}

/// Reads one channel of such a file, upright: grey levels as they are, colours by their brightness, [`Picture::grey`].
pub fn read_plane(file: &[u8], max_pixels: u64) -> Result<Plane, Unreadable> {
    read_with_alpha(file, max_pixels).map(|picture| picture.grey())
}

/// Reads such a file with what it says of transparency, upright.
pub fn read_with_alpha(file: &[u8], max_pixels: u64) -> Result<Picture, Unreadable> {
    let bad = |error: image::ImageError| Unreadable::Picture(error.to_string());
    let format = format_of(file)?;
    let fits = |(width, height)| match u64::from(width) * u64::from(height) > max_pixels {
        true => Err(Unreadable::TooLarge { width, height, limit: max_pixels }),
        false => Ok((width, height)),
    };
    // What is far too large the decoder refuses without a size.
    container::claimed(format, file).map_or(Ok(()), |size| fits(size).map(drop))?;
    let mut reader = ImageReader::with_format(Cursor::new(file), format.into());
    let mut limits = Limits::default();
    // 16-bit RGBA twice over, and room for what small pictures need besides.
    limits.max_alloc = Some(max_pixels.saturating_mul(16).saturating_add(8 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    container::check(format, file, fits(decoder.dimensions())?)?;
    let orientation = decoder.orientation().map_err(bad)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(bad)?;
    picture.apply_orientation(orientation);
    parted(picture)
}

/// The format that a file begins like.
pub(crate) fn format_of(file: &[u8]) -> Result<Format, Unreadable> {
    match image::guess_format(file) {
        Ok(ImageFormat::Png) => Ok(Format::Png),
        Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(ImageFormat::WebP) => Ok(Format::WebP),
        _ => Err(Unreadable::Picture("it begins like none of them".to_owned())),
    }
}

/// Colours and alpha apart.
fn parted(picture: DynamicImage) -> Result<Picture, Unreadable> {
    let (width, height) = (picture.width(), picture.height());
    let (colours, alpha) = match picture.color().has_alpha() {
        false => (picture.into_rgb8().into_raw(), None),
        true => {
            let pixels = picture.into_rgba8();
            let colours = pixels.pixels().flat_map(|&image::Rgba([r, g, b, _])| [r, g, b]).collect();
            (colours, Some(pixels.pixels().map(|pixel| pixel.0[3]).collect::<Vec<_>>()))
        }
    };
    let colours = Raster::new(width, height, colours).map_err(|error| Unreadable::Picture(error.to_string()))?;
    let alpha = alpha.map(|alpha| Plane::new(width, height, alpha)).transpose();
    Ok(Picture { colours, alpha: alpha.map_err(|error| Unreadable::Picture(error.to_string()))? })
}

/// The bytes behind base64 that may be wrapped in a `data:` URL and broken into lines.
pub(crate) fn unwrapped(text: &str) -> Result<Vec<u8>, Unreadable> {
    let text = text.trim();
    let is_url = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    let body = match text.split_once(',') {
        _ if !is_url => text,
        Some((kind, body)) if kind.to_ascii_lowercase().ends_with(";base64") => body,
        _ => return Err(Unreadable::Base64("a `data:` URL must have `;base64,` before the picture".to_owned())),
    };
    let bytes = if body.bytes().any(|byte| byte.is_ascii_whitespace()) {
        BASE64.decode(body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>())
    } else {
        BASE64.decode(body)
    };
    bytes.map_err(|error| Unreadable::Base64(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Encoding, base64, encode};

    fn sample() -> Raster {
        Raster::new(3, 2, (0..18).map(|i| i * 14).collect::<Vec<u8>>()).unwrap()
    }

    fn written(format: Format) -> String {
        base64(encode(&sample(), Encoding { format, quality: None }, None).unwrap())
    }

    #[test]
    fn lossless_formats_come_back_the_same_and_jpeg_alike() {
        for format in Format::ALL {
            let back = decode(&written(format), 6).unwrap();
            assert_eq!((back.width(), back.height()), (3, 2));
            if format != Format::Jpeg {
                assert_eq!(back, sample(), "{format:?}");
            }
        }
    }

    #[test]
    fn base64_comes_in_many_wrappings() {
        let plain = written(Format::Png);
        let lines = plain.as_bytes().chunks(20).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join("\r\n");
        let bare = plain.trim_end_matches('=').to_owned();
        for text in [format!("data:image/png;base64,{plain}"), lines, bare] {
            assert_eq!(decode(&text, 6), Ok(sample()), "{text}");
        }
        for text in ["data:image/png,xyz", "data:nothing", "no base64 at all!"] {
            assert!(matches!(decode(text, 6), Err(Unreadable::Base64(_))), "{text}");
        }
        for text in ["", "R0lGODlhAQABAAAAACw=", &plain[..60]] {
            assert!(matches!(decode(text, 6), Err(Unreadable::Picture(_))), "{text}");
        }
    }

    #[test]
    fn a_picture_that_is_too_large_is_refused_by_its_header() {
        assert_eq!(decode(&written(Format::Png), 5), Err(Unreadable::TooLarge { width: 3, height: 2, limit: 5 }));
        // Ten thousand by ten thousand in a few hundred bytes: nothing but a header and the start of the pixels.
        let mut bomb = Vec::new();
        let mut encoder = png::Encoder::new(&mut bomb, 10_000, 10_000);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
        drop(writer);
        let refused = decode(&base64(&bomb), 1 << 20);
        assert_eq!(refused, Err(Unreadable::TooLarge { width: 10_000, height: 10_000, limit: 1 << 20 }));
    }

    #[test]
    fn transparent_pictures_stand_on_white() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 1);
        encoder.set_color(png::ColorType::Rgba);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[9, 9, 9, 0, 10, 20, 30, 255, 0, 0, 0, 128]).unwrap();
        writer.finish().unwrap();
        let picture = decode(&base64(&file), 3).unwrap();
        assert_eq!(picture.data(), [255, 255, 255, 10, 20, 30, 127, 127, 127]);
        let apart = read_with_alpha(&file, 3).unwrap();
        assert_eq!(apart.colours.data(), [9, 9, 9, 10, 20, 30, 0, 0, 0]);
        assert_eq!(apart.alpha.unwrap().data(), [0, 255, 128]);
        assert_eq!(read_plane(&file, 3).unwrap().data(), [9, 18, 0]);
    }

    #[test]
    fn one_channel_is_grey_as_it_is_and_colours_as_pillow_weighs_them() {
        let written = |colour: png::ColorType, data: &[u8]| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 4, 1);
            encoder.set_color(colour);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(data).unwrap();
            writer.finish().unwrap();
            file
        };
        let grey: Vec<u8> = (0..=255).collect();
        for levels in grey.chunks_exact(4) {
            assert_eq!(read_plane(&written(png::ColorType::Grayscale, levels), 4).unwrap().data(), levels);
        }
        // Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
        let colours = [255, 0, 0, 0, 255, 0, 0, 0, 255, 200, 100, 50];
        assert_eq!(read_plane(&written(png::ColorType::Rgb, &colours), 4).unwrap().data(), [76, 150, 29, 124]);
        assert_eq!(read_with_alpha(&written(png::ColorType::Rgb, &colours), 4).unwrap().alpha, None);
    }
}
