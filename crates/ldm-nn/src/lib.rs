//! The networks of latent diffusion on libtorch, and where their parameters come from and go to.
//!
//! This crate knows neither the service nor samplers. Shape legend: `B` batch, `C` channels, `H` `W` height and width,
//! `L` tokens, `D` width. Fields stand in forward order, and the Rust path of a parameter is its path in a diffusers
//! checkpoint. Plain tch operations panic when libtorch fails: the device loop of the engine catches that at the step.

pub mod adapters;
pub mod attention;
pub mod autoencoder_kl;
pub mod autoencoder_tiny;
pub mod blocks;
pub mod clip_text;
pub mod conditioners;
mod config;
pub mod first_stage;
pub mod formats;
mod kernels;
pub mod memory;
pub mod tiling;
pub mod tokenizer;
pub mod unet;
pub mod vq_model;
pub mod weights;

pub use adapters::{Adapter, AdapterError, Attachment, Slots, Targets};
pub use autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, Posterior};
pub use autoencoder_tiny::{AutoencoderTiny, AutoencoderTinyConfig, TinyDecoder};
pub use clip_text::{ClipTextConfig, ClipTextModel, Readout};
pub use config::ConfigError;
pub use first_stage::{Encoded, FirstStage, FirstStageConfig};
pub use tiling::Tiling;
pub use tokenizer::{ClipTokenizer, TokenizerError};
pub use unet::{Architecture, Context, UNet, UNet2DCondition, UNet2DConditionConfig};
pub use vq_model::{VqModel, VqModelConfig};
pub use weights::{Checkpoint, Layout, LoadError, Mapped, Report, Variables, Weights};
