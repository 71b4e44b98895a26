//! Pictures out: a `Raster` as a PNG, JPEG or WebP file, with what made it.

use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use ldm_core::{Catalogue, Output, Raster};

use super::{Encoding, Format, webp};
use crate::dialects::native;
use crate::metadata::Notes;
use crate::provenance::{self, Provenance};

/// Bytes of a JPEG's EXIF block: what a segment holds beside its length and `Exif`.
const JPEG_EXIF: usize = 65535 - 2 - 6;
/// Bytes of a WebP's EXIF block.
const WEBP_EXIF: usize = 4 << 20;

/// Why a picture was not written; a raster that exists can be, so this is a bug or a lack of memory.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// As PNG.
    #[error(transparent)]
    Png(#[from] png::EncodingError),
    /// As lossy WebP.
    #[error("libwebp could not write a picture of {width}x{height}")]
    WebP {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
    },
    /// As another format.
    #[error(transparent)]
    Other(#[from] image::ImageError),
}

/// Writes a picture with its `notes`: in text chunks of a PNG, in the EXIF block of another file.
pub(crate) fn encode(picture: &Raster, encoding: Encoding, notes: Option<&Notes>) -> Result<Vec<u8>, Unwritable> {
    let (width, height, data) = (picture.width(), picture.height(), picture.data());
    let exif = |limit| notes.map(|notes| notes.exif(limit)).unwrap_or_default();
    let mut out = Vec::new();
    match (encoding.format, encoding.resolved_quality()) {
        (Format::Png, _) => png(&mut out, picture, notes)?,
        (Format::Jpeg, quality) => {
            let mut encoder = JpegEncoder::new_with_quality(&mut out, quality.unwrap_or(100));
            // What is refused is not written; the encoder takes any block.
            let _ = encoder.set_exif_metadata(exif(JPEG_EXIF));
            encoder.write_image(data, width, height, ExtendedColorType::Rgb8)?;
        }
        (Format::WebP, None | Some(100..)) => {
            let mut encoder = WebPEncoder::new_lossless(&mut out);
            let _ = encoder.set_exif_metadata(exif(WEBP_EXIF));
            encoder.write_image(data, width, height, ExtendedColorType::Rgb8)?;
        }
        (Format::WebP, Some(quality)) => {
            out = webp::lossy(picture, quality, &exif(WEBP_EXIF)).ok_or(Unwritable::WebP { width, height })?;
        }
    }
    Ok(out)
}

fn png(out: &mut Vec<u8>, picture: &Raster, notes: Option<&Notes>) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(out, picture.width(), picture.height());
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
    writer.write_image_data(picture.data())?;
    writer.finish()
}

/// Writes a finished picture's file, which says how it was made, as one that is sent over HTTP does.
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
    let notes = native::notes(&output.request, catalogue, encoding).made(made.note(&sha256));
    Ok((encode(&output.image, encoding, Some(&notes))?, sha256))
}

/// What a `tEXt` chunk can carry; other text goes into `iTXt`.
fn is_latin1(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}'))
}
