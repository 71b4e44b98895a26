//! `latentd generate`: one picture, in this process, by the way that every request goes: draft, check, queue, ticket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use ldm_core::task::{Fill, HiresDraft, MaskingDraft, Upscaler};
use ldm_core::{
    Draft, Ending, Event, Failure, FailureKind, Library, Lora, Output, Plane, Progress, Prompting, Random, Raster, Rounding,
    Task, Tuning, Variation, Violations,
};
use ldm_engine::{Limits, Service, Silent, Ticket};
use ldm_http::{Encoding, Format, write_picture};
use ldm_pipeline::{Device, DeviceExecutor, Dtype, EmaChoice, LoadOptions, ModelSource};

use super::files;
use crate::exit::Usage;
use crate::telemetry;

/// Arguments of `latentd generate`. What is not given is the model's default.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// The model: a diffusers directory, or a .safetensors file in the original layout.
    #[arg(long, value_name = "DIR|FILE", default_value = "assets/demo")]
    model: PathBuf,
    /// What describes a file: a published .yaml, a card's .toml, or the name of one of our cards; looked for beside the file.
    #[arg(long, value_name = "FILE|NAME")]
    config: Option<PathBuf>,
    /// Which weights of a file's denoiser: auto, on (averaged) or off.
    #[arg(long, default_value_t)]
    ema: EmaChoice,
    /// A learnt word (textual inversion), a .safetensors file; its name in a prompt stands for it. Repeatable.
    #[arg(long, value_name = "FILE")]
    embedding: Vec<PathBuf>,
    /// A tiny decoder for previews, loaded and checked as `serve` does it: TAESD, a file or a directory.
    #[arg(long, value_name = "DIR|FILE")]
    preview_decoder: Option<PathBuf>,
    /// A first stage in place of the model's own: another autoencoder, or TAESD for speed.
    #[arg(long, value_name = "DIR|FILE")]
    first_stage: Option<PathBuf>,
    /// A LoRA, a .safetensors file, and its strength, 1 when it is not given. Repeatable.
    #[arg(long, value_name = "FILE[=STRENGTH]", value_parser = weighed)]
    lora: Vec<(PathBuf, f64)>,
    /// What to do: txt2img, img2img, inpaint, super-resolution, depth, unconditional, class, layout, semantic or rdm. Without it, what
    /// the other flags ask for, or the first thing that the model does.
    #[arg(long)]
    task: Option<Task>,
    /// What the picture shall show.
    #[arg(long)]
    prompt: Option<String>,
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
    /// A second pass at another size, such as 1024x1024, or so many times larger, such as 1.5.
    #[arg(long, value_name = "WxH|TIMES", value_parser = hires)]
    hires: Option<HiresDraft>,
    /// Steps of the second pass; as many as --steps when it is not given.
    #[arg(long, value_name = "N", requires = "hires")]
    hires_steps: Option<i64>,
    /// How much of the schedule the second pass runs, from 0 to 1; 0.7 when it is not given.
    #[arg(long, value_name = "SHARE", requires = "hires")]
    hires_strength: Option<f64>,
    /// How the first pass becomes larger: latent-bilinear, latent-nearest or pixel-lanczos.
    #[arg(long, value_name = "NAME", requires = "hires", value_parser = upscaler, default_value = "latent-bilinear")]
    hires_upscaler: Upscaler,
    /// A PNG, JPEG or WebP picture to start from.
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// What to paint anew: a picture as large as --init-image, bright where it is painted. With --task inpaint and no mask, what is
    /// transparent in --init-image.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// How wide the mask's edge fades where the picture is laid back: pixels of a Gaussian's deviation.
    #[arg(long, value_name = "PIXELS", requires = "init_image")]
    mask_blur: Option<f64>,
    /// Paint what the mask leaves out.
    #[arg(long, requires = "init_image")]
    invert_mask: bool,
    /// Draw only the masked area, at --width and --height, and lay it back.
    #[arg(long, requires = "init_image")]
    only_masked: bool,
    /// Pixels around the masked area that are drawn, too; 32 when it is not given.
    #[arg(long, value_name = "PIXELS", requires = "only_masked")]
    mask_padding: Option<i64>,
    /// What lies under the mask at the start: original, fill, latent_noise or latent_nothing.
    #[arg(long, value_name = "NAME", requires = "init_image", value_parser = fill)]
    mask_fill: Option<Fill>,
    /// Whether what the mask leaves out keeps its pixels; it does when it is not given.
    #[arg(long, value_name = "true|false", requires = "init_image")]
    mask_composite: Option<bool>,
    /// The picture to enlarge.
    #[arg(long, value_name = "FILE")]
    lr_image: Option<PathBuf>,
    /// How many times larger, a whole number; the model's own when it is not given.
    #[arg(long, value_name = "TIMES", requires = "lr_image")]
    scale: Option<i64>,
    /// Noise level that it is brought to, for models that were trained with one.
    #[arg(long, value_name = "N")]
    noise_level: Option<i64>,
    /// Depths, bright where it is near.
    #[arg(long, value_name = "FILE")]
    depth: Option<PathBuf>,
    /// A class of the model.
    #[arg(long, value_name = "N")]
    class: Option<i64>,
    /// Boxes with labels: {"boxes": [{"label": 17, "bbox": [x, y, width, height]}]}, in fractions of the picture.
    #[arg(long, value_name = "FILE")]
    layout: Option<PathBuf>,
    /// A map of classes, as grey levels.
    #[arg(long, value_name = "FILE")]
    semantic: Option<PathBuf>,
    /// Embeddings of a prompt and its neighbours: [[number, ...], ...].
    #[arg(long, value_name = "FILE")]
    neighbors: Option<PathBuf>,
    /// How prompts are read: weighted, as `(word:1.2)` in any length; or plain, cut where the text encoder ends.
    #[arg(long, value_parser = prompting)]
    prompting: Option<Prompting>,
    /// Layers of the text encoder that are left out at its end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    clip_skip: u32,
    /// Share of a guided output that is rescaled, from 0 to 1.
    #[arg(long, value_name = "PHI", default_value_t = 0.)]
    guidance_rescale: f64,
    /// Noise levels between which guidance applies.
    #[arg(long, value_name = "SIGMA", num_args = 2)]
    guidance_interval: Option<Vec<f64>>,
    /// Whose random numbers: cpu, or gpu for those of torch on a graphics card.
    #[arg(long, value_parser = random, default_value = "cpu")]
    random: Random,
    /// Whose habits where libraries differ: diffusers or k-diffusion.
    #[arg(long, value_parser = library, default_value = "diffusers")]
    library: Library,
    /// Another seed that the first noise leans to, by --subseed-strength.
    #[arg(long, value_name = "SEED", requires = "subseed_strength")]
    subseed: Option<u64>,
    /// How far it leans, from 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "subseed")]
    subseed_strength: Option<f64>,
    /// What is added to the seed for all noise but the first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    eta_seed_delta: i64,
    /// How numbers become bytes: round, or truncate as CompVis' scripts do. The model's own way when it is not given.
    #[arg(long, value_parser = rounding)]
    rounding: Option<Rounding>,
    /// The finished latent as .npy or .safetensors, float32.
    #[arg(long, value_name = "FILE")]
    latents_out: Option<PathBuf>,
    /// The picture as it was drawn, before rounding and before it is laid over another, as .npy or .safetensors, float32 in about [-1, 1].
    #[arg(long, value_name = "FILE")]
    image_out: Option<PathBuf>,
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
    /// The task that the flags ask for, if they do.
    fn asked(&self) -> Option<Task> {
        let by_flag = [
            (self.class.is_some(), Task::Class),
            (self.layout.is_some(), Task::Layout),
            (self.semantic.is_some(), Task::Semantic),
            (self.neighbors.is_some(), Task::Rdm),
            (self.lr_image.is_some(), Task::SuperResolution),
            (self.mask.is_some(), Task::Inpaint),
            (self.depth.is_some(), Task::Depth),
            (self.init_image.is_some(), Task::Img2Img),
        ];
        self.task.or_else(|| by_flag.into_iter().find(|(given, _)| *given).map(|(_, task)| task))
    }

    /// The draft; files are read here.
    fn draft(&self) -> Result<Draft> {
        let file = |path: &Option<PathBuf>| path.clone();
        let interval = self.guidance_interval.as_deref().map(|ends| (ends[0], ends[1]));
        let variation = self.subseed.zip(self.subseed_strength).map(|(seed, strength)| Variation { seed, strength });
        let (init_image, mask) = self.pictures()?;
        Ok(Draft {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            prompting: self.prompting,
            width: self.width,
            height: self.height,
            steps: self.steps,
            sampler: self.sampler.clone(),
            schedule: self.schedule.clone(),
            guidance: self.guidance,
            eta: self.eta,
            seed: self.seed,
            loras: self.lora.iter().map(|(path, strength)| Lora { name: stem(path), strength: *strength }).collect(),
            rounding: self.rounding,
            tuning: Tuning {
                guidance_rescale: self.guidance_rescale,
                guidance_interval: interval,
                random: self.random,
                library: self.library,
                variation,
                eta_seed_delta: self.eta_seed_delta,
                clip_skip: self.clip_skip,
            },
            init_image,
            strength: self.strength,
            mask,
            masking: MaskingDraft {
                blur: self.mask_blur.map(|sigma| [sigma; 2]),
                invert: self.invert_mask.then_some(true),
                only_masked: self.only_masked.then_some(true),
                padding: self.mask_padding,
                fill: self.mask_fill,
                composite: self.mask_composite,
            },
            lr_image: file(&self.lr_image).map(|path| files::picture("lr-image", &path)).transpose()?,
            scale: self.scale,
            noise_level: self.noise_level,
            depth: file(&self.depth).map(|path| files::plane("depth", &path)).transpose()?,
            class: self.class,
            boxes: file(&self.layout).map(|path| files::boxes("layout", &path)).transpose()?,
            semantic: file(&self.semantic).map(|path| files::plane("semantic", &path)).transpose()?,
            neighbors: file(&self.neighbors).map(|path| files::embeddings("neighbors", &path)).transpose()?,
            hires: self.hires.clone().map(|hires| HiresDraft {
                steps: self.hires_steps,
                strength: self.hires_strength,
                upscaler: self.hires_upscaler,
                ..hires
            }),
            ..Draft::new(self.asked().unwrap_or(Task::Txt2Img))
        })
    }

    /// The picture to start from, and what to paint of it.
    fn pictures(&self) -> Result<(Option<Raster>, Option<Plane>)> {
        let mask = self.mask.as_deref().map(|path| files::plane("mask", path)).transpose()?;
        let Some(path) = self.init_image.as_deref() else { return Ok((None, mask)) };
        if self.asked() == Some(Task::Inpaint) && mask.is_none() {
            let (picture, mask) = files::transparent("init-image", path)?;
            return Ok((Some(picture), mask));
        }
        Ok((Some(files::picture("init-image", path)?), mask))
    }

    fn source(&self) -> ModelSource {
        let id = self.model.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let id = id.unwrap_or_else(|| "model".to_owned());
        let (config, embeddings) = (self.config.clone(), self.embedding.clone());
        let (preview, first_stage) = (self.preview_decoder.clone(), self.first_stage.clone());
        let loras = self.lora.iter().map(|(path, _)| path.clone()).collect();
        ModelSource { config, ema: self.ema, embeddings, loras, preview, first_stage, ..ModelSource::new(id, &self.model) }
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
    for (flag, path) in [("latents-out", &args.latents_out), ("image-out", &args.image_out)] {
        path.as_deref().map_or(Ok(()), |path| files::check_tensor_name(flag, path))?;
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
    let outputs = [("latent", args.latents_out.clone()), ("image", args.image_out.clone())];
    let unwritten = Arc::new(Mutex::new(None));
    let failed = Arc::clone(&unwritten);
    let service = Service::start(Limits { queue: 1, running: 1, ..Limits::default() }, Arc::new(Silent), move || {
        let executor = DeviceExecutor::load(&[source], &options);
        let executor = executor.map_err(|error| Failure::new(FailureKind::Device, error.to_string()))?;
        Ok(executor.watched(Box::new(move |latent, picture| {
            for ((name, path), tensor) in outputs.iter().zip([latent, picture]) {
                let Some(path) = path else { continue };
                if let Err(error) = files::write_tensor(path, name, tensor) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{}: {error}", path.display()));
                }
            }
        })))
    });
    let made = picture(args, draft, format, &service).await;
    // The device thread ends before the process does: libtorch must not go while it is used.
    service.drain(Duration::ZERO).await;
    if let Some(message) = unwritten.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bail!("{message}");
    }
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
    let mut draft = draft;
    let tasks = &catalogue.models[0].tasks;
    // What no flag asks for is the first thing that the model does.
    if args.asked().is_none() && !tasks.contains(&draft.task) {
        draft.task = tasks[0];
    }
    if draft.task == Task::Txt2Img && draft.prompt.is_none() {
        return Err(Usage("--prompt: what shall the picture show?".to_owned()).into());
    }
    let request = draft.check(&catalogue).map_err(|violations| Usage(lines(&violations)))?;
    let ticket = service.submit(request)?.pop().context("there is no ticket")?;
    let output = watched(ticket, &bar).await;
    bar.finish_and_clear();
    let output = output?;
    Ok((write_picture(&output, &catalogue, Encoding { format, quality: None })?, output))
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

/// A file, and a strength behind its last `=`.
fn weighed(text: &str) -> Result<(PathBuf, f64), String> {
    crate::config::weighed(text).ok_or_else(|| "a file, or file=number".to_owned())
}

/// A LoRA's name.
fn stem(path: &std::path::Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// One of the values that have a name.
fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let known = || all.iter().map(|&value| name(value)).collect::<Vec<_>>().join(" or ");
    all.iter().copied().find(|&value| name(value) == text).ok_or_else(|| format!("it is {}", known()))
}

pub(super) fn rounding(text: &str) -> Result<Rounding, String> {
    named(text, &Rounding::ALL, Rounding::name)
}

fn prompting(text: &str) -> Result<Prompting, String> {
    named(text, &Prompting::ALL, Prompting::name)
}

fn upscaler(text: &str) -> Result<Upscaler, String> {
    named(text, &Upscaler::ALL, Upscaler::name)
}

/// `WIDTHxHEIGHT`, or how many times larger.
fn hires(text: &str) -> Result<HiresDraft, String> {
    let wrong = || "it is a size such as 1024x768, or a number such as 1.5".to_owned();
    match text.split_once('x') {
        Some((width, height)) => {
            let side = |side: &str| side.trim().parse().map(Some).map_err(|_| wrong());
            Ok(HiresDraft { width: side(width)?, height: side(height)?, ..HiresDraft::default() })
        }
        None => Ok(HiresDraft { scale: Some(text.trim().parse().map_err(|_| wrong())?), ..HiresDraft::default() }),
    }
}

fn random(text: &str) -> Result<Random, String> {
    named(text, &Random::ALL, Random::name)
}

fn library(text: &str) -> Result<Library, String> {
    named(text, &Library::ALL, Library::name)
}

fn fill(text: &str) -> Result<Fill, String> {
    named(text, &Fill::ALL, Fill::name)
}

/// Every violation, a line each: the flag, the limit, the value.
fn lines(violations: &Violations) -> String {
    let line = |violation: &ldm_core::Violation| {
        // `loras[0].strength` is said by `--lora`, `hires.width` by `--hires`.
        let flag = match violation.field.split('[').next().unwrap_or_default() {
            "loras" => "lora".to_owned(),
            "hires.width" | "hires.height" | "hires.scale" => "hires".to_owned(),
            "boxes" => "layout".to_owned(),
            "neighbours" => "neighbors".to_owned(),
            "depth_map" | "semantic_map" => violation.field.trim_end_matches("_map").to_owned(),
            "padding" | "fill" | "composite" => format!("mask-{}", violation.field),
            field => field.replace(['_', '.'], "-"),
        };
        let (limit, value) = (violation.limit.as_deref().unwrap_or("–"), violation.value.as_deref().unwrap_or("–"));
        format!("--{flag}: {} (limit: {limit}; value: {value})", violation.message)
    };
    violations.0.iter().map(line).collect::<Vec<_>>().join("\n")
}
