//! `latentd convert IN OUT`: a PyTorch checkpoint as safetensors. Nothing in the checkpoint is run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ldm_formats::convert::{self, Cast, Options};
use ldm_formats::torch;

/// Arguments of `latentd convert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A .ckpt, .pt, .pth or .bin file.
    from: PathBuf,
    /// The .safetensors file.
    to: PathBuf,
    /// Float tensors are cast to this; otherwise their dtype is kept.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Replace OUT if it is there.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dtype {
    F16,
    Bf16,
    F32,
}

/// Converts, and says what was left out.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let cast = args.dtype.map(|dtype| match dtype {
        Dtype::F16 => Cast::F16,
        Dtype::Bf16 => Cast::Bf16,
        Dtype::F32 => Cast::F32,
    });
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {elapsed}")?);
    let summary = convert::convert(
        &args.from,
        &args.to,
        &torch::Options::default(),
        Options { cast, overwrite: args.overwrite },
        |progress| {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes);
        },
    )?;
    bar.finish_and_clear();
    for skipped in &summary.skipped {
        eprintln!("left out: {} ({})", skipped.key, skipped.what);
    }
    println!("{}: {} tensors, {:.1} MB", args.to.display(), summary.tensors, summary.bytes as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}
