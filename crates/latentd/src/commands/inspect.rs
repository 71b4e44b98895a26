//! `latentd inspect DIR|FILE`: what a model's files hold, without loading them.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use ldm_pipeline::{EmaChoice, ModelSource};

/// Arguments of `latentd inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A diffusers directory, or a .safetensors file in the original layout.
    path: PathBuf,
    /// What describes a file: a published .yaml, a card's .toml, or the name of one of our cards; looked for beside the file.
    #[arg(long, value_name = "FILE|NAME")]
    config: Option<PathBuf>,
    /// Which weights of a file's denoiser: auto, on (averaged) or off.
    #[arg(long, default_value_t)]
    ema: EmaChoice,
}

/// Prints family, parts, tasks and problems; problems make the exit code 1.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let source = ModelSource { config: args.config.clone(), ema: args.ema, ..ModelSource::new("", &args.path) };
    let inspection = ldm_pipeline::inspect_source(&source);
    write!(std::io::stdout(), "{inspection}")?;
    Ok(if inspection.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
