//! What is read at the service when somebody looks: the queues, the workers, their models, the process's memory.

use std::sync::PoisonError;

use ldm_core::Priority;
use ldm_engine::{Readiness, Service, WorkerStatus};
use prometheus::{Gauge, GaugeVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::book::Book;

/// How things stand at this moment.
pub(super) struct Standing {
    ready: IntGaugeVec,
    depth: IntGaugeVec,
    oldest: GaugeVec,
    outstanding: GaugeVec,
    backlog: Gauge,
    loaded: IntGaugeVec,
    model_bytes: IntGaugeVec,
    memory: IntGauge,
}

impl Standing {
    pub(super) fn new(book: &mut Book) -> Self {
        let queue = ["worker", "priority"];
        Self {
            ready: book.labelled_gauge("latentd_worker_ready", "1 when the worker takes jobs", &["worker"]),
            depth: book.labelled_gauge("latentd_queue_depth", "Jobs that wait, where they wait", &queue),
            oldest: book.labelled_real_gauge(
                "latentd_queue_oldest_wait_seconds",
                "How long the first of them has waited",
                &queue,
            ),
            outstanding: book.labelled_real_gauge(
                "latentd_outstanding_seconds",
                "Device time of what is unfinished at the worker, as measured",
                &["worker"],
            ),
            backlog: book.real_gauge("latentd_backlog_seconds", "Device time of all that is unfinished: what to scale on"),
            loaded: book.labelled_gauge("latentd_model_loaded", "1 when the worker holds the weights", &["worker", "model"]),
            model_bytes: book.labelled_gauge("latentd_model_bytes", "Bytes of the worker's loaded models", &["worker"]),
            memory: book.gauge("process_resident_memory_bytes", "Resident memory of the process"),
        }
    }

    fn read(&mut self, workers: &[WorkerStatus], models: &super::Bounded) {
        // Models that have gone shall not stay for ever.
        self.loaded.reset();
        for worker in workers {
            let name = worker.name.as_str();
            self.ready.with_label_values(&[name]).set((worker.readiness == Readiness::Ready).into());
            for (at, priority) in Priority::ALL.into_iter().enumerate() {
                self.depth.with_label_values(&[name, priority.name()]).set(worker.waiting[at] as i64);
                self.oldest.with_label_values(&[name, priority.name()]).set(worker.oldest_wait[at].as_secs_f64());
            }
            self.outstanding.with_label_values(&[name]).set(worker.outstanding);
            let loaded = worker.residents.iter().filter(|resident| resident.loaded);
            self.model_bytes.with_label_values(&[name]).set(loaded.map(|resident| resident.bytes as i64).sum());
            for resident in &worker.residents {
                self.loaded.with_label_values(&[name, models.label(&resident.id)]).set(resident.loaded.into());
            }
        }
        self.backlog.set(workers.iter().map(|worker| worker.outstanding).sum());
        if let Some(bytes) = resident_memory() {
            self.memory.set(bytes);
        }
    }
}

impl Metrics {
    /// Everything in Prometheus' text format, as it stands now.
    pub fn scrape(&self, service: &Service) -> String {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.read(&service.workers(), &self.models);
        self.text()
    }
}

/// The process's resident memory in bytes, where the system tells (`proc(5)`).
fn resident_memory() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
