//! A report for people.

use std::fmt::{self, Display, Formatter};

use crate::report::{Figures, Quantiles, Report, Server};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; measured {:.1} s\n", self.load, self.measured_s)?;
        let width = self.kinds.iter().map(|kind| kind.name.chars().count()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
            "kind", "sent", "ok", "refused", "failed", "gone", "images/s", "good 3x", "good 5x", "solo ms"
        )?;
        let row = |f: &mut Formatter<'_>, name: &str, figures: &Figures, solo: Option<f64>| {
            let Figures { sent, ok, rejected, failed, cancelled, images_per_s, .. } = figures;
            let (good3, good5, solo) = (some(figures.goodput_3x), some(figures.goodput_5x), some(solo));
            writeln!(
                f,
                "{name:width$} {sent:>7} {ok:>7} {rejected:>7} {failed:>7} {cancelled:>7} {images_per_s:>9.2} {good3:>9} {good5:>9} {solo:>9}"
            )
        };
        for kind in &self.kinds {
            row(f, &kind.name, &kind.figures, kind.solo_ms)?;
        }
        row(f, "total", &self.total, None)?;
        self.times(f, width)?;
        self.tenants(f)?;
        self.rest(f)
    }
}

impl Report {
    fn times(&self, f: &mut Formatter<'_>, width: usize) -> fmt::Result {
        writeln!(f, "\n{:width$} {:>10} {:>10} {:>10} {:>10} {:>10}", "ms", "mean", "p50", "p95", "p99", "max")?;
        for kind in &self.kinds {
            quantiles(f, &kind.name, width, &kind.figures.latency)?;
        }
        quantiles(f, "total", width, &self.total.latency)?;
        for (name, stage) in self.total.stages.named() {
            quantiles(f, &format!("  {name}"), width, &stage)?;
        }
        if self.generator.lag.max > 0.0 {
            quantiles(f, "left late by", width, &self.generator.lag)?;
        }
        Ok(())
    }

    fn tenants(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(fairness) = &self.fairness else { return Ok(()) };
        writeln!(f)?;
        for tenant in &self.tenants {
            let clients = tenant.clients.map_or_else(String::new, |clients| format!(", {clients} clients"));
            let (got, asked) = (tenant.images_got, tenant.images_asked);
            writeln!(f, "tenant {}: {got} of {asked} pictures, p95 {:.1} ms{clients}", tenant.name, tenant.latency.p95)?;
        }
        let (images, work) = (some(fairness.images_by_demand), some(fairness.work_by_fair_share));
        writeln!(f, "Jain's index: {images} of pictures by demand, {work} of work by fair share")
    }

    fn rest(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(told) = &self.retry_after {
            writeln!(
                f,
                "\nRetry-After: {} refusals said {:.1} s on average; a place was seen after {} s (told/true {})",
                told.refusals,
                told.told_mean_s,
                some(told.place_free_mean_s),
                some(told.told_over_place_free)
            )?;
            let (again, first, later) = (told.sent_again, told.accepted_at_first_retry, told.accepted_later);
            if again > 0 {
                let ratio = some(told.told_over_accepted);
                writeln!(f, "  {again} were sent again: {first} accepted the first time, {later} later (told/true {ratio})")?;
            }
        }
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        for (reason, count) in &self.total.failed_by {
            writeln!(f, "failed {count} times: {reason}")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let jobs: Vec<_> = self.jobs.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        writeln!(f, "\nserver, with the warm-up: jobs {}", if jobs.is_empty() { "none".to_owned() } else { jobs.join(", ") })?;
        let wasted = self.wasted_steps.map_or("-".to_owned(), |wasted| match self.steps {
            0.0 => "0".to_owned(),
            steps => format!("{wasted:.0} ({:.1} %)", 100.0 * wasted / steps),
        });
        writeln!(f, "steps {:.0}, wasted {wasted}", self.steps)?;
        write!(f, "rows per network call {} on average:", some(self.batches.mean_rows))?;
        for (bound, calls) in &self.batches.histogram {
            let bound = bound.map_or("more".to_owned(), |bound| format!("≤{bound}"));
            write!(f, " {bound}: {:.0} %", 100.0 * calls / self.batches.calls)?;
        }
        writeln!(f)
    }
}

fn quantiles(f: &mut Formatter<'_>, name: &str, width: usize, times: &Quantiles) -> fmt::Result {
    if times.count == 0 {
        return writeln!(f, "{name:width$} {:>10}", "-");
    }
    let Quantiles { mean, p50, p95, p99, max, .. } = times;
    writeln!(f, "{name:width$} {mean:>10.2} {p50:>10.2} {p95:>10.2} {p99:>10.2} {max:>10.2}")
}

/// To three digits or so, or a dash.
pub(crate) fn some(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") })
}
