//! `latentd train evaluate`: how well a trained model does what its prompts say, by the way that every request goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ldm_core::{Draft, Ending, Failure, FailureKind, Raster, Task};
use ldm_engine::{Limits, Service, Silent};
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, ModelSource};
use ldm_train::evaluate::{HELD_OUT_SEED, Score, reconstruction};
use ldm_train::scene::{self, Prompt};
use serde_json::json;

/// Pictures side by side in a grid.
const COLUMNS: usize = 10;

/// Arguments of `latentd train evaluate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model: a diffusers directory.
    #[arg(long, value_name = "DIR", default_value = "assets/demo")]
    model: PathBuf,
    /// Held-out one-object prompts.
    #[arg(long, value_name = "N", default_value_t = 100)]
    prompts: usize,
    /// Held-out scenes that the first stage reconstructs.
    #[arg(long, value_name = "N", default_value_t = 128)]
    scenes: usize,
    /// Steps.
    #[arg(long, default_value_t = 25)]
    steps: i64,
    /// Sampler; the model's default when it is not given.
    #[arg(long)]
    sampler: Option<String>,
    /// Guidance scale; the model's default when it is not given.
    #[arg(long)]
    guidance: Option<f64>,
    /// Number format of the networks: f32, bf16 or f16.
    #[arg(long, default_value_t)]
    dtype: Dtype,
    /// Threads; libtorch chooses when it is not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Also write the first hundred pictures as one PNG.
    #[arg(long, value_name = "FILE")]
    grid: Option<PathBuf>,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    ensure!(args.prompts > 0 && args.scenes > 0, "--prompts and --scenes must be positive");
    let prompts = scene::held_out_prompts(args.prompts, HELD_OUT_SEED);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let pictures = runtime.block_on(pictures(args, &prompts))?;
    let mut matches = Vec::new();
    for (picture, prompt) in pictures.iter().zip(&prompts) {
        ensure!(picture.width() == picture.height(), "the checker reads square pictures");
        matches.push(scene::inspect(picture.data(), picture.width() as usize).matches(prompt));
    }
    if let Some(path) = &args.grid {
        grid(&pictures[..pictures.len().min(100)]).save(path).with_context(|| path.display().to_string())?;
    }
    let report = json!({
        "model": args.model, "steps": args.steps, "score": Score::of(&matches),
        "reconstruction_psnr_db": reconstruction(&args.model, args.scenes)?, "scenes": args.scenes,
    });
    println!("{report}");
    Ok(())
}

/// One picture per prompt, seeds from 0 on.
async fn pictures(args: &Args, prompts: &[Prompt]) -> Result<Vec<Raster>> {
    let source = ModelSource::new("model", &args.model);
    let options = LoadOptions { dtype: args.dtype, threads: args.threads, ..LoadOptions::default() };
    let service = Service::start(
        Limits { queue: prompts.len(), running: 16, rows: 32, ..Limits::default() },
        Arc::new(Silent),
        move || DeviceExecutor::load(&[source], &options).map_err(|error| Failure::new(FailureKind::Device, error.to_string())),
    );
    let catalogue = service.wait_ready().await.map_err(anyhow::Error::msg)?;
    let mut requests = Vec::new();
    for (seed, prompt) in (0..).zip(prompts) {
        let draft = Draft {
            prompt: Some(prompt.text.clone()),
            steps: Some(args.steps),
            sampler: args.sampler.clone(),
            guidance: args.guidance,
            seed: Some(seed),
            ..Draft::new(Task::Txt2Img)
        };
        requests.extend(draft.check(&catalogue)?);
    }
    let mut pictures = Vec::new();
    for ticket in service.submit(requests)? {
        match ticket.finished().await {
            Ending::Finished(output) => pictures.push(output.image),
            other => bail!("a picture was not made: {}", other.reason()),
        }
    }
    service.drain(Duration::ZERO).await;
    Ok(pictures)
}

/// Pictures of one size in rows, at twice their size.
fn grid(pictures: &[Raster]) -> image::RgbImage {
    let (width, height) = pictures.first().map_or((1, 1), |picture| (picture.width(), picture.height()));
    let cell = |n: u32| n * 2 + 2;
    let columns = pictures.len().clamp(1, COLUMNS) as u32;
    let rows = pictures.len().div_ceil(COLUMNS).max(1) as u32;
    image::RgbImage::from_fn(columns * cell(width), rows * cell(height), |x, y| {
        let (column, row) = (x / cell(width), y / cell(height));
        let (x, y) = ((x % cell(width)) / 2, (y % cell(height)) / 2);
        match pictures.get((row * columns + column) as usize) {
            Some(picture) if x < width && y < height => {
                let at = ((y * width + x) * 3) as usize;
                image::Rgb([picture.data()[at], picture.data()[at + 1], picture.data()[at + 2]])
            }
            _ => image::Rgb([128; 3]),
        }
    })
}
