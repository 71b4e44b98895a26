//! The cards of `config/models`, built in. A test checks that none is forgotten.

use super::{Card, CardError};

macro_rules! cards {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the cards, in the order of the tables.
        pub const BUILTIN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../config/models/", $name, ".toml")))),*];
    };
}

cards!(
    "kl-f4",
    "kl-f8",
    "kl-f16",
    "kl-f32",
    "vq-f4",
    "vq-f4-noattn",
    "vq-f8",
    "vq-f8-n256",
    "vq-f16",
    "taesd",
    "celeba256",
    "ffhq256",
    "lsun_beds256",
    "lsun_churches256",
    "cin256",
    "cin256-v2",
    "text2img256",
    "text2img-large",
    "bsr_sr",
    "inpainting_big",
    "layout2img-openimages256",
    "semantic_synthesis256",
    "semantic_synthesis512",
    "rdm768",
    "sd-v1",
    "sd-v1-inpainting",
    "sd-v2-base",
    "sd-v2-768-v",
    "sd-v2-inpainting",
    "sd-v2-depth",
    "sd-v21-unclip-h",
    "sd-v21-unclip-l",
    "sd-x4-upscaler",
    "sdxl-base",
    "sdxl-refiner",
    "lcm-sd15",
    "sd-turbo",
    "sdxl-turbo",
);

/// A built-in card by name.
///
/// # Errors
/// When there is none of that name; the error names the nearest.
pub fn builtin(name: &str) -> Result<Card, CardError> {
    let Some((_, text)) = BUILTIN.iter().find(|(known, _)| *known == name) else {
        let nearest = BUILTIN.iter().map(|(known, _)| *known).max_by(|a, b| {
            let likeness = |known: &str| strsim::jaro_winkler(known, name);
            likeness(a).total_cmp(&likeness(b))
        });
        let (path, key) = ("models".to_owned(), crate::pickle::shown(name));
        return Err(CardError::Unknown { path, key, nearest: nearest.map(str::to_owned) });
    };
    Card::from_toml(text)
}

/// All built-in cards.
///
/// # Errors
/// Never, as a test checks.
pub fn builtins() -> Result<Vec<Card>, CardError> {
    BUILTIN.iter().map(|(_, text)| Card::from_toml(text)).collect()
}
