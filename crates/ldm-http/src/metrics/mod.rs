//! What is counted, and under which names Prometheus finds it. The engine tells it as its monitor.
//!
//! `docs/operations.md` lists every metric, and a test holds that list against this one. No label is a prompt, an id of a job or
//! anything else that a client writes freely: labels from outside (tenants, models) are bounded in number.

mod book;
mod labels;
mod monitor;
mod scrape;

use std::sync::Mutex;
use std::time::Duration;

use ldm_engine::Stage;
use prometheus::CounterVec;
use prometheus::{Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use book::Book;
use labels::Bounded;
use scrape::Standing;

/// Tenants that have a label of their own; the rest is `other`.
const TENANTS: usize = 64;
/// Models that have a label of their own; the rest is `other`.
const MODELS: usize = 256;

/// The engine's stages, in the order in which they are kept here.
const STAGES: [Stage; 4] = [Stage::Queue, Stage::Prepare, Stage::Step, Stage::Decode];

/// The counters of one process, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    waiting: IntGauge,
    running: IntGauge,
    held_bytes: IntGauge,
    accepted: IntCounterVec,
    jobs: IntCounterVec,
    rejected: IntCounterVec,
    cut: IntCounterVec,
    steps: IntCounter,
    wasted: IntCounter,
    batch_rows: Histogram,
    spare_rows: IntCounter,
    /// Hits, misses.
    cache: [IntCounter; 2],
    call_seconds: CounterVec,
    stages: [Histogram; 4],
    image_seconds: Histogram,
    device_seconds: CounterVec,
    loads: IntCounterVec,
    load_seconds: Histogram,
    load_failures: IntCounterVec,
    evictions: IntCounterVec,
    retirements: IntCounterVec,
    restarts: IntCounterVec,
    survived: IntCounterVec,
    webhooks: IntCounterVec,
    webhooks_abandoned: IntCounter,
    tenants: Bounded,
    models: Bounded,
    /// Read when somebody looks; one at a time.
    standing: Mutex<Standing>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut book = Book::default();
        book.labelled_gauge("latentd_build_info", "Always 1; the label says which build this is", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let standing = Mutex::new(Standing::new(&mut book));
        let unfinished = book.labelled_gauge("latentd_jobs_unfinished", "Jobs that wait for a device, or run on one", &["state"]);
        let cache = book.counts("latentd_prompt_cache_total", "Prompts whose embedding was known, or computed", &["outcome"]);
        let stage = book.seconds("latentd_stage_seconds", "Time in a stage: per job, for step per network call", &["stage"]);
        Self {
            standing,
            requests: book.counts(
                "latentd_requests_total",
                "HTTP requests; status 499 is a client that went away",
                &["route", "status"],
            ),
            request_seconds: book.seconds("latentd_request_seconds", "From request to the end of the answer", &["route"]),
            waiting: unfinished.with_label_values(&["waiting"]),
            running: unfinished.with_label_values(&["running"]),
            held_bytes: book.gauge("latentd_jobs_held_bytes", "Bytes that unfinished jobs hold: requests and pictures"),
            accepted: book.counts("latentd_jobs_accepted_total", "Jobs that were accepted", &["task", "priority"]),
            jobs: book.counts("latentd_jobs_total", "Jobs that ended, how and why", &["task", "model", "outcome", "reason"]),
            rejected: book.counts("latentd_rejected_total", "Requests that became no job, by error code", &["reason"]),
            cut: book.counts("latentd_connections_cut_total", "Connections that were cut, by what was too much", &["reason"]),
            steps: book.count("latentd_steps_total", "Evaluations of the network, counted once per job"),
            wasted: book.count("latentd_wasted_steps_total", "Steps of jobs that ended without a picture"),
            batch_rows: book.rows("latentd_batch_rows", "Rows per network call"),
            spare_rows: book
                .count("latentd_batch_spare_rows_total", "Rows that network calls had room for besides, under their cap"),
            cache: ["hit", "miss"].map(|outcome| cache.with_label_values(&[outcome])),
            call_seconds: book.sums("latentd_network_call_seconds_total", "Time in network calls", &["worker"]),
            stages: STAGES.map(|name| stage.with_label_values(&[name.name()])),
            image_seconds: stage.with_label_values(&["image"]),
            device_seconds: book.sums("latentd_device_seconds_total", "Device time by who asked for it", &["tenant"]),
            loads: book.counts("latentd_model_loads_total", "Models whose weights were read while serving", &["model"]),
            load_seconds: book.plain_seconds("latentd_model_load_seconds", "Time to read a model's weights"),
            load_failures: book.counts("latentd_model_load_failures_total", "Models whose weights could not be read", &["model"]),
            evictions: book.counts("latentd_model_evictions_total", "Models that made room for another", &["model"]),
            retirements: book.counts("latentd_worker_retirements_total", "Workers that were taken out of service", &["worker"]),
            restarts: book.counts("latentd_worker_restarts_total", "Workers that began again", &["worker"]),
            survived: book.counts("latentd_faults_survived_total", "Calls that failed and whose jobs went on", &["kind"]),
            webhooks: book.counts("latentd_webhook_attempts_total", "Calls of webhooks by what came of them", &["outcome"]),
            webhooks_abandoned: book.count("latentd_webhooks_abandoned_total", "Ends of jobs that nobody took in time"),
            tenants: Bounded::new(TENANTS),
            models: Bounded::new(MODELS),
            names: book.names,
            registry: book.registry,
        }
    }

    /// Everything in Prometheus' text format, but what [`scrape`](Self::scrape) reads at the service.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The names of all metrics, whether they have a value yet or not, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn answered(&self, route: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    pub(crate) fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    /// A webhook was called: `delivered`, `failed` or `blocked`.
    pub(crate) fn webhook(&self, outcome: &str) {
        self.webhooks.with_label_values(&[outcome]).inc();
    }

    /// An end is told no more.
    pub(crate) fn webhook_abandoned(&self) {
        self.webhooks_abandoned.inc();
    }

    /// A connection was cut.
    pub(crate) fn cut(&self, reason: &str) {
        self.cut.with_label_values(&[reason]).inc();
    }

    /// A picture's file was written.
    pub(crate) fn encoded(&self, took: Duration) {
        self.image_seconds.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned());
        let mut listed: Vec<String> = rows.filter(|name| name.starts_with("latentd_") || name.starts_with("process_")).collect();
        listed.sort();
        let mut known = Metrics::new().names().to_vec();
        known.sort();
        assert_eq!(listed, known, "the table in docs/operations.md");
    }

    #[test]
    fn dashboard_and_alerts_ask_for_metrics_that_exist() {
        let metrics = Metrics::new();
        for file in ["grafana/latentd.json", "prometheus/latentd.rules.yml"] {
            let text = std::fs::read_to_string(format!("{}/../../deploy/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let asked: Vec<_> = words.filter(|word| word.starts_with("latentd_")).collect();
            assert!(asked.len() > 5, "{file}");
            for name in asked {
                let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                assert!(metrics.names().iter().any(|known| known == plain), "{file}: {name}");
            }
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for name in Metrics::new().names() {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(name.starts_with("latentd_") || name.starts_with("process_"), "{name}");
            assert!(!["_ms", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)), "{name}");
        }
    }
}
