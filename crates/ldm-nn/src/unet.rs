//! The denoising UNet with cross-attention, as any SD-1.x `unet/config.json` describes it (openaimodel.py `UNetModel`).

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::blocks::{
    Conv2d, CrossKv, Downsample2D, GroupNorm, Linear, ResnetBlock2D, Transformer2D, Transformer2DConfig, Upsample2D, in_layout,
    silu,
};
use crate::config::{ConfigError, read_json, refuse_unlike};
use crate::weights::{Layout, Weights};

/// One number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same at every level.
    Same(i64),
    /// One for each level, highest resolution first.
    Each(Vec<i64>),
}

impl PerLevel {
    fn at(&self, level: usize) -> i64 {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[level],
        }
    }
}

/// `unet/config.json`, with the defaults of diffusers' class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Height and width of the latents that it was trained on.
    pub sample_size: Option<i64>,
    /// Channels of the input.
    pub in_channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Channels of each level, highest resolution first.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub layers_per_block: i64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D` for each level, lowest resolution first.
    pub up_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn`.
    pub mid_block_type: Option<String>,
    /// Width of the context tokens.
    pub cross_attention_dim: i64,
    /// The number of heads, despite its name.
    pub attention_head_dim: PerLevel,
    /// The number of heads, in newer files.
    pub num_attention_heads: Option<PerLevel>,
    /// Blocks of each spatial transformer.
    pub transformer_layers_per_block: PerLevel,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// ε of the normalisations outside the transformers.
    pub norm_eps: f64,
    /// `silu`.
    pub act_fn: String,
    /// Whether the sinusoids of the timestep are cosines first.
    pub flip_sin_to_cos: bool,
    /// Shift in the frequencies' denominator.
    pub freq_shift: f64,
    /// Padding of the downsampling convolution.
    pub downsample_padding: i64,
    /// Divisor of the middle block's residual.
    pub mid_block_scale_factor: f64,
    /// Linear layers instead of 1×1 convolutions around the transformers.
    pub use_linear_projection: bool,
    /// Not supported: see `check`.
    pub center_input_sample: bool,
    /// Not supported: see `check`.
    pub dual_cross_attention: bool,
    /// Not supported: see `check`.
    pub only_cross_attention: serde_json::Value,
    /// Not supported: see `check`.
    pub class_embed_type: Option<String>,
    /// Not supported: see `check`.
    pub num_class_embeds: Option<i64>,
    /// Not supported: see `check`.
    pub addition_embed_type: Option<String>,
    /// Not supported: see `check`.
    pub encoder_hid_dim: Option<i64>,
    /// Not supported: see `check`.
    pub time_cond_proj_dim: Option<i64>,
    /// Not supported: see `check`.
    pub resnet_time_scale_shift: String,
    /// Not supported: see `check`.
    pub conv_in_kernel: i64,
    /// Not supported: see `check`.
    pub conv_out_kernel: i64,
}

/// Settings of diffusers' class that only networks with other parts have, with the values that mean "without".
const WITHOUT: [(&str, &[&str]); 13] = [
    ("attention_type", &["default"]),
    ("class_embeddings_concat", &["false"]),
    ("cross_attention_norm", &["null"]),
    ("encoder_hid_dim_type", &["null"]),
    ("mid_block_only_cross_attention", &["null", "false"]),
    ("projection_class_embeddings_input_dim", &["null"]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_skip_time_act", &["false"]),
    ("reverse_transformer_layers_per_block", &["null"]),
    ("time_embedding_act_fn", &["null"]),
    ("time_embedding_dim", &["null"]),
    ("time_embedding_type", &["positional"]),
    ("timestep_post_act", &["null"]),
];

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            down_block_types: names(&[down, down, down, "DownBlock2D"]),
            up_block_types: names(&["UpBlock2D", up, up, up]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            cross_attention_dim: 1280,
            attention_head_dim: PerLevel::Same(8),
            num_attention_heads: None,
            transformer_layers_per_block: PerLevel::Same(1),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            act_fn: "silu".into(),
            flip_sin_to_cos: true,
            freq_shift: 0.,
            downsample_padding: 1,
            mid_block_scale_factor: 1.,
            use_linear_projection: false,
            center_input_sample: false,
            dual_cross_attention: false,
            only_cross_attention: serde_json::Value::Bool(false),
            class_embed_type: None,
            num_class_embeds: None,
            addition_embed_type: None,
            encoder_hid_dim: None,
            time_cond_proj_dim: None,
            resnet_time_scale_shift: "default".into(),
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

impl UNet2DConditionConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        refuse_unlike(&read_json(path)?, &WITHOUT)?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let levels = self.block_out_channels.len();
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            return fail("down_block_types", &self.down_block_types, "one type per entry of block_out_channels, down and up");
        }
        for (key, per_level) in [
            ("attention_head_dim", Some(&self.attention_head_dim)),
            ("num_attention_heads", self.num_attention_heads.as_ref()),
            ("transformer_layers_per_block", Some(&self.transformer_layers_per_block)),
        ] {
            if let Some(PerLevel::Each(values)) = per_level
                && values.len() != levels
            {
                return fail(key, values, "one number, or one per entry of block_out_channels");
            }
        }
        for kind in &self.down_block_types {
            if !matches!(kind.as_str(), "DownBlock2D" | "CrossAttnDownBlock2D") {
                return fail("down_block_types", kind, "DownBlock2D or CrossAttnDownBlock2D");
            }
        }
        for kind in &self.up_block_types {
            if !matches!(kind.as_str(), "UpBlock2D" | "CrossAttnUpBlock2D") {
                return fail("up_block_types", kind, "UpBlock2D or CrossAttnUpBlock2D");
            }
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if channels <= 0
                || self.norm_num_groups <= 0
                || channels % self.norm_num_groups != 0
                || channels % self.heads(level) != 0
            {
                return fail("block_out_channels", &channels, "a multiple of norm_num_groups and of the number of heads");
            }
        }
        if self.mid_block_type.as_deref() != Some("UNetMidBlock2DCrossAttn") {
            return fail("mid_block_type", &self.mid_block_type, "UNetMidBlock2DCrossAttn");
        }
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return fail("act_fn", &self.act_fn, "silu");
        }
        if self.only_cross_attention != serde_json::Value::Bool(false) {
            return fail("only_cross_attention", &self.only_cross_attention, "false");
        }
        for (key, set) in [("center_input_sample", self.center_input_sample), ("dual_cross_attention", self.dual_cross_attention)]
        {
            if set {
                return fail(key, &set, "false");
            }
        }
        for (key, value) in [("class_embed_type", &self.class_embed_type), ("addition_embed_type", &self.addition_embed_type)] {
            if value.is_some() {
                return fail(key, value, "null");
            }
        }
        for (key, value) in [
            ("num_class_embeds", self.num_class_embeds),
            ("encoder_hid_dim", self.encoder_hid_dim),
            ("time_cond_proj_dim", self.time_cond_proj_dim),
        ] {
            if value.is_some() {
                return fail(key, &value, "null");
            }
        }
        if self.resnet_time_scale_shift != "default" {
            return fail("resnet_time_scale_shift", &self.resnet_time_scale_shift, "default");
        }
        if self.mid_block_scale_factor != 1. {
            return fail("mid_block_scale_factor", &self.mid_block_scale_factor, "1");
        }
        if self.downsample_padding != 1 {
            return fail("downsample_padding", &self.downsample_padding, "1");
        }
        for (key, size) in [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)] {
            if size != 3 {
                return fail(key, &size, "3");
            }
        }
        Ok(())
    }

    fn heads(&self, level: usize) -> i64 {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(level).max(1)
    }

    fn transformer(&self, level: usize) -> Transformer2DConfig {
        Transformer2DConfig {
            channels: self.block_out_channels[level],
            context: self.cross_attention_dim,
            heads: self.heads(level),
            depth: self.transformer_layers_per_block.at(level),
            groups: self.norm_num_groups,
            linear_projection: self.use_linear_projection,
        }
    }
}

/// What the denoiser attends to: keys and values of every cross-attention, computed once for a prompt.
#[derive(Debug)]
pub struct Context {
    layers: Vec<CrossKv>,
    rows: i64,
}

impl Context {
    /// Rows of several contexts, one after another.
    ///
    /// # Panics
    /// When there is none, or they are of different networks.
    pub fn cat(contexts: &[&Context]) -> Self {
        let layers = contexts[0].layers.len();
        let layers =
            (0..layers).map(|i| CrossKv::cat(&contexts.iter().map(|context| &context.layers[i]).collect::<Vec<_>>())).collect();
        Self { layers, rows: contexts.iter().map(|context| context.rows).sum() }
    }

    /// The rows `from .. from + count`.
    pub fn rows(&self, from: i64, count: i64) -> Self {
        Self { layers: self.layers.iter().map(|layer| layer.rows(from, count)).collect(), rows: count }
    }

    /// Number of rows.
    pub fn len(&self) -> i64 {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

#[derive(Debug)]
struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    width: i64,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl TimeEmbedding {
    fn new(w: &Weights, config: &UNet2DConditionConfig) -> Self {
        let width = config.block_out_channels[0];
        Self {
            linear_1: Linear::new(&w.sub("linear_1"), width, width * 4),
            linear_2: Linear::new(&w.sub("linear_2"), width * 4, width * 4),
            width,
            flip_sin_to_cos: config.flip_sin_to_cos,
            freq_shift: config.freq_shift,
        }
    }

    /// `t` float32 `[B]` → `[B, 4·width]` in `kind`. Sinusoids in float32 (Vaswani et al. 2017, section 3.5).
    fn forward(&self, t: &Tensor, kind: Kind) -> Tensor {
        let half = self.width / 2;
        let frequencies = Tensor::arange(half, (Kind::Float, t.device())) * (-(10000f64.ln()) / (half as f64 - self.freq_shift));
        let angles = t.to_kind(Kind::Float).unsqueeze(1) * frequencies.exp().unsqueeze(0); // [B, half]
        let (sin, cos) = (angles.sin(), angles.cos());
        let sinusoids = if self.flip_sin_to_cos { Tensor::cat(&[cos, sin], 1) } else { Tensor::cat(&[sin, cos], 1) };
        self.linear_2.forward(&silu(&self.linear_1.forward(&sinusoids.to_kind(kind))))
    }
}

#[derive(Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2D>,
    downsampler: Option<Downsample2D>,
}

#[derive(Debug)]
struct MidBlock {
    resnet_0: ResnetBlock2D,
    attention: Transformer2D,
    resnet_1: ResnetBlock2D,
}

#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2D>,
    upsampler: Option<Upsample2D>,
}

/// The denoiser: noised latents, timesteps and context → prediction.
#[derive(Debug)]
pub struct UNet2DCondition {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UNet2DConditionConfig,
    layout: Layout,
    kind: Kind,
    device: Device,
}

impl UNet2DCondition {
    /// Builds what `config` describes (it must have passed [`UNet2DConditionConfig::check`]).
    pub fn new(w: &Weights, config: &UNet2DConditionConfig) -> Self {
        let channels = &config.block_out_channels;
        let (levels, layers) = (channels.len(), config.layers_per_block);
        let (groups, eps, time) = (config.norm_num_groups, config.norm_eps, Some(channels[0] * 4));
        let transformer = |w: &Weights, level| Transformer2D::new(w, config.transformer(level));

        let conv_in = Conv2d::new(&w.sub("conv_in"), config.in_channels, channels[0], 3);
        let time_embedding = TimeEmbedding::new(&w.sub("time_embedding"), config);

        let mut skips = vec![channels[0]];
        let mut input = channels[0];
        let mut down_blocks = Vec::new();
        for (level, kind) in config.down_block_types.iter().enumerate() {
            let (w, output, last) = (w.sub("down_blocks").sub(level), channels[level], level + 1 == levels);
            let mut block = DownBlock { resnets: vec![], attentions: vec![], downsampler: None };
            for layer in 0..layers {
                block.resnets.push(ResnetBlock2D::new(&w.sub("resnets").sub(layer), input, output, time, groups, eps));
                if kind == "CrossAttnDownBlock2D" {
                    block.attentions.push(transformer(&w.sub("attentions").sub(layer), level));
                }
                input = output;
                skips.push(output);
            }
            if !last {
                block.downsampler = Some(Downsample2D::symmetric(&w.sub("downsamplers").sub(0), output));
                skips.push(output);
            }
            down_blocks.push(block);
        }

        let mid = w.sub("mid_block");
        let mid_resnet = |i: i64| ResnetBlock2D::new(&mid.sub("resnets").sub(i), input, input, time, groups, eps);
        let mid_block = MidBlock {
            resnet_0: mid_resnet(0),
            attention: transformer(&mid.sub("attentions").sub(0), levels - 1),
            resnet_1: mid_resnet(1),
        };

        let mut up_blocks = Vec::new();
        for (i, kind) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let (w, output, last) = (w.sub("up_blocks").sub(i), channels[level], level == 0);
            let mut block = UpBlock { resnets: vec![], attentions: vec![], upsampler: None };
            for layer in 0..=layers {
                let skip = skips.pop().expect("a skip for every residual block on the way up");
                let resnet = ResnetBlock2D::new(&w.sub("resnets").sub(layer), input + skip, output, time, groups, eps);
                block.resnets.push(resnet);
                if kind == "CrossAttnUpBlock2D" {
                    block.attentions.push(transformer(&w.sub("attentions").sub(layer), level));
                }
                input = output;
            }
            if !last {
                block.upsampler = Some(Upsample2D::new(&w.sub("upsamplers").sub(0), output));
            }
            up_blocks.push(block);
        }

        Self {
            conv_in,
            time_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(&w.sub("conv_norm_out"), groups, channels[0], eps),
            conv_out: Conv2d::zeroed(&w.sub("conv_out"), channels[0], config.out_channels, 3),
            config: config.clone(),
            layout: w.layout(),
            kind: w.kind(),
            device: w.device(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// Its dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Keys and values of every cross-attention for the tokens `[B, L, D]`: once per prompt, not per step.
    pub fn context(&self, tokens: &Tensor) -> Context {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        let up = self.up_blocks.iter().flat_map(|block| &block.attentions);
        let attentions = down.chain(std::iter::once(&self.mid_block.attention)).chain(up);
        let layers = attentions.flat_map(|attention| attention.cross_kv(tokens)).collect();
        Context { layers, rows: tokens.size()[0] }
    }

    /// `x` `[B, C, H, W]` in the network's dtype, `t` float32 `[B]`, `context` of `B` rows → `[B, C', H, W]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor, context: &Context) -> Tensor {
        let mut kv = context.layers.iter();
        let time = silu(&self.time_embedding.forward(t, x.kind())); // [B, 4·C₀]
        let time = Some(&time);

        let mut h = self.conv_in.forward(&in_layout(x, self.layout));
        let mut skips = vec![h.shallow_clone()];
        for block in &self.down_blocks {
            for (i, resnet) in block.resnets.iter().enumerate() {
                h = resnet.forward(&h, time);
                if let Some(attention) = block.attentions.get(i) {
                    h = attention.forward(&h, &mut kv);
                }
                skips.push(h.shallow_clone());
            }
            if let Some(downsampler) = &block.downsampler {
                h = downsampler.forward(&h);
                skips.push(h.shallow_clone());
            }
        }

        h = self.mid_block.resnet_0.forward(&h, time);
        h = self.mid_block.attention.forward(&h, &mut kv);
        h = self.mid_block.resnet_1.forward(&h, time);

        for block in &self.up_blocks {
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
                h = upsampler.forward(&h, (height, width));
            }
        }
        self.conv_out.forward(&silu(&self.conv_norm_out.forward(&h)))
    }
}
