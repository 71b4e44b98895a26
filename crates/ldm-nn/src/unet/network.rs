//! The network itself: an [`Architecture`] with weights.

use tch::{Device, Kind, Tensor};

use super::architecture::{Architecture, Attention, Resample, Way};
use super::embedding::{LabelEmbedding, Mlp, TimeEmbedding};
use super::{Context, UNet2DConditionConfig};
use crate::adapters::Slots;
use crate::blocks::{
    AttentionBlock, AttentionBlockConfig, Conv2d, CrossKv, Downsample2D, GroupNorm, ResnetBlock2D, ResnetConfig, Transformer2D,
    Transformer2DConfig, Upsample2D, in_layout, silu,
};
use crate::weights::{Layout, Weights};

#[derive(Debug)]
enum PixelAttention {
    Block(AttentionBlock),
    Transformer(Transformer2D),
}

impl PixelAttention {
    fn new(w: &Weights, architecture: &Architecture, channels: i64, attention: Attention) -> Option<Self> {
        match attention {
            Attention::None => None,
            Attention::Block { heads, groups } => {
                let config = AttentionBlockConfig { channels, heads, groups, eps: architecture.eps };
                Some(Self::Block(AttentionBlock::new(w, config)))
            }
            Attention::Transformer { heads, depth, self_attention } => {
                let config = Transformer2DConfig {
                    channels,
                    context: architecture.cross_attention_dim,
                    heads,
                    depth,
                    groups: architecture.groups,
                    linear_projection: architecture.linear_projection,
                    self_attention,
                };
                Some(Self::Transformer(Transformer2D::new(w, config)))
            }
        }
    }

    fn cross_kv(&self, tokens: &Tensor) -> Vec<CrossKv> {
        match self {
            Self::Block(_) => Vec::new(),
            Self::Transformer(transformer) => transformer.cross_kv(tokens).collect(),
        }
    }

    fn forward<'a>(&self, x: &Tensor, kv: &mut impl Iterator<Item = &'a CrossKv>) -> Tensor {
        match self {
            Self::Block(block) => block.forward(x),
            Self::Transformer(transformer) => transformer.forward(x, kv),
        }
    }
}

#[derive(Debug)]
enum Downsampler {
    Conv(Downsample2D),
    Plain,
    Resnet(Box<ResnetBlock2D>),
}

/// Means of 2×2 pixels.
fn halve(x: &Tensor) -> Tensor {
    x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
}

impl Downsampler {
    fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Plain => halve(x),
            Self::Resnet(resnet) => resnet.forward_through(x, time, halve),
        }
    }
}

#[derive(Debug)]
enum Upsampler {
    Conv(Upsample2D),
    Plain,
    Resnet(Box<ResnetBlock2D>),
}

impl Upsampler {
    fn forward(&self, x: &Tensor, time: Option<&Tensor>, (height, width): (i64, i64)) -> Tensor {
        let double = |x: &Tensor| x.upsample_nearest2d([height, width], None, None);
        match self {
            Self::Conv(conv) => conv.forward(x, (height, width)),
            Self::Plain => double(x),
            Self::Resnet(resnet) => resnet.forward_through(x, time, double),
        }
    }
}

#[derive(Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<PixelAttention>,
    downsampler: Option<Downsampler>,
}

#[derive(Debug)]
struct MidBlock {
    resnet_0: ResnetBlock2D,
    attention: Option<PixelAttention>,
    resnet_1: ResnetBlock2D,
}

#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<PixelAttention>,
    upsampler: Option<Upsampler>,
}

/// The denoiser: noised latents, timesteps and context → prediction.
#[derive(Debug)]
pub struct UNet {
    conv_in: Conv2d,
    pub(super) time_embedding: TimeEmbedding,
    pub(super) class_embedding: Option<LabelEmbedding>,
    pub(super) add_embedding: Option<Mlp>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    architecture: Architecture,
    layout: Layout,
    kind: Kind,
    device: Device,
    slots: Slots,
}

/// The same network under the name of the configuration that most models have.
pub type UNet2DCondition = UNet;

impl UNet {
    /// Builds what `config` describes.
    ///
    /// # Panics
    /// When it has not passed [`UNet2DConditionConfig::check`].
    pub fn new(w: &Weights, config: &UNet2DConditionConfig) -> Self {
        Self::build(w, &config.architecture().expect("a configuration that was checked"))
    }

    /// Builds what `architecture` describes.
    pub fn build(w: &Weights, architecture: &Architecture) -> Self {
        let levels = &architecture.levels;
        let (first, time) = (architecture.sinusoids(), architecture.time());
        let resnet = |w: &Weights, input: i64, output: i64| {
            let &Architecture { scale_shift, groups, eps, .. } = architecture;
            ResnetBlock2D::with(w, ResnetConfig { input, output, time: Some(time), scale_shift, groups, eps })
        };
        let attention = |w: &Weights, channels: i64, way: &Way, layer: i64| {
            let wanted = if layer < way.attentions { way.attention } else { Attention::None };
            PixelAttention::new(&w.sub("attentions").sub(layer), architecture, channels, wanted)
        };

        let conv_in = Conv2d::new(&w.sub("conv_in"), architecture.in_channels, first, 3);
        let time_embedding = TimeEmbedding::new(&w.sub("time_embedding"), architecture);
        let class_embedding = LabelEmbedding::new(&w.sub("class_embedding"), architecture);
        let add_embedding = architecture.added.map(|added| Mlp::new(&w.sub("add_embedding"), added.width, time));

        let mut skips = vec![first];
        let mut input = first;
        let mut down_blocks = Vec::new();
        for (i, level) in levels.iter().enumerate() {
            let (w, output) = (w.sub("down_blocks").sub(i), level.channels);
            let mut block = DownBlock { resnets: vec![], attentions: vec![], downsampler: None };
            for layer in 0..level.resnets {
                block.resnets.push(resnet(&w.sub("resnets").sub(layer), input, output));
                block.attentions.extend(attention(&w, output, &level.down, layer));
                input = output;
                skips.push(output);
            }
            if let Some(resample) = level.down.resample {
                let w = w.sub("downsamplers").sub(0);
                block.downsampler = Some(match resample {
                    Resample::Conv => Downsampler::Conv(Downsample2D::symmetric(&w, output)),
                    Resample::Plain => Downsampler::Plain,
                    Resample::Resnet => Downsampler::Resnet(Box::new(resnet(&w, output, output))),
                });
                skips.push(output);
            }
            down_blocks.push(block);
        }

        let mid = w.sub("mid_block");
        let mid_resnet = |i: i64| resnet(&mid.sub("resnets").sub(i), input, input);
        let mid_block = MidBlock {
            resnet_0: mid_resnet(0),
            attention: PixelAttention::new(&mid.sub("attentions").sub(0), architecture, input, architecture.middle),
            resnet_1: mid_resnet(1),
        };

        let mut up_blocks = Vec::new();
        for (i, level) in levels.iter().rev().enumerate() {
            let (w, output) = (w.sub("up_blocks").sub(i), level.channels);
            let mut block = UpBlock { resnets: vec![], attentions: vec![], upsampler: None };
            for layer in 0..=level.resnets {
                let skip = skips.pop().expect("a skip for every residual block on the way up");
                block.resnets.push(resnet(&w.sub("resnets").sub(layer), input + skip, output));
                block.attentions.extend(attention(&w, output, &level.up, layer));
                input = output;
            }
            if let Some(resample) = level.up.resample {
                let w = w.sub("upsamplers").sub(0);
                block.upsampler = Some(match resample {
                    Resample::Conv => Upsampler::Conv(Upsample2D::new(&w, output)),
                    Resample::Plain => Upsampler::Plain,
                    Resample::Resnet => Upsampler::Resnet(Box::new(resnet(&w, output, output))),
                });
            }
            up_blocks.push(block);
        }

        Self {
            conv_in,
            time_embedding,
            class_embedding,
            add_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), architecture.groups, first, architecture.eps),
            conv_out: Conv2d::zeroed(&w.sub("conv_out"), first, architecture.out_channels, 3),
            // After all layers: fields are built in this order.
            slots: w.slots(),
            architecture: architecture.clone(),
            layout: w.layout(),
            kind: w.kind(),
            device: w.device(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &Architecture {
        &self.architecture
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Places for adapters, by the layer's path.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Keys and values for tokens `[B, L, D]`, in the order in which [`forward`](Self::forward) asks for them.
    pub(super) fn cross_kv(&self, tokens: &Tensor) -> Vec<CrossKv> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        let up = self.up_blocks.iter().flat_map(|block| &block.attentions);
        let attentions = down.chain(&self.mid_block.attention).chain(up);
        attentions.flat_map(|attention| attention.cross_kv(tokens)).collect()
    }

    /// `x` `[B, C, H, W]` in the network's dtype, `t` float32 `[B]`, `context` of `B` rows → `[B, C', H, W]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor, context: &Context) -> Tensor {
        self.forward_observed(x, t, context, &mut |_, _| {})
    }

    /// As [`forward`](Self::forward), showing what each block gives, by the block's path: for finding where two networks part.
    pub fn forward_observed(&self, x: &Tensor, t: &Tensor, context: &Context, observe: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        let mut kv = context.layers.iter();
        let mut time = self.time_embedding.forward(t, context.guidance.as_ref(), x.kind()); // [B, 4·C₀]
        if let Some(embedding) = &context.embedding {
            time += embedding.to_kind(x.kind());
        }
        observe("time_embedding", &time);
        let time = silu(&time);
        let time = Some(&time);

        let mut h = self.conv_in.forward(&in_layout(x, self.layout));
        let mut skips = vec![h.shallow_clone()];
        for (level, block) in self.down_blocks.iter().enumerate() {
            for (i, resnet) in block.resnets.iter().enumerate() {
                h = resnet.forward(&h, time);
                if let Some(attention) = block.attentions.get(i) {
                    h = attention.forward(&h, &mut kv);
                }
                skips.push(h.shallow_clone());
            }
            if let Some(downsampler) = &block.downsampler {
                h = downsampler.forward(&h, time);
                skips.push(h.shallow_clone());
            }
            observe(&format!("down_blocks.{level}"), &h);
        }

        h = self.mid_block.resnet_0.forward(&h, time);
        if let Some(attention) = &self.mid_block.attention {
            h = attention.forward(&h, &mut kv);
        }
        h = self.mid_block.resnet_1.forward(&h, time);
        observe("mid_block", &h);

        for (i, block) in self.up_blocks.iter().enumerate() {
            for (i, resnet) in block.resnets.iter().enumerate() {
                let skip = skips.pop().expect("a skip for every residual block on the way up");
                h = resnet.forward(&Tensor::cat(&[h, skip], 1), time);
                if let Some(attention) = block.attentions.get(i) {
                    h = attention.forward(&h, &mut kv);
                }
            }
            if let Some(upsampler) = &block.upsampler {
                // The size of the skip that comes next, so that odd sizes fit too.
                let (_, _, height, width) = skips.last().and_then(|skip| skip.size4().ok()).expect("a skip of four dimensions");
                h = upsampler.forward(&h, time, (height, width));
            }
            observe(&format!("up_blocks.{i}"), &h);
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h))
    }
}
