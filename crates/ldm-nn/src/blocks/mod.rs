//! The blocks that networks are made of.

mod attention;
mod autoencoder;
mod basic;
mod resnet;
mod transformer;

pub use attention::{AttentionBlock, AttentionBlockConfig};
pub use autoencoder::{CoderConfig, DOWN, Decoder, Encoder, UP};

pub use basic::{Conv2d, Embedding, GatedLinear, GroupNorm, LayerNorm, Linear, silu};
pub use resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};
pub(crate) use transformer::in_layout;
pub use transformer::{CrossKv, Transformer2D, Transformer2DConfig};
