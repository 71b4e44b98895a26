//! Where an answer's time went, as the header `Server-Timing` says it (W3C Server Timing).

use std::fmt::Write;
use std::time::Duration;

use ldm_core::Timings;

/// The stages of an answer. Of several pictures, which are made side by side, each stage is that of the slowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stages {
    job: Timings,
    image: Duration,
    /// Whether a picture came of it.
    any: bool,
}

impl Stages {
    /// One more picture: its job's times, and that of writing its file.
    pub(crate) fn add(&mut self, job: Timings, image: Duration) {
        let own = &mut self.job;
        own.queued = own.queued.max(job.queued);
        own.prepare = own.prepare.max(job.prepare);
        own.steps = own.steps.max(job.steps);
        own.decode = own.decode.max(job.decode);
        (self.image, self.any) = (self.image.max(image), true);
    }

    /// The header's value; `total` is from the request's arrival.
    pub(crate) fn header(&self, total: Duration) -> String {
        let mut text = String::with_capacity(128);
        // Writing to a string does not fail.
        if self.any {
            let job = self.job;
            let stages = [("queue", job.queued), ("prepare", job.prepare), ("denoise", job.steps), ("decode", job.decode)];
            for (name, took) in stages.into_iter().chain([("image", self.image)]) {
                let _ = write!(text, "{name};dur={:.3}, ", ms(took));
            }
        }
        let _ = write!(text, "total;dur={:.3}", ms(total));
        text
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_that_of_the_slowest_picture() {
        let ms = Duration::from_millis;
        let mut stages = Stages::default();
        assert_eq!(stages.header(Duration::from_micros(1500)), "total;dur=1.500");
        stages.add(Timings { queued: ms(1), prepare: ms(2), steps: ms(3), decode: ms(9) }, ms(1));
        stages.add(Timings { queued: ms(5), prepare: ms(1), steps: ms(4), decode: ms(2) }, ms(2));
        let header = stages.header(ms(30));
        assert_eq!(
            header,
            "queue;dur=5.000, prepare;dur=2.000, denoise;dur=4.000, decode;dur=9.000, image;dur=2.000, total;dur=30.000"
        );
    }
}
