//! The round that somebody makes every second: dead nodes' jobs, late jobs, old records with their objects.

use super::{Ledger, LedgerError, Reaped, Retention, Stale};
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

async fn delete(objects: &Objects, stale: &Stale) -> Result<(), ObjectError> {
    objects.delete_job(stale.id).await?;
    for key in &stale.keys {
        objects.delete(key).await?;
    }
    Ok(())
}
