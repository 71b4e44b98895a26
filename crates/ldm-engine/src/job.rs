//! A job as the device thread holds it, and as it travels between devices.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ldm_core::{Checkpoint, Output, Preview, Progress, Raster, Timings};

use crate::Advance;
use crate::executor::Price;
use crate::reporter::Reporter;

/// A job without its run: what can go to another device.
pub(crate) struct Parcel {
    pub(crate) reporter: Reporter,
    /// Where it can go on.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Calls that broke with it in them, and devices that were retired under it.
    pub(crate) faults: u32,
    /// Shares no call, for it may have been the one that broke one.
    pub(crate) alone: bool,
}

impl Parcel {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Self { reporter, checkpoint: None, faults: 0, alone: false }
    }
}

/// An accepted job: what it is, where its time went, and, once prepared, the executor's run.
pub(crate) struct Job<R> {
    pub(crate) parcel: Parcel,
    /// There from preparation to decoding, except while an evaluation holds it.
    pub(crate) run: Option<R>,
    pub(crate) price: Price,
    pub(crate) timings: Timings,
    /// Calls of this job that ran out of memory, one after another.
    pub(crate) starved: u32,
    lap: Instant,
    kept: Instant,
    /// Steps done.
    pub(crate) step: u32,
    preview: Option<Preview>,
}

impl<R> Job<R> {
    pub(crate) fn new(parcel: Parcel, price: Price) -> Self {
        let lap = parcel.reporter.submitted;
        let timings = Timings::default();
        Self { parcel, run: None, price, timings, starved: 0, lap, kept: Instant::now(), step: 0, preview: None }
    }

    pub(crate) fn reporter(&self) -> &Reporter {
        &self.parcel.reporter
    }

    /// The time since the last lap, so that the laps add up to the job's whole time.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.lap, now)
    }

    /// Whether a checkpoint is due; when it is, the next one is due after `every` again.
    pub(crate) fn is_due(&mut self, every: Duration) -> bool {
        let due = self.kept.elapsed() >= every;
        if due {
            self.kept = Instant::now();
        }
        due
    }

    /// Whether a preview is due after `advance`. A sampler that reports a step twice gets one.
    pub(crate) fn wants_preview(&self, advance: &Advance) -> bool {
        let due = self.reporter().request.preview_every.is_some_and(|every| advance.step.is_multiple_of(every));
        due && advance.step != self.step && advance.step < advance.steps && advance.left > 0
    }

    /// Tells the step, with the newest preview.
    pub(crate) fn stepped(&mut self, advance: &Advance, preview: Option<Raster>) {
        if let Some(image) = preview {
            self.preview = Some(Preview { step: advance.step, image });
        } else if advance.step == self.step {
            return;
        }
        self.step = advance.step;
        let (step, steps, preview) = (advance.step, advance.steps, self.preview.clone());
        self.reporter().progress(Progress::Step { step, steps, preview });
    }

    /// The finished picture with what made it.
    pub(crate) fn output(&self, image: Raster) -> Output {
        Output { image, request: Arc::clone(&self.reporter().request), timings: self.timings }
    }
}
