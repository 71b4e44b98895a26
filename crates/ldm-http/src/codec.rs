//! Pictures in and out: base64, PNG, JPEG and WebP to `Raster` and back, off the runtime's threads.

use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};
use ldm_core::{Catalogue, Output, Raster};
use tokio::sync::Semaphore;

use crate::dialects::native;
use crate::error::ApiError;
use crate::metadata::Notes;
use crate::provenance::{self, Provenance};
use crate::{HttpLimits, Metrics};

/// Padding is written, and need not be there to be read.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Pictures of so many pixels are written where they are.
const TINY: u64 = 16 * 16;

/// A picture's format on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lossless, with what made it.
    Png,
    /// Lossy.
    Jpeg,
    /// Lossless.
    WebP,
}

impl Format {
    /// Every format, the default first.
    pub(crate) const ALL: [Format; 3] = [Format::Png, Format::Jpeg, Format::WebP];

    /// The name that requests use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg => "jpeg",
            Format::WebP => "webp",
        }
    }

    /// The media type.
    pub(crate) fn mime(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
            Format::WebP => "image/webp",
        }
    }

    /// The format of that name; `jpg` is `jpeg`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = if name == "jpg" { "jpeg" } else { &name };
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// How a picture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The file's format.
    pub format: Format,
    /// 1 to 100; means something to JPEG alone.
    pub quality: u8,
}

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

/// Why a picture was not written; a raster that exists can be, so this is a bug or a lack of memory.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// As PNG.
    #[error(transparent)]
    Png(#[from] png::EncodingError),
    /// As another format.
    #[error(transparent)]
    Other(#[from] image::ImageError),
}

/// Runs what takes long on threads for that, a few at a time.
#[derive(Clone)]
pub(crate) struct Codec {
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Codec {
    pub(crate) fn new(limits: &HttpLimits, metrics: Arc<Metrics>) -> Self {
        Self { permits: Arc::new(Semaphore::new(limits.encoders.clamp(1, Semaphore::MAX_PERMITS))), metrics }
    }

    /// Runs `work` on a thread that may block. The place is given back when the work is done, even if nobody waits for it.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ApiError::internal())?;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a picture could not be worked on");
            ApiError::internal()
        })
    }

    /// What `write` makes of a picture of so many pixels, and how long that took.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        pixels: u64,
        write: impl FnOnce() -> Result<T, Unwritable> + Send + 'static,
    ) -> Result<(T, Duration), ApiError> {
        let metrics = Arc::clone(&self.metrics);
        let timed = move || {
            let started = Instant::now();
            let written = write();
            let took = started.elapsed();
            metrics.encoded(took);
            written.map(|written| (written, took))
        };
        // What takes microseconds is not worth another thread.
        let written = if pixels <= TINY { timed() } else { self.run(timed).await? };
        written.map_err(|error| {
            tracing::error!(%error, "a picture could not be written");
            ApiError::internal()
        })
    }
}

/// `bytes` in base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

/// Writes a picture; only PNG carries `notes`.
pub(crate) fn encode(picture: &Raster, encoding: Encoding, notes: Option<&Notes>) -> Result<Vec<u8>, Unwritable> {
    let (width, height, data) = (picture.width(), picture.height(), picture.data());
    let mut out = Vec::new();
    match encoding.format {
        Format::Png => {
            let mut encoder = png::Encoder::new(&mut out, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.set_compression(png::Compression::Fast);
            for (keyword, text) in notes.into_iter().flat_map(Notes::texts) {
                match is_latin1(text) {
                    true => encoder.add_text_chunk(keyword.to_owned(), text.to_owned())?,
                    false => encoder.add_itxt_chunk(keyword.to_owned(), text.to_owned())?,
                }
            }
            let mut writer = encoder.write_header()?;
            writer.write_image_data(data)?;
            writer.finish()?;
        }
        Format::Jpeg => {
            JpegEncoder::new_with_quality(&mut out, encoding.quality).write_image(
                data,
                width,
                height,
                ExtendedColorType::Rgb8,
            )?;
        }
        Format::WebP => WebPEncoder::new_lossless(&mut out).write_image(data, width, height, ExtendedColorType::Rgb8)?,
    }
    Ok(out)
}

/// Writes a finished picture's file; a PNG says how it was made, as one that is sent over HTTP does.
pub fn write_picture(output: &Output, catalogue: &Catalogue, encoding: Encoding) -> Result<Vec<u8>, Unwritable> {
    let made = Provenance::of(catalogue, &output.request.model);
    signed(output, catalogue, &made, encoding).map(|(file, _)| file)
}

/// A finished picture's file, and the digest of its pixels.
pub(crate) fn signed(
    output: &Output,
    catalogue: &Catalogue,
    made: &Provenance,
    encoding: Encoding,
) -> Result<(Vec<u8>, String), Unwritable> {
    let sha256 = provenance::digest(&output.image);
    let noted = encoding.format == Format::Png;
    let notes = noted.then(|| native::notes(&output.request, catalogue, encoding).made(made.note(&sha256)));
    Ok((encode(&output.image, encoding, notes.as_ref())?, sha256))
}

/// What a `tEXt` chunk can carry; other text goes into `iTXt`.
fn is_latin1(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}'))
}

/// Reads a picture in base64, with or without `data:` in front: upright, on white where it is transparent.
///
/// Its size is checked before its pixels are unpacked.
pub(crate) fn decode(text: &str, max_pixels: u64) -> Result<Raster, Unreadable> {
    read_picture(&unwrapped(text)?, max_pixels)
}

/// Reads a PNG, JPEG or WebP file of at most `max_pixels`: upright, on white where it is transparent.
pub fn read_picture(file: &[u8], max_pixels: u64) -> Result<Raster, Unreadable> {
    let bad = |error: image::ImageError| Unreadable::Picture(error.to_string());
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| bad(error.into()))?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) {
        return Err(Unreadable::Picture("it begins like none of them".to_owned()));
    }
    let mut limits = Limits::default();
    // 16-bit RGBA twice over, and room for what small pictures need besides.
    limits.max_alloc = Some(max_pixels.saturating_mul(16).saturating_add(8 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Unreadable::TooLarge { width, height, limit: max_pixels });
    }
    let orientation = decoder.orientation().map_err(bad)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(bad)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    Raster::new(width, height, on_white(picture)).map_err(|error| Unreadable::Picture(error.to_string()))
}

/// The bytes behind base64 that may be wrapped in a `data:` URL and broken into lines.
fn unwrapped(text: &str) -> Result<Vec<u8>, Unreadable> {
    let body = match text.strip_prefix("data:").map(|url| url.split_once(',')) {
        None => text,
        Some(Some((kind, body))) if kind.ends_with(";base64") => body,
        Some(_) => return Err(Unreadable::Base64("a `data:` URL must have `;base64,` before the picture".to_owned())),
    };
    let bytes = if body.bytes().any(|byte| byte.is_ascii_whitespace()) {
        BASE64.decode(body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>())
    } else {
        BASE64.decode(body)
    };
    bytes.map_err(|error| Unreadable::Base64(error.to_string()))
}

fn on_white(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let over =
        |colour: u8, alpha: u8| ((u32::from(colour) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8;
    picture.into_rgba8().pixels().flat_map(|&image::Rgba([r, g, b, a])| [over(r, a), over(g, a), over(b, a)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Raster {
        Raster::new(3, 2, (0..18).map(|i| i * 14).collect::<Vec<u8>>()).unwrap()
    }

    fn written(format: Format) -> String {
        base64(encode(&sample(), Encoding { format, quality: 90 }, None).unwrap())
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
    }
}
