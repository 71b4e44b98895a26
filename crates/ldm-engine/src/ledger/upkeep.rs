//! The round that somebody makes every second: dead nodes' jobs, late jobs, old records with their objects.

use std::time::Duration;

use ldm_core::JobId;

use super::{Ledger, LedgerError, MAX_PAGE, Reaped, Retention, Stale};
use crate::objects::{ObjectError, Objects};

/// One round. Objects go before the record that names them, so nothing is left behind when the process dies in between;
/// what could not be deleted is tried again in the next round.
pub async fn upkeep(ledger: &dyn Ledger, objects: &Objects, keep: &Retention) -> Result<Reaped, LedgerError> {
    let reaped = ledger.reap().await?;
    let mut gone = Vec::new();
    for stale in ledger.prune(keep).await? {
        if let Err(error) = delete(objects, &stale).await {
            tracing::warn!(job = %stale.id, %error, "an old job's objects could not be deleted; they will be tried again");
            break;
        }
        gone.push(stale.id);
    }
    if !gone.is_empty() {
        ledger.forget(&gone).await?;
    }
    Ok(reaped)
}

/// Objects of jobs that a sweep looks at, at most.
const SWEPT: usize = 10_000;

/// Deletes objects that no record knows and that are older than `age`: inputs whose job was never handed in, because the process died
/// in between, and whatever a lost ledger left. How many jobs had such.
pub async fn sweep(ledger: &dyn Ledger, objects: &Objects, age: Duration) -> Result<usize, LedgerError> {
    let there = match objects.jobs_since(age, SWEPT).await {
        Ok(there) => there,
        Err(error) => {
            tracing::warn!(%error, "objects that nobody knows were not looked for");
            return Ok(0);
        }
    };
    let mut swept = 0;
    for page in there.chunks(MAX_PAGE as usize) {
        let known: Vec<JobId> = ledger.get(page).await?.into_iter().map(|view| view.id).collect();
        for id in page.iter().filter(|id| !known.contains(id)) {
            match objects.delete_job(*id).await {
                Ok(()) => swept += 1,
                Err(error) => tracing::warn!(job = %id, %error, "objects that nobody knows could not be deleted"),
            }
        }
    }
    Ok(swept)
}

async fn delete(objects: &Objects, stale: &Stale) -> Result<(), ObjectError> {
    objects.delete_job(stale.id).await?;
    for key in &stale.keys {
        objects.delete(key).await?;
    }
    Ok(())
}
