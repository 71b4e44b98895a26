//! Pictures in and out: base64, PNG, JPEG and WebP to `Raster` and back, off the runtime's threads.

mod read;
mod run;
mod write;

pub use read::{Picture, Unreadable, read_picture, read_plane, read_with_alpha};
pub(crate) use read::{decode, decode_with_alpha};
pub(crate) use run::Codec;
pub use write::{Unwritable, write_picture};
pub(crate) use write::{encode, signed};

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding is written, and need not be there to be read.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&ALPHABET, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

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

/// `bytes` in base64.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}
