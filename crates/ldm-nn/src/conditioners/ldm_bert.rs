//! The text transformer that the paper trains with its denoisers (Rombach et al. 2022, Table 17), as diffusers' `LDMBertModel`
//! and latent-diffusion's `BERTEmbedder`: bidirectional, pre-norm, no mask of the padding.

use std::path::Path;

use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::attention::attention;
use crate::blocks::{Embedding, LayerNorm, Linear};
use crate::config::{ConfigError, read_json};
use crate::weights::{Init, Weights};

/// `bert/config.json`, with the defaults of diffusers' `LDMBertConfig`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct LdmBertConfig {
    /// Token ids.
    pub vocab_size: i64,
    /// Tokens at most, with the two marks at the ends.
    pub max_position_embeddings: i64,
    /// Layers.
    pub encoder_layers: i64,
    /// Width inside the feed-forward layers.
    pub encoder_ffn_dim: i64,
    /// Heads.
    pub encoder_attention_heads: i64,
    /// Width of a head; all heads together may be narrower or wider than the tokens.
    pub head_dim: i64,
    /// Width.
    pub d_model: i64,
    /// `gelu`.
    pub activation_function: String,
    /// Whether embeddings are scaled by √D: no published model has it.
    pub scale_embedding: bool,
}

impl Default for LdmBertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            max_position_embeddings: 77,
            encoder_layers: 32,
            encoder_ffn_dim: 5120,
            encoder_attention_heads: 8,
            head_dim: 64,
            d_model: 1280,
            activation_function: "gelu".into(),
            scale_embedding: false,
        }
    }
}

/// `cond_stage_config.params` of an original configuration whose target is `BERTEmbedder`, with that class's defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct BertEmbedderParams {
    /// Width.
    pub n_embed: i64,
    /// Layers.
    pub n_layer: i64,
    /// Token ids.
    #[serde(default = "bert_vocabulary")]
    pub vocab_size: i64,
    /// Tokens at most.
    #[serde(default = "clip_tokens")]
    pub max_seq_len: i64,
    /// Whether texts are conditions, rather than token ids that are made elsewhere (layouts).
    #[serde(default = "yes")]
    pub use_tokenizer: bool,
}

fn bert_vocabulary() -> i64 {
    30522
}

fn clip_tokens() -> i64 {
    77
}

fn yes() -> bool {
    true
}

impl From<&BertEmbedderParams> for LdmBertConfig {
    fn from(params: &BertEmbedderParams) -> Self {
        Self {
            vocab_size: params.vocab_size,
            max_position_embeddings: params.max_seq_len,
            encoder_layers: params.n_layer,
            encoder_ffn_dim: params.n_embed.saturating_mul(4),
            d_model: params.n_embed,
            ..Self::default()
        }
    }
}

impl LdmBertConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = read_json(path)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what this network does not have, rather than ignoring it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.activation_function != "gelu" {
            return Err(ConfigError::unsupported("activation_function", &self.activation_function, "gelu"));
        }
        if self.scale_embedding {
            return Err(ConfigError::unsupported("scale_embedding", true, "false"));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("encoder_layers", self.encoder_layers),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("head_dim", self.head_dim),
            ("d_model", self.d_model),
        ];
        match sizes.into_iter().find(|&(_, size)| !(1..=1 << 20).contains(&size)) {
            Some((key, size)) => Err(ConfigError::unsupported(key, size, "from 1 to 1048576")),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Layer {
    self_attn_layer_norm: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn new(w: &Weights, config: &LdmBertConfig) -> Self {
        let (width, inner) = (config.d_model, config.encoder_attention_heads * config.head_dim);
        let attn = w.sub("self_attn");
        let project = |name| Linear::without_bias(&attn.sub(name), width, inner);
        Self {
            self_attn_layer_norm: LayerNorm::new(&w.sub("self_attn_layer_norm"), width, EPS),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: Linear::new(&attn.sub("out_proj"), inner, width),
            heads: config.encoder_attention_heads,
            final_layer_norm: LayerNorm::new(&w.sub("final_layer_norm"), width, EPS),
            fc1: Linear::new(&w.sub("fc1"), width, config.encoder_ffn_dim),
            fc2: Linear::new(&w.sub("fc2"), config.encoder_ffn_dim, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.self_attn_layer_norm.forward(x);
        let (q, k, v) = (self.q_proj.forward(&h), self.k_proj.forward(&h), self.v_proj.forward(&h)); // [B, L, heads·d]
        let x = x + self.out_proj.forward(&attention(&q, &k, &v, self.heads, false));
        let h = self.fc1.forward(&self.final_layer_norm.forward(&x)).gelu("none");
        &x + self.fc2.forward(&h)
    }
}

/// ε of every normalisation.
const EPS: f64 = 1e-5;

/// Token ids to one vector per token. The output layer over the vocabulary, which checkpoints have, is not part of it.
#[derive(Debug)]
pub struct LdmBertModel {
    embed_tokens: Embedding,
    embed_positions: Tensor,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
    config: LdmBertConfig,
}

impl LdmBertModel {
    /// Builds what `config` describes (it must have passed [`LdmBertConfig::check`]).
    pub fn new(w: &Weights, config: &LdmBertConfig) -> Self {
        let w = w.sub("model");
        let (width, positions, layers) = (config.d_model, config.max_position_embeddings, w.sub("layers"));
        Self {
            embed_tokens: Embedding::new(&w.sub("embed_tokens"), config.vocab_size, width, 0.02),
            embed_positions: w.sub("embed_positions").tensor("weight", &[positions, width], Init::Normal(0.02)),
            layers: (0..config.encoder_layers).map(|i| Layer::new(&layers.sub(i), config)).collect(),
            layer_norm: LayerNorm::new(&w.sub("layer_norm"), width, EPS),
            config: config.clone(),
        }
    }

    /// What it was built from.
    pub fn config(&self) -> &LdmBertConfig {
        &self.config
    }

    /// int64 `[B, L]` → `[B, L, D]`, in the weights' dtype.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.forward_as(ids, self.embed_tokens.kind())
    }

    /// As [`forward`](Self::forward), computed in `kind`.
    pub fn forward_as(&self, ids: &Tensor, kind: Kind) -> Tensor {
        let tokens = ids.size()[1];
        let embedded = self.embed_tokens.forward(ids) + self.embed_positions.narrow(0, 0, tokens); // [B, L, D]
        let h = self.layers.iter().fold(embedded.to_kind(kind), |h, layer| layer.forward(&h));
        self.layer_norm.forward(&h)
    }

    /// Drops the output layer over the vocabulary, which conditioning does not use, and the buffer of positions.
    pub fn canonical_name(name: &str) -> Option<String> {
        (!name.starts_with("to_logits.") && !name.ends_with("position_ids")).then(|| name.to_owned())
    }
}
