//! The card of a model, `card.toml` beside `model_index.json`: defaults and sizes that its own files cannot say.

use std::path::Path;

use serde::Deserialize;

use crate::blueprint::Habits;
use crate::families::ModelError;

/// What a card may say; everything is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) defaults: Defaults,
    pub(crate) sizes: Sizes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Defaults {
    pub(crate) sampler: Option<String>,
    pub(crate) steps: Option<u32>,
    pub(crate) guidance: Option<f64>,
    pub(crate) eta: Option<f64>,
    pub(crate) strength: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sizes {
    pub(crate) default: Option<(u32, u32)>,
    pub(crate) min: Option<u32>,
    pub(crate) max: Option<u32>,
    pub(crate) multiple: Option<u32>,
}

impl Card {
    /// Reads the card of a model's directory; an empty one if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("card.toml");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|error| ModelError::Invalid { path, message: error.to_string() })
    }
}

impl From<Card> for Habits {
    fn from(card: Card) -> Self {
        let Card { defaults, sizes } = card;
        Self {
            sampler: defaults.sampler,
            steps: defaults.steps,
            guidance: defaults.guidance,
            eta: defaults.eta,
            strength: defaults.strength,
            rounding: ldm_core::Rounding::Round,
            size: sizes.default,
            min: sizes.min,
            max: sizes.max,
            multiple: sizes.multiple,
        }
    }
}

/// The card that says these habits.
pub(crate) fn text(habits: &Habits) -> String {
    let mut text = String::from("# How the model is served when a request does not say.\n[defaults]\n");
    if let Some(sampler) = &habits.sampler {
        text += &format!("sampler = {sampler:?}\n");
    }
    if let Some(steps) = habits.steps {
        text += &format!("steps = {steps}\n");
    }
    if let Some(guidance) = habits.guidance {
        text += &format!("guidance = {guidance:?}\n");
    }
    if let Some(eta) = habits.eta {
        text += &format!("eta = {eta:?}\n");
    }
    text += "\n[sizes]\n";
    if let Some((width, height)) = habits.size {
        text += &format!("default = [{width}, {height}]\n");
    }
    let sizes = [("min", habits.min), ("max", habits.max), ("multiple", habits.multiple)];
    for (key, size) in sizes {
        text += &size.map_or(String::new(), |size| format!("{key} = {size}\n"));
    }
    text
}
