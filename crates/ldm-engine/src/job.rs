//! A job as the device thread holds it.

use std::time::{Duration, Instant};

use ldm_core::{Output, Preview, Progress, Raster, Timings};

use crate::Advance;
use crate::reporter::Reporter;

/// An accepted job: its reporter, where its time went, and, once prepared, the executor's run.
pub(crate) struct Job<R> {
    pub(crate) reporter: Reporter,
    /// There from preparation to decoding, except while an evaluation holds it.
    pub(crate) run: Option<R>,
    /// Rows that it adds to a call.
    pub(crate) rows: u32,
    pub(crate) timings: Timings,
    lap: Instant,
    step: u32,
    preview: Option<Preview>,
}

impl<R> Job<R> {
    pub(crate) fn new(reporter: Reporter, rows: u32) -> Self {
        let lap = reporter.submitted;
        Self { reporter, run: None, rows, timings: Timings::default(), lap, step: 0, preview: None }
    }

    /// The time since the last lap, so that the laps add up to the job's whole time.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.lap, now)
    }

    /// Whether a preview is due after `advance`. A sampler that reports a step twice gets one.
    pub(crate) fn wants_preview(&self, advance: &Advance) -> bool {
        let due = self.reporter.request.preview_every.is_some_and(|every| advance.step.is_multiple_of(every));
        due && advance.step != self.step && advance.step < advance.steps && !advance.finished
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
        self.reporter.progress(Progress::Step { step, steps, preview });
    }

    /// The finished picture with what made it.
    pub(crate) fn output(&self, image: Raster) -> Output {
        Output { image, request: self.reporter.request.clone(), timings: self.timings }
    }
}
