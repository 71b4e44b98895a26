//! The blocks that networks are made of.

mod basic;
mod resnet;
mod transformer;

pub use basic::{Conv2d, Embedding, GatedLinear, GroupNorm, LayerNorm, Linear, silu};
pub use resnet::{Downsample2D, ResnetBlock2D, Upsample2D};
pub(crate) use transformer::in_layout;
pub use transformer::{CrossKv, Transformer2D, Transformer2DConfig};
