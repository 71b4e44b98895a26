//! The spatial transformer (attention.py `SpatialTransformer`): self-attention, cross-attention, GEGLU.

use tch::Tensor;

use super::basic::{Conv2d, GatedLinear, GroupNorm, LayerNorm, Linear};
use crate::attention::attention;
use crate::weights::{Layout, Weights, channels_last};

/// Keys and values of one cross-attention, `[B, L, C]` each: they depend on the prompt alone.
#[derive(Debug)]
pub struct CrossKv {
    key: Tensor,
    value: Tensor,
}

impl CrossKv {
    /// Rows of several, one after another.
    pub fn cat(rows: &[&CrossKv]) -> Self {
        let keys: Vec<_> = rows.iter().map(|kv| &kv.key).collect();
        let values: Vec<_> = rows.iter().map(|kv| &kv.value).collect();
        Self { key: Tensor::cat(&keys, 0), value: Tensor::cat(&values, 0) }
    }

    /// The rows `from .. from + count`.
    pub fn rows(&self, from: i64, count: i64) -> Self {
        Self { key: self.key.narrow(0, from, count), value: self.value.narrow(0, from, count) }
    }
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
}

impl Attention {
    fn new(w: &Weights, width: i64, context: i64, heads: i64) -> Self {
        Self {
            to_q: Linear::without_bias(&w.sub("to_q"), width, width),
            to_k: Linear::without_bias(&w.sub("to_k"), context, width),
            to_v: Linear::without_bias(&w.sub("to_v"), context, width),
            to_out: Linear::new(&w.sub("to_out").sub(0), width, width),
            heads,
        }
    }

    fn cross_kv(&self, context: &Tensor) -> CrossKv {
        CrossKv { key: self.to_k.forward(context), value: self.to_v.forward(context) }
    }

    fn forward(&self, x: &Tensor, kv: &CrossKv) -> Tensor {
        self.to_out.forward(&attention(&self.to_q.forward(x), &kv.key, &kv.value, self.heads, false))
    }
}

/// Two linear layers, the first one gated (Shazeer 2020).
#[derive(Debug)]
struct FeedForward {
    project: GatedLinear,
    output: Linear,
}

impl FeedForward {
    fn new(w: &Weights, width: i64) -> Self {
        let (inner, net) = (width * 4, w.sub("net"));
        Self { project: GatedLinear::new(&net.sub(0).sub("proj"), width, inner), output: Linear::new(&net.sub(2), inner, width) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.output.forward(&self.project.forward(x))
    }
}

#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    /// Whether the first attention is to the pixels themselves; else it is to the context, as the second is.
    self_attention: bool,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(w: &Weights, config: &Transformer2DConfig) -> Self {
        let &Transformer2DConfig { channels: width, context, heads, self_attention, .. } = config;
        Self {
            norm1: LayerNorm::new(&w.sub("norm1"), width, 1e-5),
            attn1: Attention::new(&w.sub("attn1"), width, if self_attention { width } else { context }, heads),
            self_attention,
            norm2: LayerNorm::new(&w.sub("norm2"), width, 1e-5),
            attn2: Attention::new(&w.sub("attn2"), width, context, heads),
            norm3: LayerNorm::new(&w.sub("norm3"), width, 1e-5),
            ff: FeedForward::new(&w.sub("ff"), width),
        }
    }

    /// The attentions that see the context, in order.
    fn cross(&self) -> impl Iterator<Item = &Attention> {
        (!self.self_attention).then_some(&self.attn1).into_iter().chain([&self.attn2])
    }

    fn forward<'a>(&self, x: &Tensor, kv: &mut impl Iterator<Item = &'a CrossKv>) -> Tensor {
        let mut next = || kv.next().expect("keys and values for every attention to the context");
        let h = self.norm1.forward(x);
        let first =
            if self.self_attention { self.attn1.forward(&h, &self.attn1.cross_kv(&h)) } else { self.attn1.forward(&h, next()) };
        let x = x + first;
        let x = &x + self.attn2.forward(&self.norm2.forward(&x), next());
        &x + self.ff.forward(&self.norm3.forward(&x))
    }
}

/// Projections into and out of the transformer, as convolutions (SD 1.x) or linear layers (SD 2.x): the same numbers.
#[derive(Debug)]
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(w: &Weights, channels: i64, linear: bool) -> Self {
        if linear { Self::Linear(Linear::new(w, channels, channels)) } else { Self::Conv(Conv2d::new(w, channels, channels, 1)) }
    }

    fn zeroed(w: &Weights, channels: i64, linear: bool) -> Self {
        if linear {
            Self::Linear(Linear::zeroed(w, channels, channels))
        } else {
            Self::Conv(Conv2d::zeroed(w, channels, channels, 1))
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Conv(conv) => conv.forward_tokens(x),
            Self::Linear(linear) => linear.forward(x),
        }
    }
}

/// What a [`Transformer2D`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Transformer2DConfig {
    /// Channels, in and out.
    pub channels: i64,
    /// Width of the context tokens.
    pub context: i64,
    /// Attention heads.
    pub heads: i64,
    /// Transformer blocks.
    pub depth: i64,
    /// Groups of the normalisation.
    pub groups: i64,
    /// Linear instead of 1×1 convolution.
    pub linear_projection: bool,
    /// Whether the first attention of each block is to the pixels themselves; else it is to the context too.
    pub self_attention: bool,
}

/// A transformer over the pixels of a feature map, attending to the context.
#[derive(Debug)]
pub struct Transformer2D {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
    layout: Layout,
}

impl Transformer2D {
    /// See [`Transformer2DConfig`].
    pub fn new(w: &Weights, config: Transformer2DConfig) -> Self {
        let Transformer2DConfig { channels, depth, groups, linear_projection, .. } = config;
        let blocks = w.sub("transformer_blocks");
        Self {
            norm: GroupNorm::new(&w.sub("norm"), groups, channels, 1e-6),
            proj_in: Projection::new(&w.sub("proj_in"), channels, linear_projection),
            transformer_blocks: (0..depth).map(|i| TransformerBlock::new(&blocks.sub(i), &config)).collect(),
            proj_out: Projection::zeroed(&w.sub("proj_out"), channels, linear_projection),
            layout: w.layout(),
        }
    }

    /// Keys and values of every attention to the context `[B, L, D]`, in order.
    pub fn cross_kv(&self, context: &Tensor) -> impl Iterator<Item = CrossKv> {
        self.transformer_blocks.iter().flat_map(|block| block.cross()).map(|attention| attention.cross_kv(context))
    }

    /// `[B, C, H, W]` → the same; takes as many of `kv` as [`cross_kv`](Self::cross_kv) makes.
    pub fn forward<'a>(&self, x: &Tensor, kv: &mut impl Iterator<Item = &'a CrossKv>) -> Tensor {
        let (b, c, height, width) = x.size4().expect("a feature map has four dimensions");
        // On NHWC strides the way to tokens is a view; in NCHW it is a copy.
        let tokens = self.norm.forward(x).permute([0, 2, 3, 1]).reshape([b, height * width, c]); // [B, HW, C]
        let mut h = self.proj_in.forward(&tokens);
        for block in &self.transformer_blocks {
            h = block.forward(&h, kv);
        }
        let h = self.proj_out.forward(&h).view([b, height, width, c]).permute([0, 3, 1, 2]); // [B, C, H, W]
        match self.layout {
            Layout::ChannelsLast => x + h,
            Layout::Contiguous => x + h.contiguous(),
        }
    }
}

/// `[B, C, H, W]` in the memory format that the weights want.
pub(crate) fn in_layout(x: &Tensor, layout: Layout) -> Tensor {
    match layout {
        Layout::ChannelsLast => channels_last(x),
        Layout::Contiguous => x.contiguous(),
    }
}
