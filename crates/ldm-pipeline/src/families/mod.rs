//! Model families: which networks a directory holds and how a request conditions them. One file each.

mod stable_diffusion;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ldm_core::{Failure, Task};
use ldm_nn::AutoencoderKl;
use ldm_sampler::SchedulerConfig;
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use crate::catalogue::describe;
use crate::conditioning::Conditioning;
use crate::options::{LoadOptions, ModelSource};

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A part's configuration cannot be used.
    #[error("{part}: {source}")]
    Config {
        /// The part's directory.
        part: &'static str,
        /// Why.
        source: ldm_nn::ConfigError,
    },
    /// A part's weights cannot be read.
    #[error("{part}: {source}")]
    Checkpoint {
        /// The part's directory.
        part: &'static str,
        /// Why.
        source: ldm_nn::weights::CheckpointError,
    },
    /// A part's weights do not fit.
    #[error("{part}: {source}")]
    Weights {
        /// The part's directory.
        part: &'static str,
        /// Why.
        source: ldm_nn::LoadError,
    },
    /// The tokenizer cannot be read.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] ldm_nn::TokenizerError),
    /// Parts do not fit each other.
    #[error("{0}")]
    Mismatch(String),
    /// No family claims the directory.
    #[error("{dir}: no family of models is called {class:?}; known: {known}")]
    UnknownFamily {
        /// The directory.
        dir: PathBuf,
        /// `_class_name` in `model_index.json`.
        class: String,
        /// What is known.
        known: String,
    },
    /// The device is not there.
    #[error("device {0} is not there")]
    NoDevice(String),
}

/// A loaded model.
pub(crate) struct Model {
    pub(crate) about: ldm_core::Model,
    pub(crate) vae: AutoencoderKl,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) denoiser: Box<dyn Denoiser>,
}

/// What a family does with a request: the prompt becomes conditioning, noised latents become a prediction.
pub(crate) trait Denoiser {
    /// Conditioning of one prompt, `B` = 1.
    fn condition(&mut self, prompt: &str) -> Result<Rc<Conditioning>, Failure>;

    /// `[L, D]` of every conditioning.
    fn tokens(&self) -> [u32; 2];

    /// `x` float32 `[B, C, H, W]`, `t` float32 `[B]`, `conditioning` of `B` rows → float32 `[B, C, H, W]`.
    fn forward(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Tensor;
}

/// What a directory says of itself.
#[derive(serde::Deserialize)]
pub(crate) struct Index {
    #[serde(rename = "_class_name")]
    pub(crate) class_name: String,
}

/// A family's entry in the registry.
pub(crate) struct Family {
    /// The name in catalogues.
    pub(crate) name: &'static str,
    /// `_class_name`s in `model_index.json` that it claims.
    pub(crate) classes: &'static [&'static str],
    /// What it can do.
    pub(crate) tasks: &'static [Task],
    /// Parts that it reads, in the order in which they run: directory, file stem of the weights (none for a tokenizer).
    pub(crate) parts: &'static [(&'static str, Option<&'static str>)],
    load: fn(&Path, &LoadOptions) -> Result<Loaded, ModelError>,
}

/// What a family's loader returns.
pub(crate) struct Loaded {
    pub(crate) vae: AutoencoderKl,
    pub(crate) scheduler: crate::scheduler::Scheduler,
    pub(crate) denoiser: Box<dyn Denoiser>,
    pub(crate) parameters: u64,
    /// Side of the latents that it was trained on.
    pub(crate) latent_side: Option<i64>,
    pub(crate) prompt_tokens: usize,
}

/// Every family.
pub(crate) const FAMILIES: &[Family] = &[stable_diffusion::FAMILY];

/// The family that claims `dir`.
pub(crate) fn family_of(dir: &Path) -> Result<&'static Family, ModelError> {
    let index: Index = read_json(&dir.join("model_index.json"))?;
    FAMILIES.iter().find(|family| family.classes.contains(&index.class_name.as_str())).ok_or_else(|| ModelError::UnknownFamily {
        dir: dir.to_owned(),
        class: index.class_name,
        known: FAMILIES.iter().flat_map(|family| family.classes).copied().collect::<Vec<_>>().join(", "),
    })
}

/// Loads the model.
pub(crate) fn load(source: &ModelSource, options: &LoadOptions) -> Result<Model, ModelError> {
    let family = family_of(&source.dir)?;
    let card = crate::card::Card::read(&source.dir)?;
    let loaded = (family.load)(&source.dir, options)?;
    let about = describe(source, family, &card, &loaded, options)?;
    Ok(Model { about, vae: loaded.vae, scheduler: loaded.scheduler.config, denoiser: loaded.denoiser })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| ModelError::Invalid { path: path.to_owned(), message: error.to_string() })
}

/// The dtype of the first stage: float32 where its configuration says that half precision overflows.
pub(crate) fn vae_kind(kind: Kind, force_upcast: bool) -> Kind {
    if force_upcast && kind == Kind::Half { Kind::Float } else { kind }
}
