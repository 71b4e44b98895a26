//! `latentd reconstruct`: a picture through a first stage and back.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ldm_core::Rounding;
use ldm_pipeline::{Device, Dtype, LoadOptions};

use super::files;
use crate::exit::Usage;
use crate::telemetry;

/// Arguments of `latentd reconstruct`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first stage: a diffusers directory (a pipeline's or an autoencoder's own), or a file in the original layout.
    #[arg(long, value_name = "DIR|FILE")]
    model: PathBuf,
    /// What describes a file: a published .yaml, a card's .toml, or the name of one of our cards; looked for beside the file.
    #[arg(long, value_name = "FILE|NAME")]
    config: Option<PathBuf>,
    /// A PNG, JPEG or WebP picture, whose sides are multiples of the first stage's factor.
    #[arg(long, value_name = "FILE")]
    init_image: PathBuf,
    /// How numbers become bytes: round, or truncate as CompVis' scripts do.
    #[arg(long, value_parser = super::generate::rounding, default_value = "round")]
    rounding: Rounding,
    /// Number format of the network: f32, bf16 or f16.
    #[arg(long, default_value_t)]
    dtype: Dtype,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
    /// Threads that compute on a CPU; libtorch chooses when it is not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The picture, a .png, .jpg or .webp file.
    #[arg(long, value_name = "FILE", default_value = "picture.png")]
    out: PathBuf,
    /// The latent (the posterior's mode, at the denoiser's scale) as .npy or .safetensors, float32.
    #[arg(long, value_name = "FILE")]
    latents_out: Option<PathBuf>,
    /// The picture before rounding as .npy or .safetensors, float32 in about [-1, 1].
    #[arg(long, value_name = "FILE")]
    image_out: Option<PathBuf>,
}

/// Encodes, decodes, writes.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    telemetry::at_terminal()?;
    for (flag, path) in [("latents-out", &args.latents_out), ("image-out", &args.image_out)] {
        path.as_deref().map_or(Ok(()), |path| files::check_tensor_name(flag, path))?;
    }
    let picture = files::picture("init-image", &args.init_image)?;
    let options = LoadOptions { device: args.device, dtype: args.dtype, threads: args.threads, ..LoadOptions::default() };
    let made = ldm_pipeline::reconstruct(&args.model, args.config.as_deref(), &options, &picture, args.rounding)
        .map_err(|error| Usage(error.to_string()))?;
    let raster = &made.picture;
    let pixels = image::RgbImage::from_raw(raster.width(), raster.height(), raster.data().to_vec()).context("a picture")?;
    pixels.save(&args.out).with_context(|| args.out.display().to_string())?;
    for (path, name, tensor) in [(&args.latents_out, "latent", &made.latent), (&args.image_out, "image", &made.image)] {
        if let Some(path) = path {
            files::write_tensor(path, name, tensor).with_context(|| path.display().to_string())?;
        }
    }
    let squared: f64 = raster.data().iter().zip(picture.data()).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let mse = squared / raster.data().len() as f64;
    let psnr = if mse > 0. { format!("{:.2} dB", 10. * (255. * 255. / mse).log10()) } else { "exact".to_owned() };
    println!("{}: PSNR {psnr}", args.out.display());
    Ok(ExitCode::SUCCESS)
}
