//! Who takes what is to be told from the ledger, tells it, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ldm_engine::ledger::{Delivery, JobView, LedgerError};
use ldm_engine::node::Node;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::Rules;
use super::allow::Target;
use super::post::Trouble;
use crate::Metrics;
use crate::dialects::native;

/// How often, how long and how many at once.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How often the ledger is asked.
    pub(crate) every: Duration,
    /// Calls at once.
    pub(crate) at_once: usize,
    /// For the whole of one call; below the ledger's lease.
    pub(crate) timeout: Duration,
    /// Calls for one end at most.
    pub(crate) attempts: u32,
    /// How long after the job's end it is told at most.
    pub(crate) age: Duration,
    /// The pause after the first call; each is twice the one before.
    pub(crate) first_pause: Duration,
    /// The longest pause.
    pub(crate) longest_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        Self {
            every: second / 2,
            at_once: 16,
            timeout: 15 * second,
            attempts: 12,
            age: 24 * hour,
            first_pause: 5 * second,
            longest_pause: hour,
        }
    }
}

impl Policy {
    /// The pause after so many calls: half of it certain, half of it drawn, so that many ends do not come back at once.
    fn pause(&self, delivery: &Delivery) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << (delivery.attempt.saturating_sub(1)).min(20));
        let whole = doubled.min(self.longest_pause);
        let [drawn, ..] = <[u8; 32]>::from(Sha256::digest(format!("{}.{}", delivery.job, delivery.attempt)));
        whole / 2 + (whole / 2).mul_f64(f64::from(drawn) / 256.0)
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    /// Once more, not before that.
    Again(Duration),
    /// Never again.
    Refused,
}

/// Tells what is due, for ever.
pub(super) async fn run(rules: Arc<Rules>, node: Node, metrics: Arc<Metrics>, policy: Policy) {
    let policy = Arc::new(policy);
    let mut calls = JoinSet::new();
    loop {
        let free = policy.at_once.saturating_sub(calls.len());
        match node.ledger().take_hooks(u32::try_from(free).unwrap_or(u32::MAX)).await {
            Ok(due) => {
                for delivery in due {
                    let (rules, node) = (Arc::clone(&rules), node.clone());
                    let (metrics, policy) = (Arc::clone(&metrics), Arc::clone(&policy));
                    calls.spawn(async move { deliver(&rules, &node, &metrics, &policy, &delivery).await });
                }
            }
            Err(LedgerError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the ledger does not say which webhooks are due"),
        }
        if calls.len() >= policy.at_once {
            calls.join_next().await;
        } else {
            tokio::time::sleep(policy.every).await;
        }
        while calls.try_join_next().is_some() {}
    }
}

async fn deliver(rules: &Rules, node: &Node, metrics: &Metrics, policy: &Policy, delivery: &Delivery) {
    let verdict = call(rules, node, metrics, delivery).await;
    let tired = delivery.attempt >= policy.attempts || node.now().since(delivery.ended) >= policy.age;
    let again = match verdict {
        Verdict::Again(wish) if !tired => Some(node.now().after(policy.pause(delivery).max(wish))),
        Verdict::Again(_) | Verdict::Refused => {
            metrics.webhook_abandoned();
            tracing::warn!(job = %delivery.job, attempts = delivery.attempt, "nobody took the end of a job; it is not told any more");
            None
        }
        Verdict::Delivered => None,
    };
    if let Err(error) = node.ledger().settle_hook(delivery, again).await {
        // Then it is due again when its lease ends.
        tracing::warn!(job = %delivery.job, %error, "the ledger has not heard what came of a webhook");
    }
}

/// What is said of a job whose record has gone.
#[derive(Serialize)]
struct Gone {
    id: String,
    state: &'static str,
    ended_ms: u64,
    kept: bool,
}

fn body(node: &Node, delivery: &Delivery, view: Option<&JobView>) -> String {
    let gone = Gone { id: delivery.job.to_string(), state: delivery.phase.name(), ended_ms: delivery.ended.0, kept: false };
    // A struct of strings and numbers always becomes JSON.
    view.map_or_else(|| serde_json::to_string(&gone).unwrap_or_default(), |view| native::job_text(node, view))
}

async fn call(rules: &Rules, node: &Node, metrics: &Metrics, delivery: &Delivery) -> Verdict {
    // The list may have become shorter since.
    let target = Target::read(&delivery.url);
    let Some((target, admitted)) = target.and_then(|target| rules.allowed.admits(&target).map(|admitted| (target, admitted)))
    else {
        metrics.webhook("blocked");
        return Verdict::Refused;
    };
    let view = match node.ledger().get(&[delivery.job]).await {
        Ok(mut views) => views.pop(),
        Err(error) => {
            tracing::warn!(job = %delivery.job, %error, "the ledger does not say how a job ended");
            return Verdict::Again(Duration::ZERO);
        }
    };
    let (id, timestamp) = (format!("msg_{}", delivery.job), node.now().0 / 1000);
    let body = body(node, delivery, view.as_ref());
    let signature = rules.secrets.sign(&id, timestamp, body.as_bytes());
    let headers = [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)];
    let posted = rules.client.post(&target, admitted, &headers, body.into()).await;
    let (outcome, verdict) = match &posted {
        Ok(answer) if answer.status.is_success() => ("delivered", Verdict::Delivered),
        Ok(answer) if answer.status == StatusCode::GONE => ("failed", Verdict::Refused),
        Ok(answer) => ("failed", Verdict::Again(answer.wish.unwrap_or_default())),
        Err(Trouble::Private) => ("blocked", Verdict::Again(Duration::ZERO)),
        Err(_) => ("failed", Verdict::Again(Duration::ZERO)),
    };
    metrics.webhook(outcome);
    // A URL may hold a secret: its host is enough.
    let (job, host, attempt) = (delivery.job, &target.authority, delivery.attempt);
    match posted {
        Ok(answer) => tracing::info!(%job, host, attempt, status = answer.status.as_u16(), outcome, "webhook"),
        Err(error) => tracing::info!(%job, host, attempt, %error, outcome, "webhook"),
    }
    verdict
}

#[cfg(test)]
mod tests {
    use ldm_core::{JobId, Tenant};
    use ldm_engine::ledger::{Phase, Timestamp};

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_not_all_the_same() {
        let policy = Policy::default();
        let delivery = |attempt| Delivery {
            job: JobId::new(),
            tenant: Tenant::default(),
            url: String::new(),
            phase: Phase::Succeeded,
            ended: Timestamp(0),
            attempt,
        };
        for attempt in 1..=40 {
            let whole = Duration::from_secs((5_u64 << (attempt - 1).min(20)).min(3600));
            for _ in 0..20 {
                let pause = policy.pause(&delivery(attempt));
                assert!(pause >= whole / 2 && pause <= whole, "{attempt}: {pause:?}");
            }
        }
        let pauses: std::collections::BTreeSet<_> = (0..50).map(|_| policy.pause(&delivery(3))).collect();
        assert!(pauses.len() > 10);
    }
}
