//! The CLIP text encoder (Radford et al. 2021), as transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::adapters::Slots;
use crate::attention::attention;
use crate::blocks::{Embedding, LayerNorm, Linear};
use crate::config::{ConfigError, read_json};
use crate::weights::{Init, Weights};

/// `text_encoder/config.json`, with the defaults of transformers' class.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Token ids.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Width inside the feed-forward layers.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads.
    pub num_attention_heads: i64,
    /// Tokens at most, with the two marks at the ends.
    pub max_position_embeddings: i64,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// ε of the normalisations.
    pub layer_norm_eps: f64,
    /// The token that the pooled output is read at, where it first stands. 2 or none: at the largest id, which is how files
    /// older than transformers 4.31, and OpenCLIP, have it.
    pub eos_token_id: Option<i64>,
    /// Width of the projected pooled output, where there is a projection.
    pub projection_dim: Option<i64>,
    /// The class that the file was saved from: `CLIPTextModel` or `CLIPTextModelWithProjection`.
    pub architectures: Option<Vec<String>>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: Some(49407),
            projection_dim: Some(512),
            architectures: None,
        }
    }
}

/// The class with a projection of the pooled output.
const PROJECTED: &str = "CLIPTextModelWithProjection";

impl ClipTextConfig {
    /// CLIP ViT-L/14 of OpenAI: Stable Diffusion 1.x, and the first encoder of SDXL.
    pub fn vit_l14() -> Self {
        Self { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12, eos_token_id: Some(2), ..Self::default() }
    }

    /// OpenCLIP ViT-H/14 without its last layer, which Stable Diffusion 2.x does not use (v2-inference.yaml, `penultimate`).
    pub fn vit_h14() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 23,
            num_attention_heads: 16,
            hidden_act: "gelu".into(),
            eos_token_id: Some(2),
            ..Self::default()
        }
    }

    /// OpenCLIP ViT-bigG/14 with its projection: the second encoder of SDXL, the only one of its refiner.
    pub fn vit_bigg14() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            hidden_act: "gelu".into(),
            eos_token_id: Some(2),
            projection_dim: Some(1280),
            architectures: Some(vec![PROJECTED.into()]),
            ..Self::default()
        }
    }

    /// Whether the pooled output is projected.
    pub fn has_projection(&self) -> bool {
        self.architectures.iter().flatten().any(|name| name == PROJECTED)
    }

    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if Activation::named(&self.hidden_act).is_none() {
            return Err(ConfigError::unsupported("hidden_act", &self.hidden_act, "quick_gelu or gelu"));
        }
        if self.num_attention_heads <= 0 || self.hidden_size % self.num_attention_heads != 0 {
            let why = "a divisor of hidden_size";
            return Err(ConfigError::unsupported("num_attention_heads", self.num_attention_heads, why));
        }
        if self.max_position_embeddings < 3 {
            return Err(ConfigError::unsupported("max_position_embeddings", self.max_position_embeddings, "at least 3"));
        }
        if self.num_hidden_layers < 1 {
            return Err(ConfigError::unsupported("num_hidden_layers", self.num_hidden_layers, "at least 1"));
        }
        if self.has_projection() && self.projection_dim.is_none_or(|width| width < 1) {
            return Err(ConfigError::unsupported("projection_dim", self.projection_dim, "at least 1 with a projection"));
        }
        Ok(())
    }

    /// Refuses a readout from below the first layer.
    pub fn check_readout(&self, readout: Readout) -> Result<(), ConfigError> {
        if (1..=self.num_hidden_layers).contains(&readout.layer) {
            return Ok(());
        }
        Err(ConfigError::unsupported("clip_skip", readout.layer, "from 1, the last layer, to the number of layers"))
    }
}

/// Where vectors leave the encoder: after which layer, and whether through the final normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Counted from the end as in transformers' `hidden_states[-layer]`: 1 is the last layer, 2 the penultimate.
    pub layer: i64,
    /// Through the final normalisation.
    pub normed: bool,
}

impl Readout {
    /// Stable Diffusion 1.x, and 2.x whose files stop at the layer that is used.
    pub const LAST: Self = Self { layer: 1, normed: true };
    /// Both encoders of SDXL.
    pub const PENULTIMATE: Self = Self { layer: 2, normed: false };

    /// `layers` layers earlier, normalised or not as before: diffusers' `clip_skip` = `layers`. A1111 counts from 1, so its
    /// "Clip skip" is `layers + 1`; it leaves SDXL as it is.
    pub fn skipping(self, layers: i64) -> Self {
        Self { layer: self.layer.saturating_add(layers), ..self }
    }
}

/// A vector in place of a token's embedding.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The row of the batch.
    pub row: i64,
    /// The token's place in the row.
    pub position: i64,
    /// `[D]`.
    pub vector: &'a Tensor,
}

#[derive(Clone, Copy, Debug)]
enum Activation {
    /// x · sigmoid(1.702 x)
    QuickGelu,
    /// With the error function.
    Gelu,
}

impl Activation {
    fn named(name: &str) -> Option<Self> {
        match name {
            "quick_gelu" => Some(Self::QuickGelu),
            "gelu" => Some(Self::Gelu),
            _ => None,
        }
    }

    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
            Self::Gelu => x.gelu("none"),
        }
    }
}

#[derive(Debug)]
struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    self_attn: SelfAttention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Layer {
    fn new(w: &Weights, config: &ClipTextConfig) -> Self {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attn = w.sub("self_attn");
        let linear = |name| Linear::new(&attn.sub(name), width, width);
        Self {
            layer_norm1: LayerNorm::new(&w.sub("layer_norm1"), width, eps),
            self_attn: SelfAttention {
                q_proj: linear("q_proj"),
                k_proj: linear("k_proj"),
                v_proj: linear("v_proj"),
                out_proj: linear("out_proj"),
                heads: config.num_attention_heads,
            },
            layer_norm2: LayerNorm::new(&w.sub("layer_norm2"), width, eps),
            fc1: Linear::new(&w.sub("mlp").sub("fc1"), width, inner),
            fc2: Linear::new(&w.sub("mlp").sub("fc2"), inner, width),
            activation: Activation::named(&config.hidden_act).unwrap_or(Activation::QuickGelu),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let SelfAttention { q_proj, k_proj, v_proj, out_proj, heads } = &self.self_attn;
        let h = self.layer_norm1.forward(x);
        let h = attention(&q_proj.forward(&h), &k_proj.forward(&h), &v_proj.forward(&h), *heads, true);
        let x = x + out_proj.forward(&h);
        let h = self.activation.forward(&self.fc1.forward(&self.layer_norm2.forward(&x)));
        &x + self.fc2.forward(&h)
    }
}

fn through(h: Tensor, layers: &[Layer]) -> Tensor {
    layers.iter().fold(h, |h, layer| layer.forward(&h))
}

/// Token ids to one vector per token.
#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    config: ClipTextConfig,
    slots: Slots,
}

impl ClipTextModel {
    /// Builds what `config` describes (it must have passed [`ClipTextConfig::check`]).
    pub fn new(w: &Weights, config: &ClipTextConfig) -> Self {
        let projected = config.projection_dim.filter(|_| config.has_projection());
        let text_projection = projected.map(|output| Linear::without_bias(&w.sub("text_projection"), config.hidden_size, output));
        let (root, w) = (w, w.sub("text_model"));
        let (embeddings, layers) = (w.sub("embeddings"), w.sub("encoder").sub("layers"));
        let (width, positions) = (config.hidden_size, config.max_position_embeddings);
        Self {
            token_embedding: Embedding::new(&embeddings.sub("token_embedding"), config.vocab_size, width, 0.02),
            position_embedding: embeddings.sub("position_embedding").tensor("weight", &[positions, width], Init::Normal(0.01)),
            layers: (0..config.num_hidden_layers).map(|i| Layer::new(&layers.sub(i), config)).collect(),
            final_layer_norm: LayerNorm::new(&w.sub("final_layer_norm"), width, config.layer_norm_eps),
            text_projection,
            config: config.clone(),
            // After all layers: fields are built in this order.
            slots: root.slots(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Places for adapters, by the layer's path.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.position_embedding.device()
    }

    /// int64 `[B, L]` → `[B, L, D]`: the last layer's output after the final normalisation, in the weights' dtype.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.forward_as(ids, self.token_embedding.kind())
    }

    /// As [`forward`](Self::forward), computed in `kind`.
    pub fn forward_as(&self, ids: &Tensor, kind: Kind) -> Tensor {
        self.encode(ids, &[], Readout::LAST, kind)
    }

    /// int64 `[B, L]` → `[B, L, D]`: what `readout` says, computed in `kind`, with `vectors` in place of some tokens'
    /// embeddings (the positions' are added to both).
    pub fn encode(&self, ids: &Tensor, vectors: &[Placed<'_>], readout: Readout, kind: Kind) -> Tensor {
        let h = through(self.embed(ids, vectors, kind), &self.layers[..self.cut(readout)]);
        if readout.normed { self.final_layer_norm.forward(&h) } else { h }
    }

    /// [`encode`](Self::encode)d, and the pooled output `[B, P]`: the last layer's normalised vector at the end mark, projected
    /// if this model has a projection (CLIPTextModelWithProjection's `text_embeds`).
    pub fn encode_pooled(&self, ids: &Tensor, vectors: &[Placed<'_>], readout: Readout, kind: Kind) -> (Tensor, Tensor) {
        let (before, after) = self.layers.split_at(self.cut(readout));
        let read = through(self.embed(ids, vectors, kind), before);
        let last = self.final_layer_norm.forward(&through(read.shallow_clone(), after)); // [B, L, D]
        let width = self.config.hidden_size;
        let at = self.ends(ids).view([-1, 1, 1]).expand([-1, 1, width], false);
        let pooled = last.gather(1, &at, false).squeeze_dim(1); // [B, D]
        let pooled = self.text_projection.as_ref().map_or(pooled.shallow_clone(), |projection| projection.forward(&pooled));
        (if readout.normed { self.final_layer_norm.forward(&read) } else { read }, pooled)
    }

    /// Layers up to the readout.
    fn cut(&self, readout: Readout) -> usize {
        self.layers.len().saturating_sub(usize::try_from(readout.layer.saturating_sub(1)).unwrap_or(0))
    }

    fn embed(&self, ids: &Tensor, vectors: &[Placed<'_>], kind: Kind) -> Tensor {
        let tokens = self.token_embedding.forward(ids);
        for placed in vectors {
            tokens.select(0, placed.row).select(0, placed.position).copy_(placed.vector);
        }
        (tokens + self.position_embedding.narrow(0, 0, ids.size()[1])).to_kind(kind) // [B, L, D]
    }

    /// Where the pooled output is read, `[B]`: the first of the end marks, or of the largest ids.
    fn ends(&self, ids: &Tensor) -> Tensor {
        match self.config.eos_token_id {
            None | Some(2) => ids.argmax(1, false),
            Some(end) => ids.eq(end).to_kind(Kind::Int).argmax(1, false),
        }
    }

    /// Adds the `text_model.` prefix where a file lacks it, and drops the buffer of positions.
    pub fn canonical_name(name: &str) -> Option<String> {
        if name.ends_with("embeddings.position_ids") {
            return None;
        }
        let whole = name.starts_with("text_model.") || name == "text_projection.weight";
        Some(if whole { name.to_owned() } else { format!("text_model.{name}") })
    }
}
