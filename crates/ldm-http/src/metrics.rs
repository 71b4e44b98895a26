//! What is counted, and under which names Prometheus finds it. The engine tells it as its monitor.

use std::time::Duration;

use ldm_core::{Ending, Request};
use ldm_engine::{Monitor, Stage};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Seconds; a large picture on a slow device takes minutes.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Rows of a network call.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0];

/// The counters of one process, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    queue_depth: IntGauge,
    in_flight: IntGauge,
    steps: IntCounter,
    batch_rows: Histogram,
    stage_seconds: HistogramVec,
    jobs: IntCounterVec,
    failures: IntCounterVec,
    rejected: IntCounterVec,
}

/// Makes and registers collectors. Names and labels are literals, so neither can fail but by a slip that every test sees.
struct Book<'a>(&'a Registry);

impl Book<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("a metric's name is well-formed");
        self.0.register(Box::new(collector.clone())).expect("a metric's name is unique");
        collector
    }

    fn counts(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn seconds(&self, name: &str, help: &str, label: &str) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), &[label]))
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let book = Book(&registry);
        let build: IntGaugeVec = book
            .add(IntGaugeVec::new(Opts::new("latentd_build_info", "Always 1; the label says which build this is"), &["version"]));
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: book.counts(
                "latentd_requests_total",
                "HTTP requests; status 499 is a client that did not wait for the answer",
                &["route", "status"],
            ),
            request_seconds: book.seconds("latentd_request_seconds", "From request to the end of the answer", "route"),
            queue_depth: book.gauge("latentd_queue_depth", "Jobs that wait for the device"),
            in_flight: book.gauge("latentd_jobs_in_flight", "Jobs on the device"),
            steps: book.add(IntCounter::new("latentd_steps_total", "Evaluations of the network, counted once per job")),
            batch_rows: book.add(Histogram::with_opts(
                HistogramOpts::new("latentd_batch_rows", "Rows per network call").buckets(ROWS.to_vec()),
            )),
            stage_seconds: book.seconds("latentd_stage_seconds", "Time in a stage: per job, for step per network call", "stage"),
            jobs: book.counts("latentd_jobs_total", "Jobs that ended, by how", &["task", "model", "outcome"]),
            failures: book.counts("latentd_failures_total", "Jobs that failed, by reason", &["reason"]),
            rejected: book.counts("latentd_rejected_total", "Requests that became no job, by error code", &["reason"]),
            registry,
        }
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn answered(&self, route: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    pub(crate) fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[reason]).inc();
    }

    pub(crate) fn encoded(&self, took: Duration) {
        self.stage_seconds.with_label_values(&["encode"]).observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor for Metrics {
    fn load(&self, queued: usize, running: usize) {
        self.queue_depth.set(queued as i64);
        self.in_flight.set(running as i64);
    }

    fn batch(&self, jobs: usize, rows: u32) {
        self.steps.inc_by(jobs as u64);
        self.batch_rows.observe(f64::from(rows));
    }

    fn stage(&self, stage: Stage, took: Duration) {
        self.stage_seconds.with_label_values(&[stage.name()]).observe(took.as_secs_f64());
    }

    fn ended(&self, request: &Request, ending: &Ending) {
        let outcome = match ending {
            Ending::Finished(_) => "finished",
            Ending::Failed(failure) => {
                self.failures.with_label_values(&[failure.kind.name()]).inc();
                "failed"
            }
            Ending::Cancelled => "cancelled",
        };
        self.jobs.with_label_values(&[request.work.task().name(), &request.model, outcome]).inc();
    }
}
