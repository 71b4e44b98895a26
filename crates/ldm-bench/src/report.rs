//! What a run found: the JSON file, which the comparison reads again. Times are in milliseconds unless named otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for, in words.
    pub load: String,
    /// Seed of the load.
    pub seed: u64,
    /// Seconds that were measured.
    pub measured_s: f64,
    /// All kinds together.
    pub total: Figures,
    /// Each kind.
    pub kinds: Vec<KindReport>,
    /// Each tenant.
    pub tenants: Vec<TenantReport>,
    /// How evenly tenants were served; `None` with one tenant.
    pub fairness: Option<Fairness>,
    /// Whether `Retry-After` was true; `None` when nothing was refused with one.
    pub retry_after: Option<Honesty>,
    /// What the server counted from the first request of the load to the last; `None` when it could not be read.
    pub server: Option<Server>,
    /// How well the generator kept up.
    pub generator: Generator,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
}

/// Counts and times of the requests that left while it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests: the sum of the four below. One that was sent again is one.
    pub sent: u64,
    /// Answered with pictures.
    pub ok: u64,
    /// Refused with 429 or 503.
    pub rejected: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Left by their client.
    pub cancelled: u64,
    /// Refused, by status.
    pub rejected_by: BTreeMap<String, u64>,
    /// Failed, by reason.
    pub failed_by: BTreeMap<String, u64>,
    /// Pictures per second that came while it was measured.
    pub images_per_s: f64,
    /// Pictures per second of requests that took at most three times their kind's solo time.
    pub goodput_3x: Option<f64>,
    /// The same for five times.
    pub goodput_5x: Option<f64>,
    /// From the scheduled time to the end of the answer, of requests that were answered with pictures.
    pub latency: Quantiles,
    /// The same, split.
    pub stages: StageQuantiles,
}

/// One kind's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindReport {
    /// The kind.
    pub name: String,
    /// Who sends it.
    pub tenant: String,
    /// Its median time on an idle server.
    pub solo_ms: Option<f64>,
    /// Evaluations of the network that one request of it takes, measured.
    pub evaluations: Option<f64>,
    /// Its figures.
    pub figures: Figures,
}

/// Where the time of answered requests went. A request for several pictures counts its slowest one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageQuantiles {
    /// From submission to the start of preparation.
    pub queue: Quantiles,
    /// Encoding prompts and pictures.
    pub prepare: Quantiles,
    /// From the end of preparation to the last step.
    pub steps: Quantiles,
    /// Latents to pixels.
    pub decode: Quantiles,
    /// Pixels to a file.
    pub encode: Quantiles,
    /// The rest of the latency: the network, reading and writing bodies, waiting to be sent, waiting to send again.
    pub other: Quantiles,
}

impl StageQuantiles {
    /// Each with its name, in the order in which a request goes through them.
    pub fn named(&self) -> [(&'static str, Quantiles); 6] {
        let Self { queue, prepare, steps, decode, encode, other } = *self;
        [("queue", queue), ("prepare", prepare), ("steps", steps), ("decode", decode), ("encode", encode), ("other", other)]
    }
}

/// A distribution, to three digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values; with 0 the rest means nothing.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95 % are at most this.
    pub p95: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// One tenant's share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantReport {
    /// The tenant.
    pub name: String,
    /// Its clients in a closed loop, where each tenant has its own.
    pub clients: Option<usize>,
    /// Pictures it asked for, without those of cancelled requests.
    pub images_asked: u64,
    /// Pictures it got.
    pub images_got: u64,
    /// Solo seconds of what it got.
    pub work_got_s: Option<f64>,
    /// From the scheduled time to the end of the answer.
    pub latency: Quantiles,
}

/// Jain's index over tenants, from 1 (even) down to one over their number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Of pictures got over demand: pictures asked for in an open loop, clients in a closed one.
    pub images_by_demand: Option<f64>,
    /// Open loop: of work got (in solo seconds) over the max-min fair share of all work done. A flood does not lower this if
    /// the modest are served first; it lowers the one above.
    pub work_by_fair_share: Option<f64>,
}

/// What `Retry-After` said, and what came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Honesty {
    /// Refusals with a time (the first hundred thousand).
    pub refusals: u64,
    /// What they said on average.
    pub told_mean_s: f64,
    /// How long after a refusal the next accepted request of anybody left: when there was a place again, as far as it was seen.
    pub place_free_mean_s: Option<f64>,
    /// All that was told over all of that.
    pub told_over_place_free: Option<f64>,
    /// Refused requests that were sent again.
    pub sent_again: u64,
    /// Of these, accepted the first time.
    pub accepted_at_first_retry: u64,
    /// Of these, accepted later.
    pub accepted_later: u64,
    /// Over requests that were accepted in the end: what was told first over how long it took until they were. 1 is true.
    pub told_over_accepted: Option<f64>,
}

/// What the server counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Evaluations of the network, once per job.
    pub steps: f64,
    /// Those that ended in no answered request: steps less what answered requests take alone. `None` without solo runs.
    pub wasted_steps: Option<f64>,
    /// Jobs by how they ended.
    pub jobs: BTreeMap<String, f64>,
    /// Requests that became no job, by reason.
    pub rejected: BTreeMap<String, f64>,
    /// Rows per network call.
    pub batches: Batches,
}

/// Rows per network call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batches {
    /// Network calls.
    pub calls: f64,
    /// Rows per call on average.
    pub mean_rows: Option<f64>,
    /// Calls by rows: at most so many (`null` is above all bounds) and more than the entry before, how many calls.
    pub histogram: Vec<(Option<f64>, f64)>,
}

/// How well the generator kept up with its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// From the scheduled time to when the request was sent. Next to nothing in a closed loop.
    pub lag: Quantiles,
    /// Requests that waited because too many were under way.
    pub waited: u64,
}
