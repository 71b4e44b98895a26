//! How the demo model is trained: procedural scenes, losses, loops, export. Training runs through the same module
//! definitions that serving uses.

pub mod autoencoder;
mod checkpoint;
pub mod config;
pub mod denormals;
pub mod diffusion;
pub mod evaluate;
mod export;
mod grid;
mod log;
mod optimizer;
mod replica;
mod sample;
pub mod scene;
mod tokenizer;

pub use config::{AutoencoderRun, DiffusionRun};
