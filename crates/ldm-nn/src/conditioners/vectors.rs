//! Numbers as vectors: sizes and crops of SDXL, the guidance of LCMs, normalised embeddings of retrieval.

use tch::{Device, Kind, Tensor};

/// `[cos | sin]` of `values` at `width / 2` frequencies from 1 down to almost 1/10000, in float32 (Vaswani et al. 2017, section
/// 3.5; generative-models, diffusionmodules/util.py `timestep_embedding`): `[…]` → `[…, width]`, `width` even.
pub fn sinusoids(values: &Tensor, width: i64) -> Tensor {
    let half = width / 2;
    let exponents = Tensor::arange(half, (Kind::Float, values.device())) * -(10000f64.ln()) / half as f64;
    let angles = values.to_kind(Kind::Float).unsqueeze(-1) * exponents.exp();
    Tensor::cat(&[angles.cos(), angles.sin()], -1)
}

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
    let sizes = sinusoids(&Tensor::from_slice(&numbers).to_device(pooled.device()), SIZE_WIDTH).view([1, -1]);
    let rows = pooled.size()[0];
    Tensor::cat(&[pooled.shallow_clone(), sizes.expand([rows, -1], false).to_kind(pooled.kind())], 1)
}

/// A latent consistency model's guidance scales as float32 `[B, width]`, `[sin | cos]` of (scale − 1) · 1000, for
/// `time_embedding.cond_proj` (Luo et al. 2023; diffusers, `get_guidance_scale_embedding`); `width` is at least 4.
pub fn guidance_vector(scales: &[f64], width: i64, device: Device) -> Tensor {
    let half = width / 2;
    // In float32 from the start, as the reference: arguments of 10⁴ carry the rounding of the frequencies into the third digit.
    let step = 10000f32.ln() / (half - 1) as f32;
    let frequencies = (Tensor::arange(half, (Kind::Float, device)) * -f64::from(step)).exp();
    let scales: Vec<f32> = scales.iter().map(|scale| (scale - 1.) as f32).collect();
    let angles = (Tensor::from_slice(&scales).to_device(device) * 1000.).unsqueeze(1) * frequencies.unsqueeze(0);
    let vector = Tensor::cat(&[angles.sin(), angles.cos()], 1);
    if width % 2 == 0 { vector } else { vector.constant_pad_nd([0, 1]) }
}

/// Vectors of length 1, `[…, D]` → the same, as retrieval-augmented models read text and neighbours (Blattmann et al. 2022;
/// latent-diffusion, encoders/modules.py `FrozenCLIPTextEmbedder`). A vector of zeros, the unconditional one, stays.
pub fn normalised(x: &Tensor) -> Tensor {
    let length = x.norm_scalaropt_dim(2, [-1], true);
    x / length.where_self(&length.ne(0), &length.ones_like())
}
