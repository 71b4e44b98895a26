//! Two reports side by side, with ratios.

use std::fmt::Write;

use crate::report::{Figures, Quantiles, Report};
use crate::table::some;

/// A table of every figure of both reports, and the second over the first; kinds are matched by name.
pub fn compare(a: &Report, b: &Report) -> String {
    let mut out = format!("a: {}\nb: {}\n\n{:44} {:>12} {:>12} {:>8}\n", a.load, b.load, "", "a", "b", "b/a");
    figures(&mut out, "total", &a.total, &b.total);
    let index =
        |report: &Report| report.fairness.as_ref().map(|fairness| (fairness.images_by_demand, fairness.work_by_fair_share));
    let ((a_images, a_work), (b_images, b_work)) = (index(a).unwrap_or_default(), index(b).unwrap_or_default());
    row(&mut out, "Jain's index, pictures by demand", a_images, b_images);
    row(&mut out, "Jain's index, work by fair share", a_work, b_work);
    let servers = [a.server.as_ref(), b.server.as_ref()];
    let [a_steps, b_steps] = servers.map(|server| server.map(|server| server.steps));
    let [a_wasted, b_wasted] = servers.map(|server| server.and_then(|server| server.wasted_steps));
    let [a_rows, b_rows] = servers.map(|server| server.and_then(|server| server.batches.mean_rows));
    row(&mut out, "steps", a_steps, b_steps);
    row(&mut out, "wasted steps", a_wasted, b_wasted);
    row(&mut out, "rows per network call", a_rows, b_rows);
    for kind in &a.kinds {
        if let Some(other) = b.kinds.iter().find(|other| other.name == kind.name) {
            row(&mut out, &format!("{}: solo ms", kind.name), kind.solo_ms, other.solo_ms);
            figures(&mut out, &kind.name, &kind.figures, &other.figures);
        }
    }
    out
}

fn figures(out: &mut String, name: &str, a: &Figures, b: &Figures) {
    let count = |figures: &Figures, part: u64| (figures.sent > 0).then(|| part as f64 / figures.sent as f64);
    row(out, &format!("{name}: images/s"), Some(a.images_per_s), Some(b.images_per_s));
    row(out, &format!("{name}: goodput 3x"), a.goodput_3x, b.goodput_3x);
    row(out, &format!("{name}: goodput 5x"), a.goodput_5x, b.goodput_5x);
    row(out, &format!("{name}: share answered"), count(a, a.ok), count(b, b.ok));
    quantiles(out, &format!("{name}: latency"), a.latency, b.latency);
    for ((stage, a), (_, b)) in a.stages.named().into_iter().zip(b.stages.named()) {
        quantiles(out, &format!("{name}: {stage}"), a, b);
    }
}

fn quantiles(out: &mut String, name: &str, a: Quantiles, b: Quantiles) {
    let known = |quantiles: Quantiles, value: f64| (quantiles.count > 0).then_some(value);
    for (quantile, a, b) in [
        ("p50", known(a, a.p50), known(b, b.p50)),
        ("p95", known(a, a.p95), known(b, b.p95)),
        ("p99", known(a, a.p99), known(b, b.p99)),
    ] {
        row(out, &format!("{name} {quantile} ms"), a, b);
    }
}

/// A row, if either report has the figure.
fn row(out: &mut String, name: &str, a: Option<f64>, b: Option<f64>) {
    if a.is_none() && b.is_none() {
        return;
    }
    let ratio = a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name:44} {:>12} {:>12} {:>8}", some(a), some(b), some(ratio));
}

/// A table of runs under one load, one line each, with ratios to the first.
pub fn side_by_side(runs: &[(&str, &Report)]) -> String {
    let head = ["images/s", "p50 ms", "p95 ms", "p99 ms", "good 3x", "rows/call", "images/s", "p95"];
    let mut out = format!("{:16}", "policy");
    head.iter().for_each(|name| out.push_str(&format!(" {name:>10}")));
    out.push_str(" (the last two: over the first line's)\n");
    let Some((_, first)) = runs.first() else { return out };
    for (name, report) in runs {
        let Figures { images_per_s, latency, goodput_3x, .. } = &report.total;
        let rows = report.server.as_ref().and_then(|server| server.batches.mean_rows);
        let ratio = |now: f64, then: f64| (then != 0.0).then(|| now / then);
        let known = |value: f64| (latency.count > 0).then_some(value);
        let cells = [
            Some(*images_per_s),
            known(latency.p50),
            known(latency.p95),
            known(latency.p99),
            *goodput_3x,
            rows,
            ratio(*images_per_s, first.total.images_per_s),
            ratio(latency.p95, first.total.latency.p95),
        ];
        let _ = write!(out, "{name:16}");
        cells.iter().for_each(|cell| out.push_str(&format!(" {:>10}", some(*cell))));
        out.push('\n');
    }
    out
}
