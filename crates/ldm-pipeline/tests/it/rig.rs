//! A device with the tiny model, and ways to run jobs on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_core::{Draft, Raster, Request, Task};
use ldm_engine::{Decoding, Executor};
use ldm_pipeline::{DeviceExecutor, LoadOptions, ModelError, ModelSource, Run};

/// Largest difference of latents that two orders of summation may make, relative to the largest latent; seen: 6e-6.
pub(crate) const TOLERANCE: f32 = 3e-5;

/// `tests/goldens` of the workspace.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

pub(crate) fn load(dir: &Path, options: &LoadOptions) -> Result<DeviceExecutor, ModelError> {
    DeviceExecutor::load(&[ModelSource::new("tiny", dir)], options)
}

/// One thread: tests run side by side already.
pub(crate) fn options() -> LoadOptions {
    LoadOptions { threads: Some(1), ..LoadOptions::default() }
}

/// The tiny model in float32 on the CPU.
pub(crate) fn device() -> DeviceExecutor {
    load(&directory().join("tiny-sd"), &options()).expect("the tiny model loads")
}

/// A directory of one test's own, empty.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipeline-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

/// A copy of the tiny model, to be damaged.
pub(crate) fn copy_of_the_model(name: &str) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("a directory");
        for entry in std::fs::read_dir(from).expect("a directory").flatten() {
            let to = to.join(entry.file_name());
            if entry.file_name() == "latentd-profile.json" {
                // A server that another test started on the model may have measured it.
                continue;
            }
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).expect("a copy");
            }
        }
    }
    let dir = scratch(name);
    copy(&directory().join("tiny-sd"), &dir);
    dir
}

/// A small picture of a prompt: what a test does not say, it does not care about.
pub(crate) fn draft(prompt: &str) -> Draft {
    Draft { prompt: Some(prompt.into()), steps: Some(5), guidance: Some(5.), seed: Some(7), ..Draft::new(Task::Txt2Img) }
}

pub(crate) fn request(device: &DeviceExecutor, draft: Draft) -> Arc<Request> {
    let mut requests = draft.check(&device.catalogue()).expect("a valid draft");
    Arc::new(requests.remove(0))
}

/// A finished job.
#[derive(Debug, PartialEq)]
pub(crate) struct Finished {
    pub(crate) latent: Vec<f32>,
    pub(crate) picture: Raster,
}

/// Evaluates `runs` together once; panics unless all advance. Returns which are finished.
pub(crate) fn evaluate(device: &mut DeviceExecutor, runs: &mut [&mut Run]) -> Vec<bool> {
    device.evaluate(runs).into_iter().map(|answer| answer.expect("it advances").left == 0).collect()
}

pub(crate) fn decode(device: &mut DeviceExecutor, mut run: Run) -> Finished {
    let latent = device.latent(&run);
    Finished { latent, picture: device.decode(&mut run, Decoding::Usual).expect("a picture") }
}

/// Runs a job alone.
pub(crate) fn solo(device: &mut DeviceExecutor, request: &Arc<Request>) -> Finished {
    let mut run = device.prepare(request).expect("it is prepared").run;
    while !evaluate(device, &mut [&mut run])[0] {}
    decode(device, run)
}

/// Checks a draft and runs it alone.
pub(crate) fn draw(device: &mut DeviceExecutor, draft: Draft) -> Finished {
    let request = request(device, draft);
    solo(device, &request)
}

/// The largest difference of latents, relative to the largest reference value.
pub(crate) fn error(found: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(found.len(), reference.len());
    assert!(found.iter().all(|x| x.is_finite()));
    let largest = reference.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(reference).fold(0f32, |error, (a, b)| error.max((a - b).abs())) / largest
}

/// The largest difference of two pictures, in levels.
pub(crate) fn levels(found: &Raster, reference: &Raster) -> u8 {
    assert_eq!((found.width(), found.height()), (reference.width(), reference.height()));
    found.data().iter().zip(reference.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// Panics unless the two are the same job's: nearly the same latents, pixels within one level.
pub(crate) fn same(what: &str, found: &Finished, reference: &Finished) {
    let error = error(&found.latent, &reference.latent);
    let levels = levels(&found.picture, &reference.picture);
    assert!(error <= TOLERANCE && levels <= 1, "{what}: latents differ by {error:.1e}, pixels by {levels}");
}

/// Evaluates a run until so many calls are left.
pub(crate) fn until(device: &mut DeviceExecutor, run: &mut Run, left: u32) {
    while device.evaluate(&mut [run]).remove(0).expect("it advances").left > left {}
}

/// Evaluates a run to its end, and decodes it.
pub(crate) fn finish(device: &mut DeviceExecutor, mut run: Run) -> Finished {
    until(device, &mut run, 0);
    decode(device, run)
}
