//! `latentd inspect DIR`: what a model's directory holds, without loading it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

/// Arguments of `latentd inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A diffusers directory.
    dir: PathBuf,
}

/// Prints family, parts, tasks and problems; problems make the exit code 1.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let inspection = ldm_pipeline::inspect(&args.dir);
    write!(std::io::stdout(), "{inspection}")?;
    Ok(if inspection.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
