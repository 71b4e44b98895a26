//! One claimed job, from its inputs to its ending in the ledger.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Ending, Event, Failure, FailureKind, Output, Request, Terms};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::bundle::Part;
use super::keep::{PartKeeper, Shelf, fetch, steps};
use super::watch::Watched;
use super::{Encoded, Inner};
use crate::ledger::{Claim, Finish, LedgerError, ObjectRef, Outcome, Release, unpack};
use crate::objects::{ObjectError, output_key};
use crate::{Refused, Submission, Ticket};

/// How long to wait before asking again for a place among the jobs that are not named.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often the ledger is told an ending before it is left to the lease.
const MOST_TRIES: u32 = 20;

/// What is to be said to the ledger.
enum Verdict {
    Finish(Outcome),
    Release(Release),
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::DeadlineExceeded => Self::Release(Release::Expired),
            // Another node may have a device.
            FailureKind::Device | FailureKind::WorkerLost => Self::Release(Release::Refused),
            kind => Self::Finish(Outcome::Failed { reason: kind.name().to_owned(), message: failure.message }),
        }
    }
}

/// Runs the job and ends it, or lets go of it.
pub(super) async fn run(node: &Inner, claim: Claim, watched: &Watched) {
    let fence = claim.fence;
    let mut shelf = Shelf::new(fence);
    let verdict = work(node, &claim, watched, &mut shelf).await;
    if !watched.is_lost() {
        let ended = matches!(verdict, Verdict::Finish(_) | Verdict::Release(Release::Expired));
        if tell(node, &claim, verdict).await && ended {
            // Pictures stay until the record goes; the rest is of no use any more.
            let newest = shelf.newest().or(claim.ckpt.as_ref());
            for object in claim.inputs.iter().chain(newest) {
                node.forget(&object.key).await;
            }
        }
    }
}

/// Tells the ledger until it has heard; whether it wrote that down.
async fn tell(node: &Inner, claim: &Claim, verdict: Verdict) -> bool {
    for attempt in 0..MOST_TRIES {
        let told = match &verdict {
            Verdict::Finish(outcome) => node.ledger.finish(&claim.fence, outcome.clone()).await,
            Verdict::Release(why) => node.ledger.release(&claim.fence, why.clone()).await,
        };
        match told {
            Ok(Finish::Recorded) => return true,
            Ok(Finish::Superseded) => return false,
            Err(LedgerError::Store(error)) => {
                tracing::warn!(job = %claim.fence.id, error, attempt, "the ledger has not heard how the job ended");
                tokio::time::sleep(Duration::from_millis(100 * u64::from(attempt + 1))).await;
            }
            Err(error) => {
                tracing::error!(job = %claim.fence.id, %error, "the ledger does not take the ending");
                return false;
            }
        }
    }
    false
}

/// The pictures of a claim, with what was done of them before.
struct Job {
    requests: Vec<Request>,
    terms: Terms,
    parts: Vec<Part>,
}

/// What becomes of a job whose input was not to be had: a store that failed may answer the next time.
fn unfetched(claim: &Claim, error: &ObjectError) -> Verdict {
    tracing::warn!(job = %claim.fence.id, %error, "an input could not be read");
    match error {
        ObjectError::Store(_) => Verdict::Release(Release::Refused),
        lost => Verdict::Finish(Outcome::Failed { reason: "input_lost".to_owned(), message: lost.to_string() }),
    }
}

async fn open(node: &Inner, claim: &Claim) -> Result<Job, Verdict> {
    let unusable = |message: String| {
        let reason = FailureKind::Unsupported.name().to_owned();
        Verdict::Finish(Outcome::Failed { reason, message })
    };
    let mut inputs = Vec::with_capacity(claim.inputs.len());
    for object in &claim.inputs {
        inputs.push(node.objects.get(object).await.map_err(|error| unfetched(claim, &error))?);
    }
    let Some(catalogue) = node.service.catalogue() else { return Err(Verdict::Release(Release::Refused)) };
    let (draft, _) = unpack(&claim.spec, &inputs).map_err(|error| unusable(error.to_string()))?;
    let read = draft.check(&catalogue).map_err(|violations| unusable(violations.to_string()))?;
    let deadline = claim.deadline.map(|deadline| deadline.since(node.clock.now()));
    let terms = Terms { tenant: claim.tenant.clone(), priority: claim.priority, deadline };
    let parts = fetch(node, claim.fence, claim.ckpt.as_ref(), read.len()).await;
    Ok(Job { requests: read, terms, parts })
}

async fn work(node: &Inner, claim: &Claim, watched: &Watched, shelf: &mut Shelf) -> Verdict {
    let mut job = match open(node, claim).await {
        Ok(job) => job,
        Err(verdict) => return verdict,
    };
    watched.tell(|sight| {
        sight.parts = vec![None; job.parts.len()];
        sight.done = job.parts.iter().filter(|part| matches!(part, Part::Done(..))).count();
    });
    let (keeper, mut kept) = mpsc::unbounded_channel();
    let submissions = submissions(claim, &job, &keeper);
    let tickets = tokio::select! {
        tickets = accept(node, claim, submissions) => tickets,
        () = watched.stopped() => return Verdict::Finish(Outcome::Canceled),
    };
    let tickets = match tickets {
        Ok(tickets) => tickets,
        Err(verdict) => return verdict,
    };

    let (told, mut events) = mpsc::unbounded_channel();
    // Dropped with this task's end: what still runs is cancelled.
    let mut listeners = JoinSet::new();
    for (part, ticket) in unfinished(&job.parts).zip(tickets) {
        listeners.spawn(listen(part, ticket, told.clone()));
    }
    drop((told, keeper));

    let mut draining = false;
    let verdict = loop {
        tokio::select! {
            biased;
            () = watched.stopped() => break Verdict::Finish(Outcome::Canceled),
            Some((part, checkpoint)) = kept.recv() => {
                job.parts[part] = Part::Half(checkpoint);
                while let Ok((part, checkpoint)) = kept.try_recv() {
                    job.parts[part] = Part::Half(checkpoint);
                }
                // In a drain all of them come at once; they are kept together, at the end.
                if !node.is_draining() {
                    shelf.keep(node, &job.parts).await;
                }
            }
            event = events.recv() => match event {
                Some((part, Event::Progress(progress))) => watched.tell(|sight| sight.parts[part] = Some(progress)),
                Some((part, Event::Ended(ending))) => match ended(node, claim, part, ending).await {
                    Ok(done) => {
                        job.parts[part] = done;
                        watched.tell(|sight| (sight.parts[part], sight.done) = (None, sight.done + 1));
                        if unfinished(&job.parts).next().is_some() {
                            shelf.keep(node, &job.parts).await;
                        }
                    }
                    Err(Some(verdict)) => break verdict,
                    Err(None) => draining = true,
                },
                None if draining => break drained(node, claim, &mut kept, job.parts, shelf).await,
                None => break succeeded(&job.parts),
            },
        }
    };
    listeners.shutdown().await;
    verdict
}

/// Places of pictures that are to be made.
fn unfinished(parts: &[Part]) -> impl Iterator<Item = usize> {
    parts.iter().enumerate().filter(|(_, part)| !matches!(part, Part::Done(..))).map(|(place, _)| place)
}

fn submissions(claim: &Claim, job: &Job, keeper: &mpsc::UnboundedSender<(usize, ldm_core::Checkpoint)>) -> Vec<Submission> {
    let submission = |part: usize| {
        let checkpoint = match &job.parts[part] {
            Part::Half(checkpoint) => Some(checkpoint.clone()),
            Part::Fresh | Part::Done(..) => None,
        };
        Submission {
            // Logs call the first picture as the job is called.
            id: (part == 0).then_some(claim.fence.id),
            checkpoint,
            alone: claim.alone,
            keeper: Some(Arc::new(PartKeeper { part, to: keeper.clone() })),
            ..Submission::new(job.requests[part].clone(), &job.terms)
        }
    };
    unfinished(&job.parts).map(submission).collect()
}

/// Waits for places among the jobs that are not named.
async fn accept(node: &Inner, claim: &Claim, submissions: Vec<Submission>) -> Result<Vec<Ticket>, Verdict> {
    loop {
        let wait = match node.service.accept(submissions.clone()) {
            Ok(tickets) => return Ok(tickets),
            Err(
                Refused::Full { retry_after, .. } | Refused::TenantFull { retry_after, .. } | Refused::NoRoom { retry_after, .. },
            ) => retry_after,
            Err(Refused::NotReady) => LONGEST_WAIT,
            Err(Refused::Draining) => return Err(Verdict::Release(Release::Drained { ckpt: None, step: claim.step })),
            Err(Refused::Failed(_)) => return Err(Verdict::Release(Release::Refused)),
            // It looked possible when it was handed in, and can only become less so.
            Err(Refused::Deadline { .. }) => return Err(Verdict::Release(Release::Expired)),
            Err(Refused::Unsupported(failure)) => return Err(failure.into()),
            Err(refused @ Refused::TooMany { .. }) => {
                return Err(Failure::new(FailureKind::Unsupported, refused.to_string()).into());
            }
        };
        tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
    }
}

/// Tells what a ticket tells.
async fn listen(part: usize, mut ticket: Ticket, to: mpsc::UnboundedSender<(usize, Event)>) {
    while let Some(event) = ticket.next().await {
        if to.send((part, event)).is_err() {
            return;
        }
    }
}

/// A picture that is finished; an error ends the job, or is `None` when it only ends here.
async fn ended(node: &Inner, claim: &Claim, part: usize, ending: Ending) -> Result<Part, Option<Verdict>> {
    let output = match ending {
        Ending::Finished(output) => output,
        Ending::Cancelled => return Err(Some(Verdict::Finish(Outcome::Canceled))),
        Ending::Failed(failure) if failure.kind == FailureKind::ShuttingDown => return Err(None),
        Ending::Failed(failure) => return Err(Some(failure.into())),
    };
    let Encoded { bytes, detail } = encode(node, output)
        .await
        .map_err(|message| Some(Verdict::Finish(Outcome::Failed { reason: "encoding".to_owned(), message })))?;
    let key = output_key(claim.fence.id, part);
    let bytes = bytes::Bytes::from(bytes);
    for attempt in 0..MOST_TRIES {
        match node.objects.put(&key, bytes.clone()).await {
            Ok(object) => return Ok(Part::Done(object, detail)),
            Err(error) => tracing::warn!(job = %claim.fence.id, %error, attempt, "a picture could not be kept"),
        }
        tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt + 1))).await;
    }
    Err(Some(Verdict::Release(Release::Refused)))
}

async fn encode(node: &Inner, output: Output) -> Result<Encoded, String> {
    let encode = Arc::clone(&node.encode);
    let encoded = tokio::task::spawn_blocking(move || encode(&output)).await;
    encoded.unwrap_or_else(|_| Err("the encoder broke".to_owned()))
}

fn succeeded(parts: &[Part]) -> Verdict {
    let done = |part: &Part| match part {
        Part::Done(object, detail) => Some((object.clone(), detail.clone())),
        Part::Fresh | Part::Half(_) => None,
    };
    let all: Option<Vec<(ObjectRef, String)>> = parts.iter().map(done).collect();
    match all {
        Some(all) => {
            let (outputs, details): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            Verdict::Finish(Outcome::Succeeded { outputs, detail: format!("[{}]", details.join(",")) })
        }
        None => Verdict::Release(Release::Refused),
    }
}

/// The process ends: what is half done is kept for another.
async fn drained(
    node: &Inner,
    claim: &Claim,
    kept: &mut mpsc::UnboundedReceiver<(usize, ldm_core::Checkpoint)>,
    mut parts: Vec<Part>,
    shelf: &mut Shelf,
) -> Verdict {
    while let Ok((part, checkpoint)) = kept.try_recv() {
        parts[part] = Part::Half(checkpoint);
    }
    tracing::info!(job = %claim.fence.id, step = steps(&parts), "the job goes on elsewhere");
    match shelf.upload(node, &parts).await {
        Some((ckpt, step)) => Verdict::Release(Release::Drained { ckpt: Some(ckpt), step }),
        None => Verdict::Release(Release::Drained { ckpt: None, step: claim.step }),
    }
}
