//! What may be asked for: models with their tasks, sizes and defaults, and samplers with their aliases.
//!
//! Capabilities flow upward: the executor reports a catalogue, every edge validates and lists from it.

use std::fmt;
use std::str::FromStr;

use crate::Task;

/// All that one process offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// Loaded models; the first is the default.
    pub models: Vec<Model>,
    /// Samplers in the order in which they are listed.
    pub samplers: Vec<Sampler>,
    /// Bounds on what a request may ask for, whatever the model.
    pub bounds: Bounds,
}

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// The family, for example `stable-diffusion-1`.
    pub family: String,
    /// What the model can do.
    pub tasks: Vec<Task>,
    /// Parameters of all its networks.
    pub parameters: u64,
    /// `f32`, `bf16` or `f16`.
    pub dtype: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// SHA-256 of the weights in hexadecimal; empty when nobody computed it.
    pub weights: String,
    /// Whether pictures depend on what shares a network call with them.
    pub mode: Mode,
    /// Picture sizes.
    pub sizes: Sizes,
    /// What is used when a request does not say.
    pub defaults: Defaults,
    /// Tokens of a prompt that the text encoder reads at once, without the two marks at its ends: longer prompts are read in chunks, plain
    /// ones are cut off.
    pub prompt_tokens: u32,
    /// What else it can be asked to follow.
    pub conditions: Conditions,
    /// Names of adapters that jobs may be drawn with.
    pub loras: Vec<String>,
}

/// How strictly the same request gives the same picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The fastest kernels: the last bits may depend on the rows of a network call.
    #[default]
    Fast,
    /// A picture does not depend on what shares a network call with it.
    BatchInvariant,
}

impl Mode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Fast, Self::BatchInvariant];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::BatchInvariant => "batch_invariant",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mode must be fast or batch_invariant, not {0:?}")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text.replace('-', "_"));
        known.ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// What a model can be asked to follow: each task needs its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// A prompt means something.
    pub prompt: bool,
    /// Guidance above 1 means something: the model knows what "no condition" is.
    pub guidance: bool,
    /// Classes that can be named, from 0; none for a model without classes.
    pub classes: Option<u32>,
    /// Boxes with labels.
    pub boxes: Option<BoxBounds>,
    /// Classes of a semantic map, from 0.
    pub semantic_classes: Option<u32>,
    /// How many times wider and higher super-resolution makes a picture.
    pub upscale: Option<u32>,
    /// Noise levels of the low-resolution picture, from 0.
    pub noise_levels: Option<u32>,
    /// Embeddings of retrieved neighbours.
    pub neighbors: Option<NeighborBounds>,
}

impl Default for Conditions {
    /// A prompt, with guidance.
    fn default() -> Self {
        Self {
            prompt: true,
            guidance: true,
            classes: None,
            boxes: None,
            semantic_classes: None,
            upscale: None,
            noise_levels: None,
            neighbors: None,
        }
    }
}

/// What a layout may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxBounds {
    /// Labels, from 0.
    pub labels: u32,
    /// Boxes at most.
    pub count: u32,
}

/// What embeddings of neighbours look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborBounds {
    /// Numbers of each.
    pub width: u32,
    /// Neighbours at most.
    pub count: u32,
}

/// Picture sizes of a model, in pixels; width and height alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Least side.
    pub min: u32,
    /// Largest side.
    pub max: u32,
    /// Sides are multiples of this.
    pub multiple: u32,
    /// Width and height when a request does not say: what the model was trained on.
    pub default: (u32, u32),
}

/// A model's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Sampler, by canonical name.
    pub sampler: String,
    /// The sigma schedule that goes with it; another sampler runs on its own first one.
    pub schedule: String,
    /// Steps.
    pub steps: u32,
    /// Guidance scale.
    pub guidance: f64,
    /// How much of the noise schedule img2img runs, in (0, 1].
    pub strength: f64,
    /// Share of fresh noise of samplers that take it, in [0, 1].
    pub eta: f64,
    /// How numbers become bytes.
    pub rounding: Rounding,
}

/// How the decoder's numbers become bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest level, as diffusers does.
    #[default]
    Round,
    /// To the level below, as the scripts of latent-diffusion and stable-diffusion do.
    Truncate,
}

impl Rounding {
    /// Every rounding.
    pub const ALL: [Self; 2] = [Self::Round, Self::Truncate];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Truncate => "truncate",
        }
    }
}

/// Bounds on what a request may ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Steps at most.
    pub steps: u32,
    /// Guidance at most.
    pub guidance: f64,
    /// Pictures per request at most.
    pub images: u32,
    /// Characters of a prompt at most.
    pub prompt_chars: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { steps: 150, guidance: 50.0, images: 8, prompt_chars: 4000 }
    }
}

/// A sampler that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Canonical name, for example `dpmpp_2m`.
    pub name: String,
    /// The name as people write it, for example `DPM++ 2M`.
    pub label: String,
    /// Other spellings.
    pub aliases: Vec<Alias>,
    /// Order of convergence.
    pub order: u32,
    /// Whether fresh noise is drawn at every step.
    pub stochastic: bool,
    /// Whether `eta` means something to it.
    pub takes_eta: bool,
    /// Sigma schedules that it can run on, the default first: `default`, `karras`, `exponential`.
    pub schedules: Vec<String>,
}

/// Another spelling of a sampler, which may also say the sigma schedule (`DPM++ 2M Karras`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The spelling.
    pub name: String,
    /// The schedule that it implies, if any.
    pub schedule: Option<String>,
}

/// Samplers are looked up without regard to case, spaces, dashes and underscores.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase)
}

impl Catalogue {
    /// The model of that name, or the default one.
    pub fn model(&self, id: Option<&str>) -> Option<&Model> {
        match id {
            Some(id) => self.models.iter().find(|model| model.id == id),
            None => self.models.first(),
        }
    }

    /// The model of that name; without one the first that does the task, or the default one if none does.
    pub fn model_for(&self, id: Option<&str>, task: Task) -> Option<&Model> {
        let able = || self.models.iter().find(|model| model.tasks.contains(&task));
        match id {
            Some(_) => self.model(id),
            None => able().or(self.models.first()),
        }
    }

    /// The sampler of that name or alias, and the sigma schedule if the alias says one.
    pub fn sampler(&self, name: &str) -> Option<(&Sampler, Option<&str>)> {
        // Every request asks, so nothing is allocated for it.
        let wanted = |known: &str| known == name || folded(known).eq(folded(name));
        self.samplers.iter().find_map(|sampler| {
            if wanted(&sampler.name) || wanted(&sampler.label) {
                return Some((sampler, None));
            }
            let alias = sampler.aliases.iter().find(|alias| wanted(&alias.name))?;
            Some((sampler, alias.schedule.as_deref()))
        })
    }
}
