//! `latentd generate`: one picture, in this process, by the way that every request goes: draft, check, queue, ticket.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use ldm_core::{Draft, Ending, Event, Failure, FailureKind, Output, Progress, Task, Violations};
use ldm_engine::{Limits, Service, Silent, Ticket};
use ldm_http::{Encoding, Format, HttpLimits, read_picture, write_picture};
use ldm_pipeline::{Device, DeviceExecutor, Dtype, LoadOptions, ModelSource};

use crate::exit::Usage;
use crate::telemetry;

/// JPEG quality, as over HTTP when a request does not say.
const QUALITY: u8 = 90;

/// Arguments of `latentd generate`. What is not given is the model's default.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// The model: a diffusers directory.
    #[arg(long, value_name = "DIR", default_value = "assets/demo")]
    model: PathBuf,
    /// What the picture shall show.
    #[arg(long)]
    prompt: String,
    /// What it shall not show.
    #[arg(long)]
    negative_prompt: Option<String>,
    /// Pixels from left to right.
    #[arg(long)]
    width: Option<i64>,
    /// Pixels from top to bottom.
    #[arg(long)]
    height: Option<i64>,
    /// Steps.
    #[arg(long)]
    steps: Option<i64>,
    /// Sampler, by name or alias, such as dpmpp_2m or "DPM++ 2M Karras".
    #[arg(long)]
    sampler: Option<String>,
    /// Sigma schedule: default, karras or exponential.
    #[arg(long)]
    schedule: Option<String>,
    /// Guidance scale; 1 is none.
    #[arg(long)]
    guidance: Option<f64>,
    /// Share of fresh noise in DDIM, from 0 to 1.
    #[arg(long)]
    eta: Option<f64>,
    /// Seed of the noise; -1 draws one.
    #[arg(long)]
    seed: Option<i64>,
    /// How much of the schedule runs on --init-image, from 0 to 1: 1 forgets it.
    #[arg(long)]
    strength: Option<f64>,
    /// A PNG, JPEG or WebP picture to start from.
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// Number format of the networks: f32, bf16 or f16.
    #[arg(long, default_value_t)]
    dtype: Dtype,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, default_value_t)]
    device: Device,
    /// Threads that compute on a CPU; libtorch chooses when it is not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The picture: a .png (which also says how it was made), .jpg or .webp file.
    #[arg(long, value_name = "FILE", default_value = "picture.png")]
    out: PathBuf,
    /// Say nothing but errors.
    #[arg(long)]
    quiet: bool,
}

impl Args {
    /// The draft; the init image is read here.
    fn draft(&self) -> Result<Draft> {
        let init_image = self.init_image.as_deref().map(init_image).transpose()?;
        let task = if init_image.is_some() { Task::Img2Img } else { Task::Txt2Img };
        Ok(Draft {
            prompt: Some(self.prompt.clone()),
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            sampler: self.sampler.clone(),
            schedule: self.schedule.clone(),
            guidance: self.guidance,
            eta: self.eta,
            seed: self.seed,
            init_image,
            strength: self.strength,
            ..Draft::new(task)
        })
    }

    fn source(&self) -> ModelSource {
        let id = self.model.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        ModelSource { id: id.unwrap_or_else(|| "model".to_owned()), dir: self.model.clone() }
    }

    fn load_options(&self) -> LoadOptions {
        LoadOptions { device: self.device, dtype: self.dtype, threads: self.threads, ..LoadOptions::default() }
    }
}

/// Makes the picture and writes it.
pub(super) fn run(args: Args) -> Result<ExitCode> {
    telemetry::at_terminal()?;
    // What can be said to be wrong without the model is said before it is loaded.
    let format = args.out.extension().and_then(|extension| Format::named(extension.to_str()?)).ok_or_else(|| {
        Usage(format!("--out: the name must end in .png, .jpg, .jpeg or .webp, not {:?}", args.out.display().to_string()))
    })?;
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Usage(format!("--out: there is no folder {}", folder.display())).into());
    }
    let draft = args.draft()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let began = Instant::now();
    let (file, output) = runtime.block_on(generate(&args, draft, format))?;
    std::fs::write(&args.out, file).with_context(|| args.out.display().to_string())?;
    if !args.quiet {
        let (out, seed) = (args.out.display(), output.request.seed);
        let (took, all) = (output.timings.total().as_secs_f64(), began.elapsed().as_secs_f64());
        println!("{out}: seed {seed}, {took:.2} s ({all:.2} s with loading)");
    }
    Ok(ExitCode::SUCCESS)
}

/// The picture's file, with what made it.
async fn generate(args: &Args, draft: Draft, format: Format) -> Result<(Vec<u8>, Output)> {
    let (source, options) = (args.source(), args.load_options());
    let service = Service::start(Limits { queue: 1, running: 1 }, Arc::new(Silent), move || {
        DeviceExecutor::load(&[source], &options).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
    });
    let made = picture(args, draft, format, &service).await;
    // The device thread ends before the process does: libtorch must not go while it is used.
    service.drain(Duration::ZERO).await;
    made
}

async fn picture(args: &Args, draft: Draft, format: Format, service: &Service) -> Result<(Vec<u8>, Output)> {
    let bar = if args.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.set_style(ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len} {elapsed} (left {eta})")?);
    bar.set_message("loading");
    let catalogue = match service.wait_ready().await {
        Ok(catalogue) => catalogue,
        Err(reason) => bail!("{}: {reason}", args.model.display()),
    };
    let request = draft.check(&catalogue).map_err(|violations| Usage(lines(&violations)))?;
    let ticket = service.submit(request)?.pop().context("there is no ticket")?;
    let output = watched(ticket, &bar).await;
    bar.finish_and_clear();
    let output = output?;
    Ok((write_picture(&output, &catalogue, Encoding { format, quality: QUALITY })?, output))
}

/// Shows the job's progress until it ends.
async fn watched(mut ticket: Ticket, bar: &ProgressBar) -> Result<Output> {
    while let Some(event) = ticket.next().await {
        match event {
            Event::Progress(Progress::Queued { .. } | Progress::Preparing) => bar.set_message("preparing"),
            Event::Progress(Progress::Step { step, steps, .. }) => {
                bar.set_message("steps");
                bar.set_length(steps.into());
                bar.set_position(step.into());
            }
            Event::Progress(Progress::Decoding) => bar.set_message("decoding"),
            Event::Ended(Ending::Finished(output)) => return Ok(output),
            Event::Ended(Ending::Failed(failure)) => return Err(failure.into()),
            Event::Ended(Ending::Cancelled) => break,
        }
    }
    bail!("the job was cancelled")
}

fn init_image(path: &Path) -> Result<ldm_core::Raster> {
    let wrong = |message: String| Usage(format!("--init-image: {}: {message}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    Ok(read_picture(&bytes, HttpLimits::default().pixels).map_err(|error| wrong(error.to_string()))?)
}

/// Every violation, a line each: the flag, the limit, the value.
fn lines(violations: &Violations) -> String {
    let line = |violation: &ldm_core::Violation| {
        let flag = violation.field.replace('_', "-");
        let (limit, value) = (violation.limit.as_deref().unwrap_or("–"), violation.value.as_deref().unwrap_or("–"));
        format!("--{flag}: {} (limit: {limit}; value: {value})", violation.message)
    };
    violations.0.iter().map(line).collect::<Vec<_>>().join("\n")
}
