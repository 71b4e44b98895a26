//! Every kind alone on an idle server: how long it takes, and how many evaluations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::random::Random;
use crate::run::BenchError;
use crate::targets::{Counters, Outcome, Shot, Target};
use crate::{Kind, Mix, Options};

/// What one kind takes alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Solo {
    /// Median, to the end of the answer.
    pub(crate) time: Option<Duration>,
    /// Evaluations per request, if the server counts them.
    pub(crate) evaluations: Option<f64>,
}

/// Measures each kind, after one request that is not measured.
pub(crate) async fn measure<T: Target>(
    target: &T,
    mix: &Mix,
    options: &Options,
    tell: &impl Fn(&str),
) -> Result<Vec<Solo>, BenchError> {
    let mut random = Random::stream(options.seed, 4);
    let mut solos = Vec::new();
    for kind in &mix.kinds {
        if options.solo_runs == 0 {
            solos.push(Solo::default());
            continue;
        }
        alone(target, kind, &mut random, options.timeout).await?;
        let before = idle_counters(target, options.timeout).await.ok();
        let mut times = Vec::new();
        for _ in 0..options.solo_runs {
            times.push(alone(target, kind, &mut random, options.timeout).await?);
        }
        let after = idle_counters(target, options.timeout).await.ok();
        times.sort();
        let evaluations = before.zip(after).map(|(before, after)| after.since(&before).steps / f64::from(options.solo_runs));
        let time = times[times.len() / 2];
        tell(&format!("alone: {} takes {:.1} ms", kind.name, time.as_secs_f64() * 1000.0));
        solos.push(Solo { time: Some(time), evaluations: evaluations.filter(|count| *count > 0.0) });
    }
    Ok(solos)
}

async fn alone<T: Target>(target: &T, kind: &Arc<Kind>, random: &mut Random, limit: Duration) -> Result<Duration, BenchError> {
    let shot = shot(kind, random);
    let started = Instant::now();
    let refused = |reason| Err(BenchError::Alone { kind: kind.name.clone(), reason });
    match timeout(limit, target.send(&shot)).await {
        Ok(Outcome::Done { .. }) => Ok(started.elapsed()),
        Ok(Outcome::Rejected { status, .. }) => refused(format!("refused with {status}; is the server ready and idle?")),
        Ok(Outcome::Failed { reason }) => refused(reason),
        Err(_) => refused(format!("no answer within {limit:?}")),
    }
}

/// A request of that kind with a prompt and a seed.
pub(crate) fn shot(kind: &Arc<Kind>, random: &mut Random) -> Shot {
    let prompt = random.below(kind.prompts.len().max(1));
    // 32 bits, as much as torch's CPU generator takes.
    Shot { kind: Arc::clone(kind), prompt, seed: random.bits() >> 32 }
}

/// The counters once no job is left, or as they are after `limit`.
pub(crate) async fn idle_counters<T: Target>(target: &T, limit: Duration) -> Result<Counters, String> {
    let until = Instant::now() + limit.min(Duration::from_secs(60));
    loop {
        let now = target.counters().await?;
        if now.unfinished == 0.0 || Instant::now() >= until {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
