//! What a server counts, read from Prometheus' text format; differences of two readings are what a run cost.

use std::collections::BTreeMap;

/// Counters since the server's start, or between two readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Evaluations of the network, once per job.
    pub steps: f64,
    /// Network calls.
    pub calls: f64,
    /// Rows of all network calls together.
    pub rows: f64,
    /// Network calls with at most so many rows, by that bound; the last bound may be infinite.
    pub calls_within: Vec<(f64, f64)>,
    /// Jobs by how they ended: `finished`, `failed`, `cancelled`.
    pub jobs: BTreeMap<String, f64>,
    /// Requests that became no job, by reason.
    pub rejected: BTreeMap<String, f64>,
    /// Jobs that wait or run now.
    pub unfinished: f64,
}

impl Counters {
    /// Reads the metrics of `docs/http-api.md`; unknown ones are skipped, and labels that are not named here summed over.
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            match name {
                "latentd_steps_total" => read.steps += value,
                "latentd_batch_rows_count" => read.calls += value,
                "latentd_batch_rows_sum" => read.rows += value,
                "latentd_batch_rows_bucket" => {
                    if let Some(bound) = label(labels, "le").and_then(bound) {
                        read.add_calls(bound, value);
                    }
                }
                "latentd_jobs_total" => add(&mut read.jobs, label(labels, "outcome"), value),
                "latentd_rejected_total" => add(&mut read.rejected, label(labels, "reason"), value),
                "latentd_jobs_unfinished" => read.unfinished += value,
                _ => {}
            }
        }
        read.calls_within.sort_by(|a, b| a.0.total_cmp(&b.0));
        read
    }

    fn add_calls(&mut self, bound: f64, value: f64) {
        match self.calls_within.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, calls)) => *calls += value,
            None => self.calls_within.push((bound, value)),
        }
    }

    /// What was counted since `earlier`; [`unfinished`](Self::unfinished) stays as it is now.
    pub fn since(&self, earlier: &Self) -> Self {
        // A bound that was not there before had as many calls below it as the next lower one.
        let before =
            |bound: f64| earlier.calls_within.iter().rfind(|(known, _)| *known <= bound).map_or(0.0, |(_, calls)| *calls);
        let less = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            let rest = |(name, value): (&String, &f64)| (name.clone(), value - before.get(name).unwrap_or(&0.0));
            now.iter().map(rest).filter(|(_, value)| *value != 0.0).collect()
        };
        Self {
            steps: self.steps - earlier.steps,
            calls: self.calls - earlier.calls,
            rows: self.rows - earlier.rows,
            calls_within: self.calls_within.iter().map(|&(bound, calls)| (bound, calls - before(bound))).collect(),
            jobs: less(&self.jobs, &earlier.jobs),
            rejected: less(&self.rejected, &earlier.rejected),
            unfinished: self.unfinished,
        }
    }

    /// Network calls by rows: the largest number of rows in each group (`None` is above all bounds), and how many calls.
    pub fn histogram(&self) -> Vec<(Option<f64>, f64)> {
        let mut below = 0.0;
        let groups = self.calls_within.iter().map(|&(bound, calls)| {
            let alone = calls - below;
            below = calls;
            (Some(bound).filter(|bound| bound.is_finite()), alone)
        });
        groups.filter(|(_, calls)| *calls > 0.0).collect()
    }
}

fn add(sums: &mut BTreeMap<String, f64>, name: Option<&str>, value: f64) {
    if let Some(name) = name {
        *sums.entry(name.to_owned()).or_default() += value;
    }
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

/// Name, labels between the braces, value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let name = line.split(['{', ' ']).next()?;
    let rest = &line[name.len()..];
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The value of a label. Ours hold no quotes, so escapes are not undone.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let (value, next) = after.split_once('"')?;
        if key.trim_start_matches(',').trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE latentd_steps_total counter\nlatentd_steps_total 10\n\
        latentd_batch_rows_bucket{le=\"1\"} 1\nlatentd_batch_rows_bucket{le=\"+Inf\"} 1\n\
        latentd_batch_rows_sum 1\nlatentd_batch_rows_count 1\n\
        latentd_jobs_total{model=\"a\",outcome=\"finished\",task=\"txt2img\"} 3\n";
    const AFTER: &str = "latentd_steps_total 35\n\
        latentd_batch_rows_bucket{le=\"1\"} 2\nlatentd_batch_rows_bucket{le=\"4\"} 5\nlatentd_batch_rows_bucket{le=\"+Inf\"} 6\n\
        latentd_batch_rows_sum 20\nlatentd_batch_rows_count 6\n\
        latentd_jobs_total{model=\"a\",outcome=\"finished\",task=\"txt2img\"} 5\n\
        latentd_jobs_total{model=\"b\",outcome=\"finished\",task=\"txt2img\"} 1\n\
        latentd_jobs_total{model=\"b\",outcome=\"cancelled\",task=\"txt2img\"} 2\n\
        latentd_rejected_total{reason=\"queue_full\"} 4\nlatentd_jobs_unfinished{state=\"waiting\"} 2\nlatentd_jobs_unfinished{state=\"running\"} 1\nnonsense\n";

    #[test]
    fn two_readings_differ_by_what_happened_between() {
        let spent = Counters::read(AFTER).since(&Counters::read(BEFORE));
        assert_eq!((spent.steps, spent.calls, spent.rows, spent.unfinished), (25.0, 5.0, 19.0, 3.0));
        assert_eq!(spent.jobs, BTreeMap::from([("finished".to_owned(), 3.0), ("cancelled".to_owned(), 2.0)]));
        assert_eq!(spent.rejected, BTreeMap::from([("queue_full".to_owned(), 4.0)]));
        // Before, nothing was above 1 and there was no bound of 4: all of its calls are below.
        let before = Counters::read("latentd_batch_rows_bucket{le=\"4\"} 1\n");
        assert_eq!(Counters::read(AFTER).since(&before).calls_within[1], (4.0, 4.0));
        assert_eq!(Counters::read(AFTER).histogram(), [(Some(1.0), 2.0), (Some(4.0), 3.0), (None, 1.0)]);
    }
}
