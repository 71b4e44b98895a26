//! What calls of a model cost on this machine: measured in a few seconds at the start, kept beside the model, and measured again
//! when the machine, the weights or this program are others.

mod kept;

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ldm_core::{Draft, Failure, FailureKind, Model, Request, Task};
use ldm_engine::cost::{KeyProfile, PointProfile, Profile};
use ldm_engine::{Decoding, Executor};
use tch::Tensor;

use crate::conditioning::Conditioning;
use crate::executor::DeviceExecutor;
use crate::faults::guarded;
use crate::run::{Guided, Run};

/// How long measuring a model takes, about. A single call may take longer.
pub const PROFILE_BUDGET: Duration = Duration::from_secs(2);

/// Calls of one size that are measured, at most.
const MOST_CALLS: usize = 5;

/// Seconds of calls of one size.
#[derive(Default)]
struct Sample(Vec<f64>);

impl Sample {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    fn point(&self, rows: u32) -> PointProfile {
        let mean = self.mean();
        let deviation = self.0.iter().map(|seconds| (seconds - mean).abs()).sum::<f64>() / self.0.len().max(1) as f64;
        PointProfile { rows, mean, deviation, count: self.0.len() as u64 }
    }
}

fn timed<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<(T, f64), Failure> {
    let began = Instant::now();
    let value = guarded(call)?;
    Ok((value, began.elapsed().as_secs_f64()))
}

impl DeviceExecutor {
    /// What calls of a loaded model cost at its default size: as kept from an earlier start of the same machine, weights and
    /// program, or measured now in about `budget` with up to `most_rows` rows, and kept beside the model, or in `cache` where that
    /// cannot be written.
    ///
    /// # Errors
    /// When the model is not loaded, or a single row of it fails.
    pub fn profile(&mut self, id: &str, budget: Duration, most_rows: u32, cache: Option<&Path>) -> Result<Profile, Failure> {
        let system = self.shelf.system(id)?;
        let fingerprint = kept::fingerprint(&system.about);
        let places = kept::places(&system.source, cache);
        if let Some(profile) = places.iter().find_map(|place| kept::read(place, &fingerprint)) {
            return Ok(profile);
        }
        let profile = self.measured(&system.about, budget, most_rows)?;
        if !places.iter().any(|place| kept::write(place, &fingerprint, &profile)) {
            tracing::info!(model = id, "the profile could not be kept: it is measured again at the next start");
        }
        Ok(profile)
    }

    /// Measures a model's calls.
    fn measured(&mut self, model: &Model, budget: Duration, most_rows: u32) -> Result<Profile, Failure> {
        let began = Instant::now();
        let request = self.usual(model)?;
        let (prepared, prepare) = timed(|| self.prepare(&request))?;
        let (mut run, key) = (prepared.run, prepared.price.key);
        let mut points = Vec::new();
        let mut memory_rows = None;
        let mut rows = 1;
        while rows <= most_rows.max(1) {
            // Each size has half of what is left, so that there is something left for the next.
            let share = budget.saturating_sub(began.elapsed()) / 2;
            match self.sample(&run, rows, share) {
                Ok(sample) => points.push(sample.point(rows)),
                Err(failure) if failure.kind == FailureKind::OutOfMemory && rows > 1 => {
                    memory_rows = Some(rows / 2);
                    self.relieve();
                    break;
                }
                Err(failure) => return Err(failure),
            }
            let left = budget.saturating_sub(began.elapsed()).as_secs_f64();
            // Twice the rows take up to twice as long, and are called at least twice.
            if points.last().is_some_and(|point| point.mean * 4. > left) {
                break;
            }
            rows *= 2;
        }
        let mut decode = PointProfile::default();
        if began.elapsed() < budget {
            let (_, seconds) = timed(|| self.decode(&mut run, Decoding::Usual))?;
            decode = Sample(vec![seconds]).point(0);
        }
        let prepare = Sample(vec![prepare]).point(0);
        Ok(Profile { keys: vec![KeyProfile { key, points, prepare, decode, memory_rows }] })
    }

    /// A request of the model's default size.
    fn usual(&self, model: &Model) -> Result<Arc<Request>, Failure> {
        let mut draft = Draft { guidance: Some(1.), ..Draft::smallest(model) };
        if draft.task != Task::SuperResolution {
            let (width, height) = model.sizes.default;
            (draft.width, draft.height) = (Some(i64::from(width)), Some(i64::from(height)));
        }
        let wrong = |error: String| Failure::new(FailureKind::Unsupported, format!("no usual request: {error}"));
        let mut requests = draft.check(&self.catalogue()).map_err(|violations| wrong(violations.to_string()))?;
        requests.pop().map(Arc::new).ok_or_else(|| wrong("it asks for no picture".to_owned()))
    }

    /// Seconds of calls of so many rows, all of them the run's first row.
    fn sample(&self, run: &Run, rows: u32, share: Duration) -> Result<Sample, Failure> {
        let (Guided::Off(one) | Guided::On(_, one)) = &run.conditioning;
        let (x, t) = run.input();
        let made = || {
            let conditioning = match rows {
                1 => Rc::clone(one),
                _ => Rc::new(Conditioning::cat(&vec![Rc::clone(one); rows as usize])),
            };
            let x = Tensor::cat(&vec![&x; rows as usize], 0);
            let t = Tensor::from_slice(&vec![t; rows as usize]).to_device(x.device());
            Ok((conditioning, x, t))
        };
        let (conditioning, x, t) = guarded(made)?;
        let call = || {
            // Asking for a number waits for the device.
            Ok(run.system.denoise(&x, &t, &conditioning, &[]).isfinite().all().int64_value(&[]))
        };
        let began = Instant::now();
        let (_, first) = timed(call)?;
        let mut sample = Sample::default();
        while sample.0.len() < MOST_CALLS && began.elapsed() < share {
            sample.0.push(timed(call)?.1);
        }
        // The first call of a size finds memory and kernels: it counts only where there is no other.
        if sample.0.is_empty() {
            sample.0.push(first);
        }
        Ok(sample)
    }
}
