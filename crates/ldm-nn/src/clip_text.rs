//! The CLIP text encoder (Radford et al. 2021), as transformers' `CLIPTextModel`.

use std::path::Path;

use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::attention::attention;
use crate::blocks::{Embedding, LayerNorm, Linear};
use crate::config::{ConfigError, read_json};
use crate::weights::{Init, Weights};

/// `text_encoder/config.json`, with the defaults of transformers' class.
#[derive(Clone, Debug, Deserialize)]
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
        }
    }
}

impl ClipTextConfig {
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
        Ok(())
    }
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

/// Token ids to one vector per token.
#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    config: ClipTextConfig,
}

impl ClipTextModel {
    /// Builds what `config` describes (it must have passed [`ClipTextConfig::check`]).
    pub fn new(w: &Weights, config: &ClipTextConfig) -> Self {
        let w = w.sub("text_model");
        let (embeddings, layers) = (w.sub("embeddings"), w.sub("encoder").sub("layers"));
        let (width, positions) = (config.hidden_size, config.max_position_embeddings);
        Self {
            token_embedding: Embedding::new(&embeddings.sub("token_embedding"), config.vocab_size, width, 0.02),
            position_embedding: embeddings.sub("position_embedding").tensor("weight", &[positions, width], Init::Normal(0.01)),
            layers: (0..config.num_hidden_layers).map(|i| Layer::new(&layers.sub(i), config)).collect(),
            final_layer_norm: LayerNorm::new(&w.sub("final_layer_norm"), width, config.layer_norm_eps),
            config: config.clone(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// int64 `[B, L]` → `[B, L, D]`: the last layer's output after the final normalisation, in the weights' dtype.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.forward_as(ids, self.token_embedding.kind())
    }

    /// As [`forward`](Self::forward), computed in `kind`.
    pub fn forward_as(&self, ids: &Tensor, kind: Kind) -> Tensor {
        let tokens = ids.size()[1];
        let mut h = self.token_embedding.forward(ids) + self.position_embedding.narrow(0, 0, tokens); // [B, L, D]
        h = h.to_kind(kind);
        for layer in &self.layers {
            h = layer.forward(&h);
        }
        self.final_layer_norm.forward(&h)
    }

    /// Adds the `text_model.` prefix where a file lacks it, and drops the buffer of positions.
    pub fn canonical_name(name: &str) -> Option<String> {
        if name.ends_with("embeddings.position_ids") {
            return None;
        }
        Some(if name.starts_with("text_model.") { name.to_owned() } else { format!("text_model.{name}") })
    }
}
