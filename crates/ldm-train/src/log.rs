//! The progress bar and the loss log, `log.jsonl`: one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Running mean of the loss with a line in the log every so often.
pub(crate) struct Log {
    file: File,
    bar: ProgressBar,
    sum: f64,
    count: u64,
    every: u64,
    since: Instant,
}

impl Log {
    pub(crate) fn new(out: &Path, steps: u64, done: u64, every: u64) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(out.join("log.jsonl"))?;
        let bar = ProgressBar::new(steps).with_position(done);
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} (left {eta}) {msg}")?);
        bar.reset_eta();
        Ok(Self { file, bar, sum: 0., count: 0, every, since: Instant::now() })
    }

    /// After step `step` (from 1) with that loss.
    pub(crate) fn step(&mut self, step: u64, loss: f64, rate: f64, norm: f64) -> Result<()> {
        self.sum += loss;
        self.count += 1;
        self.bar.set_position(step);
        if step.is_multiple_of(self.every) {
            let mean = self.sum / self.count as f64;
            let seconds = self.since.elapsed().as_secs_f64() / self.count as f64;
            self.bar.set_message(format!("loss {mean:.5}"));
            self.line(
                json!({"step": step, "loss": mean, "learning_rate": rate, "gradient_norm": norm, "seconds_per_step": seconds}),
            )?;
            (self.sum, self.count, self.since) = (0., 0, Instant::now());
        }
        Ok(())
    }

    /// A measurement.
    pub(crate) fn line(&mut self, value: serde_json::Value) -> Result<()> {
        if self.bar.is_hidden() {
            eprintln!("{value}");
        }
        writeln!(self.file, "{value}")?;
        Ok(())
    }

    pub(crate) fn finish(self) {
        self.bar.finish();
    }
}
