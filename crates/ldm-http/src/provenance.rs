//! What made a picture beside its request: the program, the weights, the numbers, the device; and the picture's digest.

use axum::http::{HeaderName, HeaderValue};
use ldm_core::{Catalogue, Raster};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// The program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What made a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Provenance {
    version: &'static str,
    /// SHA-256 of the weights; absent when nobody computed it.
    #[serde(skip_serializing_if = "String::is_empty")]
    weights: String,
    dtype: String,
    /// `cpu` or `cuda`, without the number.
    device: String,
    determinism: &'static str,
}

impl Provenance {
    /// Of pictures of that model, as the catalogue has it.
    pub(crate) fn of(catalogue: &Catalogue, model: &str) -> Self {
        let model = catalogue.model(Some(model));
        let device = model.map_or("", |model| model.device.split(':').next().unwrap_or_default());
        Self {
            version: VERSION,
            weights: model.map(|model| model.weights.clone()).unwrap_or_default(),
            dtype: model.map(|model| model.dtype.clone()).unwrap_or_default(),
            device: device.to_owned(),
            determinism: model.map_or("", |model| model.mode.name()),
        }
    }

    /// The headers of a raw picture with that digest; what is unknown is left out.
    pub(crate) fn headers(&self, sha256: &str) -> Vec<(HeaderName, HeaderValue)> {
        let named = [
            ("x-engine-version", self.version),
            ("x-model-weights", &self.weights),
            ("x-dtype", &self.dtype),
            ("x-device", &self.device),
            ("x-determinism", self.determinism),
            ("x-picture-sha256", sha256),
        ];
        let known = named.into_iter().filter(|(_, value)| !value.is_empty());
        known.filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))).collect()
    }

    /// The JSON that a PNG carries.
    pub(crate) fn note(&self, sha256: &str) -> String {
        #[derive(Serialize)]
        struct Note<'a> {
            #[serde(flatten)]
            made: &'a Provenance,
            sha256: &'a str,
        }
        // A struct of strings always becomes JSON.
        serde_json::to_string(&Note { made: self, sha256 }).unwrap_or_default()
    }
}

/// SHA-256 in hexadecimal of the picture's pixels: 8-bit RGB, row by row. It does not depend on the file's format.
pub(crate) fn digest(picture: &Raster) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(picture.data()) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_pixels() {
        // printf 'abc' | sha256sum
        let picture = Raster::new(1, 1, *b"abc").unwrap();
        assert_eq!(digest(&picture), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
