//! Training configurations, `config/train/*.toml`. Unknown keys are errors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What both trainings share.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Loop {
    /// Directory of checkpoints, logs, sample grids and the export.
    pub out: PathBuf,
    /// Seed of initial parameters, pictures, crops and noise.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Pictures per step.
    pub batch: i64,
    /// Side of the pictures, pixels.
    pub size: usize,
    /// Peak learning rate; a cosine leads it to 2 % of that.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises.
    pub warmup: u64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW's β₂.
    pub beta2: f64,
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Decay of the exponential moving average of parameters.
    pub ema: f64,
    /// `bf16` or `f32`: the dtype of activations; parameters are float32.
    pub dtype: Dtype,
    /// Steps between lines of the loss log.
    pub log_every: u64,
    /// Steps between sample grids with a measurement.
    pub sample_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

/// The dtype of activations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// float32.
    F32,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    pub(crate) fn kind(self) -> tch::Kind {
        match self {
            Self::F32 => tch::Kind::Float,
            Self::Bf16 => tch::Kind::BFloat16,
        }
    }
}

impl Loop {
    /// Learning rate at a step: linear rise, then a cosine to 2 % (Loshchilov & Hutter 2017).
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.);
        let done = (step as f64 / self.steps.max(1) as f64).min(1.);
        let cosine = 0.5 * (1. + (std::f64::consts::PI * done).cos());
        self.learning_rate * rise * (0.02 + 0.98 * cosine)
    }

    /// Seeds everything random in a step, so that a resumed training is the same as one that never stopped.
    pub(crate) fn seed_step(&self, step: u64) {
        tch::manual_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step) as i64);
    }

    fn check(&self) -> Result<()> {
        ensure!(self.steps > 0 && self.batch > 0, "`steps` and `batch` must be positive");
        ensure!((16..=512).contains(&self.size), "`size` must be from 16 to 512, not {}", self.size);
        ensure!(self.learning_rate > 0. && self.clip > 0., "`learning_rate` and `clip` must be positive");
        ensure!((0. ..1.).contains(&self.ema), "`ema` must be from 0 to below 1, not {}", self.ema);
        ensure!(self.log_every > 0 && self.sample_every > 0 && self.checkpoint_every > 0, "`…_every` must be positive");
        Ok(())
    }
}

/// `latentd train autoencoder`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderRun {
    /// The loop.
    pub train: Loop,
    /// An exported autoencoder of one level less that training starts from, instead of from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_from: Option<PathBuf>,
    /// Side of the random crops that are trained on: the network is convolutional.
    pub crop: i64,
    /// Weight of the KL term, per pixel and channel.
    pub kl_weight: f64,
    /// Pictures that the latents' standard deviation and the PSNR are measured on.
    pub held_out: usize,
    /// The network.
    pub vae: VaeShape,
}

/// Widths of the autoencoder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VaeShape {
    /// Channels of each level.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level of the encoder.
    pub layers_per_block: i64,
    /// Channels of latents.
    pub latent_channels: i64,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
    /// Attention in the middle.
    pub mid_block_add_attention: bool,
}

/// `latentd train diffusion`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionRun {
    /// The loop.
    pub train: Loop,
    /// The exported autoencoder: a directory with `vae/`.
    pub first_stage: PathBuf,
    /// An exported model of the same widths whose denoiser and text encoder training starts from, instead of from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Pictures that are encoded once, before the first step.
    pub pictures: u64,
    /// Share of captions that are dropped, for guidance without a classifier (Ho & Salimans 2022).
    pub caption_dropout: f64,
    /// `epsilon` or `v_prediction`.
    pub prediction: Prediction,
    /// The noise schedule, as diffusers names it.
    pub beta_schedule: String,
    /// Its first β.
    pub beta_start: f64,
    /// Its last β.
    pub beta_end: f64,
    /// γ of the min-SNR weights of the loss (Hang et al. 2023); without it every timestep weighs the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_snr_gamma: Option<f64>,
    /// Parts into which a batch is cut, for the trainer's threads; the gradient is the mean over them.
    #[serde(default = "one")]
    pub parts: i64,
    /// Held-out prompts of a measurement.
    pub prompts: usize,
    /// The denoiser.
    pub unet: UnetShape,
    /// The text encoder.
    pub text_encoder: TextShape,
    /// Defaults that the export suggests to servers.
    pub card: Card,
}

fn one() -> i64 {
    1
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity α·ε − σ·x₀ (Salimans & Ho 2022).
    VPrediction,
}

/// Widths of the denoiser.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnetShape {
    /// Channels of each level.
    pub block_out_channels: Vec<i64>,
    /// Residual blocks of each level.
    pub layers_per_block: i64,
    /// Which levels have a transformer.
    pub cross_attention: Vec<bool>,
    /// Heads.
    pub heads: i64,
    /// Groups of every normalisation.
    pub norm_num_groups: i64,
}

/// Widths of the text encoder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TextShape {
    /// Width.
    pub hidden_size: i64,
    /// Layers.
    pub layers: i64,
    /// Heads.
    pub heads: i64,
    /// Tokens of a prompt, with the two marks at its ends.
    pub tokens: i64,
}

/// Defaults for serving.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The sampler's canonical name.
    pub sampler: String,
    /// Steps.
    pub steps: u32,
    /// Guidance scale.
    pub guidance: f64,
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

impl AutoencoderRun {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self> {
        let run: Self = read(path)?;
        run.train.check()?;
        let factor = 1 << (run.vae.block_out_channels.len().max(1) - 1);
        ensure!(
            run.crop > 0 && run.crop % factor == 0 && run.crop <= run.train.size as i64,
            "`crop` must be a multiple of {factor} and at most `size`, not {}",
            run.crop
        );
        Ok(run)
    }
}

impl DiffusionRun {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self> {
        let run: Self = read(path)?;
        run.train.check()?;
        ensure!(
            (0. ..1.).contains(&run.caption_dropout),
            "`caption_dropout` must be from 0 to below 1, not {}",
            run.caption_dropout
        );
        ensure!(
            run.parts > 0 && run.train.batch % run.parts == 0,
            "`parts` must divide `batch` ({}), which {} does not",
            run.train.batch,
            run.parts
        );
        ensure!(run.min_snr_gamma.is_none_or(|gamma| gamma > 0.), "`min_snr_gamma` must be positive");
        ensure!(run.pictures >= run.train.batch as u64, "`pictures` must be at least `batch`");
        ensure!(
            run.unet.cross_attention.len() == run.unet.block_out_channels.len(),
            "`unet.cross_attention` must have one entry per entry of `unet.block_out_channels`"
        );
        Ok(run)
    }
}
