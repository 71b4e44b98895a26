//! Self-attention over the pixels of a feature map (openaimodel.py `AttentionBlock`).

use tch::Tensor;

use super::basic::{GroupNorm, Linear};
use crate::attention::attention;
use crate::weights::{Layout, Weights};

/// What an [`AttentionBlock`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlockConfig {
    /// Channels, in and out.
    pub channels: i64,
    /// Attention heads.
    pub heads: i64,
    /// Groups of the normalisation, if there is one.
    pub groups: Option<i64>,
    /// Its ε.
    pub eps: f64,
}

/// Norm, attention of every pixel to every pixel, projection; the skip.
#[derive(Debug)]
pub struct AttentionBlock {
    group_norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
    layout: Layout,
}

impl AttentionBlock {
    /// See [`AttentionBlockConfig`].
    pub fn new(w: &Weights, config: AttentionBlockConfig) -> Self {
        let AttentionBlockConfig { channels, heads, groups, eps } = config;
        let linear = |name: &str| Linear::new(&w.sub(name), channels, channels);
        Self {
            group_norm: groups.map(|groups| GroupNorm::new(&w.sub("group_norm"), groups, channels, eps)),
            to_q: linear("to_q"),
            to_k: linear("to_k"),
            to_v: linear("to_v"),
            to_out: Linear::zeroed(&w.sub("to_out").sub(0), channels, channels),
            heads,
            layout: w.layout(),
        }
    }

    /// `[B, C, H, W]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, height, width) = x.size4().expect("a feature map has four dimensions");
        let h = self.group_norm.as_ref().map_or_else(|| x.shallow_clone(), |norm| norm.forward(x));
        let tokens = h.permute([0, 2, 3, 1]).reshape([b, height * width, c]); // [B, HW, C]
        let (q, k, v) = (self.to_q.forward(&tokens), self.to_k.forward(&tokens), self.to_v.forward(&tokens));
        let h = self.to_out.forward(&attention(&q, &k, &v, self.heads, false));
        let h = h.view([b, height, width, c]).permute([0, 3, 1, 2]); // [B, C, H, W]
        match self.layout {
            Layout::ChannelsLast => x + h,
            Layout::Contiguous => x + h.contiguous(),
        }
    }
}
