//! The denoising UNet (openaimodel.py `UNetModel`): one network for every system of latent diffusion and Stable Diffusion.
//!
//! Three kinds of configuration describe it (`UNet2DConditionModel` and `UNet2DModel` of diffusers, the parameters of original
//! yaml files); each compiles to one neutral [`Architecture`], which the network and the names of original files are made of.

mod architecture;
mod condition;
mod context;
mod embedding;
mod model;
mod network;
mod openai;

pub use architecture::{Added, Architecture, Attention, Labels, Level, QkvOrder, Resample, Way};
pub use condition::{PerLevel, PerLevelFlag, UNet2DConditionConfig};
pub use context::{Conditioning, ConditioningError, Context};
pub use embedding::{guidance_sinusoids, sinusoids};
pub use model::UNet2DModelConfig;
pub use network::{UNet, UNet2DCondition};
pub use openai::OpenAiConfig;
