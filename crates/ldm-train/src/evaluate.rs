//! What the trainings measure: PSNR of reconstructions, and how many generated pictures show what their prompts say.

use std::path::Path;

use anyhow::Result;
use ldm_nn::{AutoencoderKl, AutoencoderKlConfig, Checkpoint, Layout, Weights};
use tch::{Kind, Tensor};

use crate::grid::bytes;
use crate::scene::{self, Prompt};

/// Seed of every held-out scene and prompt: never a training seed.
pub const HELD_OUT_SEED: u64 = 0x6865_6c64;

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

/// How many pictures show what was asked for; shares are of 1.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Score {
    /// Pictures looked at.
    pub pictures: usize,
    /// Share with the right background.
    pub background: f64,
    /// Share whose largest object has the right colour.
    pub color: f64,
    /// Share whose largest object has the right shape.
    pub shape: f64,
    /// Share with all three right.
    pub all: f64,
}

impl Score {
    /// Counts of verdicts.
    pub fn of(matches: &[scene::Match]) -> Self {
        let share = |right: fn(&scene::Match) -> bool| {
            matches.iter().filter(|&found| right(found)).count() as f64 / matches.len().max(1) as f64
        };
        Self {
            pictures: matches.len(),
            background: share(|found| found.background),
            color: share(|found| found.color),
            shape: share(|found| found.shape),
            all: share(|found| found.all()),
        }
    }
}

/// Checks pictures `[n, 3, H, W]` in [−1, 1] against their prompts.
pub(crate) fn score(pictures: &Tensor, prompts: &[Prompt]) -> Result<Score> {
    let looked = prompts.iter().enumerate().map(|(i, prompt)| {
        let picture = pictures.get(i as i64).permute([1, 2, 0]); // [H, W, 3]
        let size = picture.size()[0] as usize;
        Ok(scene::inspect(&bytes(&picture)?, size).matches(prompt))
    });
    Ok(Score::of(&looked.collect::<Result<Vec<_>>>()?))
}

/// PSNR in dB of the reconstructions, from the posterior's mode, of `n` held-out scenes by the first stage in `dir/vae`.
pub fn reconstruction(dir: &Path, n: usize) -> Result<f64> {
    let vae = first_stage(dir, tch::Device::Cpu)?;
    let pictures = held_out_pictures(n, usize::try_from(vae.config().sample_size)?);
    let decoded: Vec<_> =
        tch::no_grad(|| pictures.split(32, 0).iter().map(|part| vae.decode(&vae.encode(part).mode())).collect());
    Ok(psnr(&Tensor::cat(&decoded, 0), &pictures))
}

/// Loads `dir/vae` for encoding and decoding, in float32.
pub(crate) fn first_stage(dir: &Path, device: tch::Device) -> Result<AutoencoderKl> {
    let dir = dir.join("vae");
    let config = AutoencoderKlConfig::read(&dir.join("config.json"))?;
    let checkpoint = Checkpoint::open(&dir, "diffusion_pytorch_model")?;
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, device, Layout::Contiguous);
    let vae = AutoencoderKl::new(&weights, &config);
    weights.finish()?;
    Ok(vae)
}
