//! Training the first stage: reconstruction of random crops with a small KL term.

use std::path::Path;

use anyhow::{Result, ensure};
use ldm_nn::{AutoencoderKl, AutoencoderKlConfig, Checkpoint, Variables, Weights};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::config::AutoencoderRun;
use crate::evaluate::{held_out_pictures, psnr};
use crate::log::Log;
use crate::optimizer::{Optimizer, gradient};
use crate::{checkpoint, export, grid, scene};

fn shape(run: &AutoencoderRun) -> AutoencoderKlConfig {
    let levels = run.vae.block_out_channels.len();
    AutoencoderKlConfig {
        block_out_channels: run.vae.block_out_channels.clone(),
        layers_per_block: run.vae.layers_per_block,
        latent_channels: run.vae.latent_channels,
        norm_num_groups: run.vae.norm_num_groups,
        mid_block_add_attention: run.vae.mid_block_add_attention,
        scaling_factor: 1.,
        sample_size: run.train.size as i64,
        down_block_types: vec!["DownEncoderBlock2D".into(); levels],
        up_block_types: vec!["UpDecoderBlock2D".into(); levels],
        force_upcast: false,
        ..AutoencoderKlConfig::default()
    }
}

/// A crop of `side` pixels from each picture, the same place for groups of four.
fn crops(pictures: &Tensor, side: i64, rng: &mut scene::Rng) -> Tensor {
    let (_, _, height, width) = pictures.size4().expect("pictures have four dimensions");
    let groups: Vec<_> = pictures
        .split(4, 0)
        .iter()
        .map(|group| {
            let top = rng.below((height - side + 1) as usize) as i64;
            let left = rng.below((width - side + 1) as usize) as i64;
            group.narrow(2, top, side).narrow(3, left, side)
        })
        .collect();
    Tensor::cat(&groups, 0)
}

/// Trains until the configured number of steps, resuming where a checkpoint says, and exports `out/vae`.
///
/// When `stop` says so after a step, the state is kept for the next start and nothing is exported.
pub fn train(run: &AutoencoderRun, device: Device, stop: &dyn Fn() -> bool) -> Result<()> {
    let settings = &run.train;
    let config = shape(run);
    config.check()?;
    std::fs::create_dir_all(&settings.out)?;
    tch::manual_seed(settings.seed as i64);
    let weights = Weights::fresh(device);
    let vae = AutoencoderKl::new(&weights, &config);
    let variables = weights.into_variables();
    if let Some(smaller) = &run.grow_from {
        grow(&variables, smaller)?;
    }
    let mut optimizer = Optimizer::new(&variables, settings);
    let start = checkpoint::resume(&settings.out, run, &mut optimizer)?;
    let held_out = held_out_pictures(run.held_out, settings.size).to_device(device);
    let kind = settings.dtype.kind();
    let mut log = Log::new(&settings.out, settings.steps, start, settings.log_every)?;
    log.line(json!({"parameters": optimizer.len(), "start": start}))?;

    for step in start..settings.steps {
        settings.seed_step(step);
        let (pixels, _) =
            scene::render_batch(settings.seed, step * settings.batch as u64, settings.batch as usize, settings.size);
        let side = settings.size as i64;
        let pictures = Tensor::from_slice(&pixels).view([settings.batch, 3, side, side]).to_device(device);
        let x = crops(&pictures, run.crop, &mut scene::Rng::at(settings.seed ^ 0x6372_6f70, step)); // [B, 3, crop, crop]
        let posterior = vae.encode(&x.to_kind(kind)).to_kind(Kind::Float);
        let z = posterior.sample(&posterior.mode().randn_like());
        let y = vae.decode(&z.to_kind(kind)).to_kind(Kind::Float);
        let loss = (&y - &x).square().mean(Kind::Float) + posterior.kl() * (run.kl_weight / (3 * run.crop * run.crop) as f64);
        let norm = optimizer.step(gradient(&variables, &loss), step);
        log.step(step + 1, loss.double_value(&[]), settings.learning_rate_at(step), norm)?;

        if (step + 1) % settings.sample_every == 0 || step + 1 == settings.steps {
            let measured = optimizer.with_average(|| measure(&vae, &held_out));
            log.line(json!({"step": step + 1, "psnr_db": measured.psnr, "latent_std": measured.std}))?;
            let pairs = Tensor::stack(&[&held_out, &measured.pictures], 1).narrow(0, 0, held_out.size()[0].min(32)).flatten(0, 1);
            grid::save(&pairs, 16, 2, &settings.out.join(format!("reconstructions-{:06}.png", step + 1)))?;
        }
        let stopped = stop() && step + 1 < settings.steps;
        if (step + 1) % settings.checkpoint_every == 0 || step + 1 == settings.steps || stopped {
            checkpoint::save(&settings.out, step + 1, run, &optimizer)?;
        }
        if stopped {
            return Ok(());
        }
    }
    let measured = optimizer.with_average(|| measure(&vae, &held_out));
    let config = AutoencoderKlConfig { scaling_factor: 1. / measured.std, ..config };
    export::vae(&settings.out, &config, &optimizer.averaged())?;
    log.line(json!({"exported": settings.out.join("vae"), "psnr_db": measured.psnr, "scaling_factor": config.scaling_factor}))?;
    log.finish();
    Ok(())
}

/// Starts from an exported autoencoder of one level less: the new level is the innermost one, all others keep what they know
/// (growing as in Karras et al. 2018, from the pixels inwards).
fn grow(variables: &Variables, smaller: &Path) -> Result<()> {
    let dir = smaller.join("vae");
    let checkpoint = Checkpoint::open(&dir, "diffusion_pytorch_model")?;
    let taken = variables.load_matching(&checkpoint, |name| match name.strip_prefix("decoder.up_blocks.") {
        // The decoder's levels are numbered from the innermost one.
        Some(rest) => {
            let (level, rest) = rest.split_once('.').unwrap_or((rest, ""));
            match level.parse::<i64>() {
                Ok(level) if level > 0 => format!("decoder.up_blocks.{}.{rest}", level - 1),
                _ => String::new(),
            }
        }
        None => name.to_owned(),
    });
    ensure!(taken > 0, "`grow_from`: no parameter of {} fits a level of this autoencoder", dir.display());
    Ok(())
}

struct Measured {
    psnr: f64,
    std: f64,
    pictures: Tensor,
}

/// Reconstruction from the mode of the posterior, and the spread of latents.
fn measure(vae: &AutoencoderKl, pictures: &Tensor) -> Measured {
    tch::no_grad(|| {
        let (mut latents, mut decoded) = (Vec::new(), Vec::new());
        for part in pictures.split(32, 0) {
            let z = vae.encode(&part).mode();
            decoded.push(vae.decode(&z));
            latents.push(z);
        }
        let decoded = Tensor::cat(&decoded, 0);
        let std = Tensor::cat(&latents, 0).std(true).double_value(&[]);
        Measured { psnr: psnr(&decoded, pictures), std, pictures: decoded }
    })
}
