//! `latentd train autoencoder|diffusion|evaluate`: trains what a configuration file describes; a second run resumes the first.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use ldm_pipeline::Device;
use ldm_train::{AutoencoderRun, DiffusionRun, autoencoder, denormals, diffusion};

use super::evaluate;
use crate::{signals, telemetry};

/// Arguments of `latentd train`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// The first stage: pictures to latents and back.
    Autoencoder(Run),
    /// The denoiser and its text encoder, on latents of a trained first stage.
    Diffusion {
        #[command(flatten)]
        run: Run,
        /// Threads that share the parts of each batch (`parts` in the file), each with one of libtorch's; 1 leaves libtorch its own.
        #[arg(long, default_value_t = 1)]
        workers: usize,
    },
    /// Measure a trained model on held-out scenes and prompts; prints JSON.
    Evaluate(evaluate::Args),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// What to train, such as config/train/autoencoder.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where: cpu or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
}

/// Trains to the configured number of steps, and exports. SIGTERM or SIGINT ends it after a step, with a checkpoint.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    denormals::flush();
    telemetry::at_terminal()?;
    let raised = signals::flag()?;
    let stop = || raised.load(Ordering::Relaxed);
    match &args.part {
        Part::Autoencoder(run) => autoencoder::train(&AutoencoderRun::read(&run.config)?, device(run.device)?, &stop)?,
        Part::Evaluate(args) => evaluate::run(args)?,
        Part::Diffusion { run, workers } => {
            diffusion::train(&DiffusionRun::read(&run.config)?, device(run.device)?, *workers, &stop)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn device(device: Device) -> Result<tch::Device> {
    match device {
        Device::Cpu => Ok(tch::Device::Cpu),
        Device::Cuda(index) => {
            ensure!(tch::Cuda::is_available() && (index as i64) < tch::Cuda::device_count(), "there is no device {device}");
            Ok(tch::Device::Cuda(index))
        }
    }
}
