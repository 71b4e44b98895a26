//! Numbers as vectors: sizes and crops of SDXL, normalised embeddings of retrieval.

use tch::Tensor;

use crate::unet::sinusoids;

/// Width of one size's sinusoids in SDXL (`addition_time_embed_dim`).
pub const SIZE_WIDTH: i64 = 256;

/// SDXL's numbers about a picture, in pixels (Podell et al. 2023, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Height and width of the picture that the training would have started from.
    pub original: [f64; 2],
    /// Rows and columns that were cut off at the top and left.
    pub crop: [f64; 2],
    /// Height and width that are asked for.
    pub target: [f64; 2],
}

impl Sizes {
    /// In the order of the base model (`time_ids`).
    pub fn base(self) -> [f64; 6] {
        let Self { original: [h, w], crop: [y, x], target: [height, width] } = self;
        [h, w, y, x, height, width]
    }

    /// In the order of the refiner, which reads an aesthetic score (6 by default, 2.5 for the negative prompt) instead of the
    /// target.
    pub fn refiner(self, aesthetic_score: f64) -> [f64; 5] {
        let Self { original: [h, w], crop: [y, x], .. } = self;
        [h, w, y, x, aesthetic_score]
    }
}

/// SDXL's vector of a row: pooled text `[B, P]` and the sinusoids of `numbers` (the same for each row), one after another →
/// `[B, P + 256·n]` in the dtype of the text: 2816 of the base model, 2560 of the refiner.
pub fn sdxl_vector(pooled: &Tensor, numbers: &[f64]) -> Tensor {
    let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
    let sizes = sinusoids(&Tensor::from_slice(&numbers).to_device(pooled.device()), SIZE_WIDTH, true, 0.).view([1, -1]);
    let rows = pooled.size()[0];
    Tensor::cat(&[pooled.shallow_clone(), sizes.expand([rows, -1], false).to_kind(pooled.kind())], 1)
}

/// Vectors of length 1, `[…, D]` → the same, as retrieval-augmented models read text and neighbours (Blattmann et al. 2022;
/// latent-diffusion, encoders/modules.py `FrozenCLIPTextEmbedder`). A vector of zeros, the unconditional one, stays.
pub fn normalised(x: &Tensor) -> Tensor {
    let length = x.norm_scalaropt_dim(2, [-1], true);
    x / length.where_self(&length.ne(0), &length.ones_like())
}
