//! Pictures out: a `Raster` as a PNG, JPEG or WebP file, with what made it.

use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use ldm_core::{Catalogue, Output, Raster};

use super::{Encoding, Format};
use crate::dialects::native;
use crate::metadata::Notes;
use crate::provenance::{self, Provenance};

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
