//! The networks of latent diffusion on libtorch, and where their parameters come from and go to.
//!
//! This crate knows neither the service nor samplers. Shape legend: `B` batch, `C` channels, `H` `W` height and width,
//! `L` tokens, `D` width. Fields stand in forward order, and the Rust path of a parameter is its path in a diffusers
//! checkpoint. Plain tch operations panic when libtorch fails: the device loop of the engine catches that at the step.

pub mod attention;
pub mod autoencoder_kl;
pub mod blocks;
pub mod clip_text;
mod config;
pub mod formats;
mod kernels;
pub mod tokenizer;
pub mod unet;
pub mod weights;

pub use autoencoder_kl::{AutoencoderKl, AutoencoderKlConfig, Posterior};
pub use clip_text::{ClipTextConfig, ClipTextModel};
pub use config::ConfigError;
pub use tokenizer::{ClipTokenizer, TokenizerError};
pub use unet::{Context, UNet2DCondition, UNet2DConditionConfig};
pub use weights::{Checkpoint, Layout, LoadError, Mapped, Report, Variables, Weights};
