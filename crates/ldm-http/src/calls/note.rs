//! What the ledger notes of a named job for the edge: how many pictures were asked for, and how they are to be written.

use serde::{Deserialize, Serialize};

use crate::codec::{Encoding, Format};

/// The note, as JSON in the ledger. Fields are only ever added, with a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// Pictures; 0 is not known.
    pub(crate) images: usize,
    format: Option<String>,
    quality: Option<u8>,
}

impl Note {
    pub(crate) fn new(images: usize, encoding: Encoding) -> Self {
        Self { images, format: Some(encoding.format.name().to_owned()), quality: encoding.quality }
    }

    /// As the ledger keeps it.
    pub(crate) fn text(&self) -> String {
        // A struct of strings and numbers always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the ledger kept; a job of an older version has none.
    pub(crate) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// How the pictures are to be written.
    pub(crate) fn encoding(&self) -> Encoding {
        let format = self.format.as_deref().and_then(Format::named).unwrap_or(Format::Png);
        Encoding { format, quality: self.quality }
    }
}
