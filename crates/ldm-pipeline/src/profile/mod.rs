//! What calls of a model cost on this machine: measured when the engine asks, kept beside the model, and measured again when the
//! machine, the weights or this program are others.

mod kept;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ldm_core::{Draft, Failure, FailureKind, Mode, Model, Request, Task};
use ldm_engine::cost::Profile;
use ldm_engine::{BatchKey, Executor};
use tch::Tensor;

use crate::conditioning::Conditioning;
use crate::executor::DeviceExecutor;
use crate::run::{Guided, Run};

impl DeviceExecutor {
    /// What an earlier start of the same machine, weights and program has kept.
    pub(crate) fn kept_profile(&self, id: &str) -> Option<Profile> {
        let system = self.shelf.system(id).ok()?;
        let fingerprint = kept::fingerprint(&system.about);
        let places = kept::places(&system.source, self.options.profiles.as_deref());
        let mut profile = places.iter().find_map(|place| kept::read(place, &fingerprint))?;
        // Of the same weights, which may have been called otherwise then.
        profile.keys.iter_mut().for_each(|key| key.key.model.clone_from(&system.name));
        Some(profile)
    }

    /// Keeps a profile beside the model, or where the options say when that cannot be written.
    pub(crate) fn keep_profile(&self, id: &str, profile: &Profile) {
        let Ok(system) = self.shelf.system(id) else { return };
        let fingerprint = kept::fingerprint(&system.about);
        let places = kept::places(&system.source, self.options.profiles.as_deref());
        if !places.iter().any(|place| kept::write(place, &fingerprint, profile)) {
            tracing::info!(model = id, "the profile could not be kept: it is measured again at the next start");
        }
    }

    /// One call of so many rows of the model at its default size: whose, and how long it took.
    pub(crate) fn timed_call(&mut self, id: &str, rows: u32) -> Result<(BatchKey, Duration), Failure> {
        let run = match self.rehearsal.take() {
            Some((model, run)) if model == id => run,
            _ => {
                let system = self.shelf.system(id)?;
                let request = self.usual(&system.about)?;
                self.prepare(&request)?.run
            }
        };
        let took = self.call_of(&run, rows);
        let key = run.system.key(&run.request)?;
        self.rehearsal = Some((id.to_owned(), run));
        Ok((key, took))
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

    /// How long a call of so many rows takes, all of them the run's first row.
    fn call_of(&self, run: &Run, rows: u32) -> Duration {
        // In this mode every row is a call of its own.
        let (rows, calls) = if self.options.mode == Mode::BatchInvariant { (1, rows) } else { (rows, 1) };
        let (Guided::Off(one) | Guided::On(_, one)) = &run.conditioning;
        let (x, t) = run.input();
        let conditioning = match rows {
            1 => Rc::clone(one),
            _ => Rc::new(Conditioning::cat(&vec![Rc::clone(one); rows as usize])),
        };
        let x = Tensor::cat(&vec![&x; rows as usize], 0);
        let t = Tensor::from_slice(&vec![t; rows as usize]).to_device(x.device());
        let began = Instant::now();
        for _ in 0..calls {
            // Asking for a number waits for the device.
            run.system.denoise(&x, &t, &conditioning, &[]).isfinite().all().int64_value(&[]);
        }
        began.elapsed()
    }
}
