//! `latentd convert IN OUT`: PyTorch checkpoints as safetensors, and models from one layout into the other. Nothing in a checkpoint
//! is run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use ldm_formats::convert::{self, Cast, Options, Progress};
use ldm_formats::torch;
use ldm_pipeline::convert::{ConvertOptions, Converted, to_diffusers, to_original};
use ldm_pipeline::{EmaChoice, ModelSource};

use crate::exit::Usage;

/// Arguments of `latentd convert`. The names say what becomes of IN: OUT ends in .safetensors, or is a directory of diffusers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A .ckpt, .pt, .pth or .bin file; a .safetensors file in the original layout; or a directory of diffusers.
    from: PathBuf,
    /// The .safetensors file, or the directory.
    to: PathBuf,
    /// What describes an original file: a published .yaml, a card's .toml, or the name of one of our cards; looked for beside it.
    #[arg(long, value_name = "FILE|NAME")]
    config: Option<PathBuf>,
    /// Which weights of an original file's denoiser become diffusers': auto, on (averaged) or off.
    #[arg(long, default_value_t)]
    ema: EmaChoice,
    /// Float tensors are cast to this; otherwise their dtype is kept.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Replace OUT if it is there.
    #[arg(long, visible_alias = "overwrite")]
    force: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dtype {
    F16,
    Bf16,
    F32,
}

/// What the two names ask for.
enum Way {
    Unpickle,
    ToDiffusers,
    ToOriginal,
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

impl Args {
    fn way(&self) -> Result<Way, Usage> {
        let (from, to) = (extension(&self.from), extension(&self.to));
        let wrong = |message: String| Err(Usage(message));
        if ["ckpt", "pt", "pth", "bin"].contains(&to) {
            return wrong(format!("OUT: a .safetensors file or a directory is written, not .{to}"));
        }
        match (self.from.is_dir(), to == "safetensors", from == "safetensors") {
            (true, true, _) => Ok(Way::ToOriginal),
            (true, false, _) => wrong("OUT: a directory becomes an original file, whose name must end in .safetensors".into()),
            (false, true, true) => wrong("IN and OUT are both .safetensors: give a directory for diffusers' layout".into()),
            (false, true, false) => Ok(Way::Unpickle),
            (false, false, _) => Ok(Way::ToDiffusers),
        }
    }
}

/// Converts, and says what was left out.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let way = args.way()?;
    let cast = args.dtype.map(|dtype| match dtype {
        Dtype::F16 => Cast::F16,
        Dtype::Bf16 => Cast::Bf16,
        Dtype::F32 => Cast::F32,
    });
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {elapsed}")?);
    let progress = |progress: Progress<'_>| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
    };
    let source = ModelSource { config: args.config.clone(), ema: args.ema, ..ModelSource::new("", &args.from) };
    let options = ConvertOptions { cast, force: args.force };
    let Converted { tensors, bytes, beside, left_out } = match way {
        Way::Unpickle => unpickled(args, Options { cast, overwrite: args.force }, progress)?,
        Way::ToDiffusers => to_diffusers(&source, &args.to, options, progress)?,
        Way::ToOriginal => to_original(&source, &args.to, options, progress)?,
    };
    bar.finish_and_clear();
    for (what, count) in &left_out {
        eprintln!("left out: {what}{}", if *count > 0 { format!(", {count} tensors") } else { String::new() });
    }
    println!("{}: {tensors} tensors, {:.1} MB", args.to.display(), bytes as f64 / 1e6);
    for path in &beside {
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn unpickled(args: &Args, options: Options, progress: impl FnMut(Progress<'_>)) -> Result<Converted> {
    let summary = convert::convert(&args.from, &args.to, &torch::Options::default(), options, progress)?;
    let left_out = summary.skipped.iter().map(|skipped| (format!("{} ({})", skipped.key, skipped.what), 0)).collect();
    Ok(Converted { tensors: summary.tensors, bytes: summary.bytes, beside: vec![], left_out })
}
