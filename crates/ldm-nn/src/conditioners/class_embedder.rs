//! A class as a context of one token (latent-diffusion, encoders/modules.py `ClassEmbedder`).

use serde::Deserialize;
use tch::Tensor;

use crate::blocks::Embedding;
use crate::weights::Weights;

/// `cond_stage_config.params` of an original configuration, with the class's defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ClassEmbedderConfig {
    /// Width of the context.
    pub embed_dim: i64,
    /// Classes; with 1001 of ImageNet's 1000 the last is "no class", the unconditional one (cin256-v2).
    #[serde(default = "imagenet")]
    pub n_classes: i64,
}

fn imagenet() -> i64 {
    1000
}

/// One vector per class; `embedding.weight` of the original checkpoint.
#[derive(Debug)]
pub struct ClassEmbedder {
    embedding: Embedding,
    config: ClassEmbedderConfig,
}

impl ClassEmbedder {
    /// As `config` says.
    pub fn new(w: &Weights, config: &ClassEmbedderConfig) -> Self {
        let embedding = Embedding::new(&w.sub("embedding"), config.n_classes, config.embed_dim, 1.);
        Self { embedding, config: config.clone() }
    }

    /// What it was built from; classes run from 0 to `n_classes - 1`.
    pub fn config(&self) -> &ClassEmbedderConfig {
        &self.config
    }

    /// int64 `[B]` → `[B, 1, D]`.
    pub fn forward(&self, classes: &Tensor) -> Tensor {
        self.embedding.forward(&classes.unsqueeze(1))
    }
}
