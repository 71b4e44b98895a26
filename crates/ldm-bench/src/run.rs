//! A whole run: solo times, load, report.

use std::sync::Arc;

use crate::load::{Ground, put_on};
use crate::report::{Batches, Fairness, Figures, Generator, KindReport, Report, Server, TenantReport};
use crate::solo::{self, Solo, idle_counters};
use crate::tally::{Count, Tally};
use crate::targets::{Counters, Target};
use crate::{Length, Load, Mix, Options, OptionsError, jain, max_min};

/// A generator whose requests leave later than this (p99, in milliseconds) does not keep up.
const LATE: f64 = 20.0;

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// A setting cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A kind did not even work alone.
    #[error("kind {kind:?} alone: {reason}")]
    Alone {
        /// The kind.
        kind: String,
        /// What came instead of a picture.
        reason: String,
    },
}

/// Measures solo times, puts the load on `target`, and sums up. `tell` hears what is going on, a line each time.
///
/// # Errors
/// When a setting cannot be, or a kind fails on the idle server. What fails under load is in the report.
pub async fn run<T: Target>(target: T, mix: Mix, options: Options, tell: impl Fn(&str)) -> Result<Report, BenchError> {
    options.check()?;
    let target = Arc::new(target);
    let solos = solo::measure(&*target, &mix, &options, &tell).await?;
    let before = idle_counters(&*target, options.timeout).await;
    let load = words(&options);
    tell(&format!("load: {load}"));
    let ground = Arc::new(Ground::new(Arc::clone(&target), mix, options, solos));
    let clients = put_on(&ground).await;
    let after = idle_counters(&*target, ground.options.timeout).await;
    let counted = after.and_then(|after| before.map(|before| after.since(&before)));
    Ok(report(&ground, load, clients.as_deref(), counted))
}

fn words(options: &Options) -> String {
    let load = match options.load {
        Load::Open { rate } => format!("open loop, {rate} requests/s"),
        Load::Closed { concurrency } => format!("closed loop, {concurrency} clients"),
    };
    let length = match options.length {
        Length::Time(time) => format!("{time:?}"),
        Length::Requests(count) => format!("{count} requests"),
    };
    let cancels = match options.cancel_share {
        0.0 => String::new(),
        share => format!(", {:.0} % of clients cancel", share * 100.0),
    };
    let retries = match options.retries {
        0 => String::new(),
        count => format!(", up to {count} retries"),
    };
    format!("{load}, {length} after {:?}{cancels}{retries}", options.warmup)
}

fn report<T: Target>(ground: &Ground<T>, load: String, clients: Option<&[usize]>, counted: Result<Counters, String>) -> Report {
    let (mix, options) = (&ground.mix, &ground.options);
    let mut tally = ground.tally();
    let seconds = match options.length {
        Length::Time(time) => time.as_secs_f64(),
        Length::Requests(_) => (tally.last - ground.from()).as_secs_f64(),
    };
    let known = options.solo_runs > 0;
    let tenants = tenants(mix, &tally, &ground.solos, clients);
    let generator = Generator { lag: tally.lag.quantiles(), waited: tally.waited };
    let kinds = mix.kinds.iter().zip(&ground.solos).zip(&tally.kinds).map(|((kind, solo), count)| KindReport {
        name: kind.name.clone(),
        tenant: mix.tenants[kind.tenant].name.clone(),
        solo_ms: solo.time.map(|time| time.as_secs_f64() * 1000.0),
        evaluations: solo.evaluations,
        figures: count.figures(seconds, known),
    });
    let kinds: Vec<_> = kinds.collect();
    let total = joined(&tally.kinds).figures(seconds, known);
    let mut warnings = warnings(&generator, &total, options);
    let server = counted.map(|counted| server(&counted, &ground.solos, &tally, &mut warnings));
    let server = server.inspect_err(|reason| warnings.push(format!("the server's counters could not be read: {reason}"))).ok();
    Report {
        load,
        seed: options.seed,
        measured_s: seconds,
        total,
        kinds,
        fairness: (tenants.len() > 1).then(|| fairness(mix, &tally, &ground.solos, clients)),
        tenants,
        retry_after: tally.ledger.sum_up(),
        server,
        generator,
        warnings,
    }
}

fn joined<'a>(counts: impl IntoIterator<Item = &'a Count>) -> Count {
    let mut sum = Count::new();
    counts.into_iter().for_each(|count| sum.join(count));
    sum
}

fn warnings(generator: &Generator, total: &Figures, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    if generator.waited > 0 {
        let limit = options.in_flight;
        warnings
            .push(format!("{} requests left late because {limit} were under way: raise the limit in flight", generator.waited));
    }
    if generator.lag.p99 > LATE && generator.waited == 0 {
        let lag = generator.lag.p99;
        warnings
            .push(format!("the generator is overloaded: 1 % of requests left {lag:.1} ms late or more; latencies include it"));
    }
    if total.sent < 100 {
        warnings.push(format!("{} requests are few for a p99", total.sent));
    }
    warnings
}

/// The kinds of one tenant with what became of them.
fn of_tenant<'a>(mix: &'a Mix, tally: &'a Tally, tenant: usize) -> impl Iterator<Item = (usize, &'a Count)> {
    tally.kinds.iter().enumerate().filter(move |(kind, _)| mix.kinds[*kind].tenant == tenant)
}

/// Pictures that were asked for and not cancelled.
fn asked(mix: &Mix, kind: usize, count: &Count) -> f64 {
    (count.sent() - count.cancelled) as f64 * f64::from(mix.kinds[kind].images)
}

fn tenants(mix: &Mix, tally: &Tally, solos: &[Solo], clients: Option<&[usize]>) -> Vec<TenantReport> {
    let one = |(tenant, sender): (usize, &crate::Sender)| TenantReport {
        name: sender.name.clone(),
        clients: clients.map(|clients| clients[tenant]),
        images_asked: of_tenant(mix, tally, tenant).map(|(kind, count)| asked(mix, kind, count)).sum::<f64>() as u64,
        images_got: of_tenant(mix, tally, tenant).map(|(_, count)| count.images).sum(),
        work_got_s: of_tenant(mix, tally, tenant).map(|(kind, count)| Some(work(solos, kind)? * count.ok as f64)).sum(),
        latency: joined(of_tenant(mix, tally, tenant).map(|(_, count)| count)).latency.quantiles(),
    };
    mix.tenants.iter().enumerate().map(one).collect()
}

/// Solo seconds of one request.
fn work(solos: &[Solo], kind: usize) -> Option<f64> {
    solos[kind].time.map(|time| time.as_secs_f64())
}

fn fairness(mix: &Mix, tally: &Tally, solos: &[Solo], clients: Option<&[usize]>) -> Fairness {
    let of = |each: &dyn Fn(usize, &Count) -> f64| -> Vec<f64> {
        let tenant = |tenant| of_tenant(mix, tally, tenant).map(|(kind, count)| each(kind, count)).sum();
        (0..mix.tenants.len()).map(tenant).collect()
    };
    let images = of(&|_, count| count.images as f64);
    let demand = match clients {
        Some(clients) => clients.iter().map(|&count| count as f64).collect(),
        None => of(&asked_of(mix)),
    };
    // Nothing is known of who asked for nothing.
    let shares = |got: &[f64], due: &[f64]| -> Vec<f64> {
        got.iter().zip(due).filter(|(_, due)| **due > 0.0).map(|(got, due)| got / due).collect()
    };
    let known = solos.iter().all(|solo| solo.time.is_some()) && clients.is_none();
    let by_fair_share = known.then(|| {
        let done = of(&|kind, count| work(solos, kind).unwrap_or(0.0) * count.ok as f64);
        let wanted = of(&|kind, count| work(solos, kind).unwrap_or(0.0) * (count.sent() - count.cancelled) as f64);
        let fair = max_min(&wanted, done.iter().sum());
        jain(&shares(&done, &fair))
    });
    Fairness { images_by_demand: jain(&shares(&images, &demand)), work_by_fair_share: by_fair_share.flatten() }
}

fn asked_of(mix: &Mix) -> impl Fn(usize, &Count) -> f64 {
    |kind, count| asked(mix, kind, count)
}

fn server(counted: &Counters, solos: &[Solo], tally: &Tally, warnings: &mut Vec<String>) -> Server {
    if counted.unfinished > 0.0 {
        warnings
            .push(format!("{} jobs were still unfinished at the end: is somebody else using the server?", counted.unfinished));
    }
    // Jobs of answered requests took what they take alone; all other steps were for nothing.
    let useful: Option<f64> = tally
        .kinds
        .iter()
        .zip(solos)
        .map(|(count, solo)| if count.answered == 0 { Some(0.0) } else { Some(count.answered as f64 * solo.evaluations?) })
        .sum();
    let wasted = useful.map(|useful| counted.steps - useful);
    if wasted.is_some_and(|wasted| wasted < -0.5) {
        warnings.push("fewer steps were run than answered requests take alone: wasted steps cannot be told".to_owned());
    }
    Server {
        steps: counted.steps,
        wasted_steps: wasted.filter(|wasted| *wasted >= -0.5).map(|wasted| wasted.max(0.0)),
        jobs: counted.jobs.clone(),
        rejected: counted.rejected.clone(),
        batches: Batches {
            calls: counted.calls,
            mean_rows: (counted.calls > 0.0).then(|| counted.rows / counted.calls),
            histogram: counted.histogram(),
        },
    }
}
