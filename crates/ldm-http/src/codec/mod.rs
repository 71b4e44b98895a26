//! Pictures in and out: base64, PNG, JPEG and WebP to `Raster` and back, off the runtime's threads.

pub(crate) mod container;
mod labels;
mod read;
mod run;
#[cfg(test)]
mod tests;
mod webp;
mod write;

pub(crate) use labels::read_labels;
pub use read::{Picture, Unreadable, read_picture, read_plane, read_with_alpha};
pub(crate) use read::{decode, decode_with_alpha, format_of, unwrapped};
pub(crate) use run::Codec;
pub use write::{Unwritable, write_picture};
pub(crate) use write::{encode, signed};

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is written, and need not be there to be read.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// JPEG quality when nobody says.
const JPEG_QUALITY: u8 = 90;

/// A picture's format on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lossless.
    Png,
    /// Lossy.
    Jpeg,
    /// Lossless, unless a quality below 100 is said.
    WebP,
}

impl From<Format> for image::ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Png => Self::Png,
            Format::Jpeg => Self::Jpeg,
            Format::WebP => Self::WebP,
        }
    }
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
    /// 1 to 100. Not said it is 90 for JPEG; WebP is lossless then, and at 100. PNG takes none.
    pub quality: Option<u8>,
}

impl Encoding {
    /// The quality that the file has, where it has one.
    pub(crate) fn resolved_quality(self) -> Option<u8> {
        match self.format {
            Format::Png => None,
            Format::Jpeg => Some(self.quality.unwrap_or(JPEG_QUALITY)),
            Format::WebP => self.quality,
        }
    }
}

/// `bytes` in base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}
