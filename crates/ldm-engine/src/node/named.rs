//! A named job as it is handed in, its pictures as they are kept, and why it could not be handed in.

use std::sync::Arc;

use ldm_core::{JobId, Output, Request, Terms};

use crate::ledger::{Fingerprint, Hook, LedgerError, SpecError};
use crate::objects::ObjectError;

/// A picture as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The file.
    pub bytes: Vec<u8>,
    /// What is told of it; opaque to the node.
    pub detail: String,
}

/// Makes a file of a picture. Called where blocking is allowed.
pub type Encode = Arc<dyn Fn(&Output) -> Result<Encoded, String> + Send + Sync>;

/// Pictures under one name.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its id.
    pub id: JobId,
    /// On whose behalf, how urgently.
    pub terms: Terms,
    /// The first picture; the others have the seeds after its own.
    pub request: Request,
    /// Pictures, at least 1.
    pub images: u32,
    /// SHA-256 of what the client sent.
    pub fingerprint: Fingerprint,
    /// The client's idempotency key.
    pub key: Option<String>,
    /// The client's name for it.
    pub name: Option<String>,
    /// What whoever hands it in wants to know of it later; opaque.
    pub note: String,
    /// Who wants to hear how it ended.
    pub hook: Option<Hook>,
}

/// A named job that could not be handed in.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The ledger's.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The object store's.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The request cannot be written down.
    #[error(transparent)]
    Spec(#[from] SpecError),
}
