//! What the trainings measure: PSNR of reconstructions, and how many generated pictures show what their prompts say.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::grid::bytes;
use crate::scene::{self, Prompt};

/// Seed of every held-out scene and prompt: never a training seed.
pub(crate) const HELD_OUT_SEED: u64 = 0x6865_6c64;

/// Held-out scenes `[n, 3, size, size]` in [−1, 1].
pub(crate) fn held_out_pictures(n: usize, size: usize) -> Tensor {
    let (pixels, _) = scene::render_batch(HELD_OUT_SEED, 0, n, size);
    Tensor::from_slice(&pixels).view([n as i64, 3, size as i64, size as i64])
}

/// Peak signal-to-noise ratio in dB on a scale of [−1, 1], averaged over pictures.
pub(crate) fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let error = (a.to_kind(Kind::Float).clamp(-1., 1.) - b.to_kind(Kind::Float)) * 0.5;
    let mse = error.square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float);
    (mse.log10() * -10.).mean(Kind::Double).double_value(&[])
}

/// How many pictures show what was asked for.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Score {
    pub(crate) pictures: usize,
    pub(crate) background: f64,
    pub(crate) color: f64,
    pub(crate) shape: f64,
    pub(crate) all: f64,
}

/// Checks pictures `[n, 3, H, W]` in [−1, 1] against their prompts.
pub(crate) fn score(pictures: &Tensor, prompts: &[Prompt]) -> Result<Score> {
    let mut score = Score { pictures: prompts.len(), ..Score::default() };
    let share = 1. / prompts.len().max(1) as f64;
    for (i, prompt) in prompts.iter().enumerate() {
        let picture = pictures.get(i as i64).permute([1, 2, 0]); // [H, W, 3]
        let size = picture.size()[0] as usize;
        let found = scene::inspect(&bytes(&picture)?, size).matches(prompt);
        let add = |to: &mut f64, hit: bool| *to += if hit { share } else { 0. };
        add(&mut score.background, found.background);
        add(&mut score.color, found.color);
        add(&mut score.shape, found.shape);
        add(&mut score.all, found.background && found.color && found.shape);
    }
    Ok(score)
}
