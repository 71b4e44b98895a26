//! Formats of models: which networks files hold and how they go together. One file each.

pub(crate) mod directory;
pub(crate) mod original;
mod stages;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ldm_nn::{FirstStage, FirstStageConfig, Layout};
use serde::de::DeserializeOwned;

use crate::blueprint::{Blueprint, Builder, ConcatPlan, Depth, Part, Site};
use crate::catalogue::describe;
use crate::loras;
use crate::options::{LoadOptions, ModelSource};
use crate::sketch::Sketch;
use crate::system::System;
use crate::{digest, footprint};

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

/// Everything that is wrong with a model's files.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<ModelError>);

impl Problems {
    /// The value, or none with its error kept.
    pub(crate) fn keep<T>(&mut self, value: Result<T, ModelError>) -> Option<T> {
        value.map_err(|error| self.0.push(error)).ok()
    }

    /// The same with several errors.
    pub(crate) fn keep_all<T>(&mut self, value: Result<T, Vec<ModelError>>) -> Option<T> {
        value.map_err(|errors| self.0.extend(errors)).ok()
    }
}

/// Reads what a source holds, whatever its format; every problem when there is any.
pub(crate) fn read(source: &ModelSource) -> Result<Blueprint, Vec<ModelError>> {
    let mut blueprint = match source.dir.is_file() {
        true => original::read(&source.dir, source.config.as_deref(), source.ema)?,
        false => directory::read(&source.dir)?,
    };
    stages::attach(&mut blueprint, source).map_err(|error| vec![error])?;
    Ok(blueprint)
}

/// The family that a directory's index names, if it names a known one.
pub(crate) fn family(dir: &Path) -> Option<String> {
    directory::family(dir)
}

/// The longest side that super-resolution gives unless a card says otherwise: a denoiser that runs in tiles has no size of its own,
/// one that does not grows with the square of its tokens. Others have what they were trained on.
pub(crate) fn largest_side(concat: &ConcatPlan) -> Option<u32> {
    match concat {
        ConcatPlan::LowResolution => Some(4096),
        ConcatPlan::NoisedLowResolution(_) => Some(2048),
        _ => None,
    }
}

/// The first stage alone: of a file, of a pipeline's directory, or of an autoencoder's own directory.
pub(crate) fn read_stage(model: &Path, config: Option<&Path>) -> Result<Part<FirstStageConfig>, ModelError> {
    if model.is_file() { original::read_stage(original::Original::new(model), config) } else { directory::read_stage(model) }
}

/// A model as its files' headers describe it.
pub(crate) struct Described {
    /// The catalogue's entry.
    pub(crate) about: ldm_core::Model,
    pub(crate) sketch: Sketch,
    /// Bytes that it takes when it is loaded, about.
    pub(crate) bytes: u64,
    /// What a picture takes besides.
    pub(crate) working: footprint::Working,
}

/// Reads what a source holds without reading its weights.
pub(crate) fn described(source: &ModelSource, options: &LoadOptions) -> Result<(Blueprint, Described), ModelError> {
    let blueprint = read(source).map_err(|mut errors| errors.swap_remove(0))?;
    let about = describe(source, &blueprint, options)?;
    let sketch = Sketch::of(&blueprint);
    let parameters = footprint::parameters(&blueprint);
    let about = ldm_core::Model {
        parameters,
        prompt_tokens: sketch.prompt_tokens,
        weights: digest::of(source)?,
        mode: options.mode,
        ..about
    };
    let bytes = footprint::bytes(&blueprint, options);
    let working = footprint::Working::of(&blueprint, options);
    Ok((blueprint, Described { about, sketch, bytes, working }))
}

/// Builds the model; `name` is that of its weights.
pub(crate) fn build(
    source: &ModelSource,
    options: &LoadOptions,
    blueprint: Blueprint,
    described: &Described,
    name: String,
) -> Result<System, ModelError> {
    blueprint.survey()?;
    let site = Site {
        depth: Depth::Build,
        kind: Some(options.dtype.kind()),
        device: options.device.tch(),
        layout: Layout::ChannelsLast,
    };
    let (loras, merged) = loras::read(source, &blueprint, options.dtype.kind(), options.device.tch())?;
    let loras = Rc::new(loras);
    let mut builder = Builder::new(site).adapted(&loras, merged);
    let Blueprint { unet, stage, preview, conditioner, concat, tile, .. } = blueprint;
    let conditioner = RefCell::new(builder.conditioner(conditioner, options.cache, &source.embeddings)?);
    let concat = builder.concat(concat);
    let unet = builder.unet(unet);
    let stage = builder.stage(stage);
    let preview = preview.map(|preview| builder.preview(preview));
    let parameters = builder.finish()?;
    let about = ldm_core::Model { parameters, loras: loras.names(), ..described.about.clone() };
    let (source, sketch, exact) = (source.clone(), described.sketch.clone(), RefCell::default());
    Ok(System { about, source, name, sketch, stage, exact, preview, unet, conditioner, concat, tile, loras })
}

/// The first stage of a model in float32, if its files still hold the weights of that digest.
pub(crate) fn exact_stage(source: &ModelSource, weights: &str, device: tch::Device) -> Result<FirstStage, ModelError> {
    if digest::of(source)? != weights {
        return Err(ModelError::Mismatch("the model's files are others by now".into()));
    }
    let blueprint = read(source).map_err(|mut errors| errors.swap_remove(0))?;
    let mut builder =
        Builder::new(Site { depth: Depth::Build, kind: Some(tch::Kind::Float), device, layout: Layout::ChannelsLast });
    let stage = builder.stage(blueprint.stage);
    builder.finish()?;
    Ok(stage)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| ModelError::Invalid { path: path.to_owned(), message: error.to_string() })
}
