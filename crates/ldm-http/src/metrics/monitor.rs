//! What the engine tells, taken down.

use std::time::Duration;

use ldm_core::{Ending, Request, Tenant, Terms};
use ldm_engine::{Batch, CacheCounts, Incident, Load, Monitor, Stage};

use super::Metrics;

/// The label of a job that has no reason to give.
const NONE: &str = "none";

impl Monitor for Metrics {
    fn accepted(&self, request: &Request, terms: &Terms) {
        self.accepted.with_label_values(&[request.work.task().name(), terms.priority.name()]).inc();
    }

    fn load(&self, load: &Load) {
        self.waiting.set(load.queued as i64);
        self.running.set(load.running as i64);
        self.held_bytes.set(load.bytes as i64);
    }

    fn batch(&self, batch: Batch<'_>) {
        self.steps.inc_by(batch.jobs as u64);
        self.batch_rows.observe(f64::from(batch.rows));
        self.spare_rows.inc_by(u64::from(batch.spare));
        self.call_seconds.with_label_values(&[batch.worker]).inc_by(batch.took.as_secs_f64());
    }

    fn stage(&self, stage: Stage, took: Duration) {
        // Looked up once at the start: this is called at every step.
        let seconds = match stage {
            Stage::Queue => &self.stages[0],
            Stage::Prepare => &self.stages[1],
            Stage::Step => &self.stages[2],
            Stage::Decode => &self.stages[3],
        };
        seconds.observe(took.as_secs_f64());
    }

    fn worked(&self, tenant: &Tenant, took: Duration) {
        self.device_seconds.with_label_values(&[self.tenants.label(tenant.name())]).inc_by(took.as_secs_f64());
    }

    fn cache(&self, counts: CacheCounts) {
        self.cache[0].inc_by(counts.hits);
        self.cache[1].inc_by(counts.misses);
    }

    fn wasted(&self, steps: u32) {
        self.wasted.inc_by(u64::from(steps));
    }

    fn incident(&self, incident: Incident<'_>) {
        let count = |counter: &prometheus::IntCounterVec, label: &str| counter.with_label_values(&[label]).inc();
        match incident {
            Incident::Loaded(model, took) => {
                count(&self.loads, self.models.label(model));
                self.load_seconds.observe(took.as_secs_f64());
            }
            Incident::LoadFailed(model) => count(&self.load_failures, self.models.label(model)),
            Incident::Evicted(model) => count(&self.evictions, self.models.label(model)),
            Incident::Retired(worker) => count(&self.retirements, worker),
            Incident::Restarted(worker) => count(&self.restarts, worker),
            Incident::Survived(kind) => count(&self.survived, kind.name()),
        }
    }

    fn ended(&self, request: &Request, _: &Terms, ending: &Ending) {
        let (outcome, reason) = match ending {
            Ending::Finished(_) => ("finished", NONE),
            Ending::Failed(failure) => ("failed", failure.kind.name()),
            Ending::Cancelled => ("cancelled", NONE),
        };
        let model = self.models.label(&request.model);
        self.jobs.with_label_values(&[request.work.task().name(), model, outcome, reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use ldm_core::FailureKind;

    use super::*;

    #[test]
    fn incidents_are_counted_by_whom_they_befell() {
        let metrics = Metrics::new();
        for incident in [
            Incident::Loaded("m", Duration::from_secs(3)),
            Incident::LoadFailed("m"),
            Incident::Evicted("m"),
            Incident::Retired("cuda:0"),
            Incident::Restarted("cuda:0"),
            Incident::Survived(FailureKind::OutOfMemory),
        ] {
            metrics.incident(incident);
        }
        metrics.worked(&Tenant::new("a"), Duration::from_millis(1500));
        metrics.wasted(7);
        metrics.cache(CacheCounts { hits: 3, misses: 2 });
        metrics.batch(Batch { worker: "cpu", jobs: 1, rows: 2, spare: 6, took: Duration::from_secs(1) });
        let text = metrics.text();
        for line in [
            r#"latentd_model_loads_total{model="m"} 1"#,
            "latentd_model_load_seconds_sum 3",
            r#"latentd_model_load_failures_total{model="m"} 1"#,
            r#"latentd_model_evictions_total{model="m"} 1"#,
            r#"latentd_worker_retirements_total{worker="cuda:0"} 1"#,
            r#"latentd_worker_restarts_total{worker="cuda:0"} 1"#,
            r#"latentd_faults_survived_total{kind="out_of_memory"} 1"#,
            r#"latentd_device_seconds_total{tenant="a"} 1.5"#,
            "latentd_wasted_steps_total 7",
            r#"latentd_prompt_cache_total{outcome="hit"} 3"#,
            r#"latentd_prompt_cache_total{outcome="miss"} 2"#,
            "latentd_batch_spare_rows_total 6",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_thousand_tenants_are_sixty_five_lines() {
        let metrics = Metrics::new();
        (0..1000).for_each(|i| metrics.worked(&Tenant::new(&format!("t{i}")), Duration::from_millis(1)));
        let text = metrics.text();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("latentd_device_seconds_total{")).count(),
            super::super::TENANTS + 1
        );
    }
}
