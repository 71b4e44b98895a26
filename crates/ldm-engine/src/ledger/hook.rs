//! Webhooks: whom a job's end is to be told, and the outbox of ends that have not been told yet.

use ldm_core::{JobId, Tenant};

use super::{Phase, Timestamp};

/// Who wants to hear how a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where to; opaque to the ledger, at most [`MAX_URL`](super::MAX_URL) bytes.
    pub url: String,
    /// Of which endings; the other phases are no endings and never told.
    pub endings: Vec<Phase>,
}

/// An end that is to be told, taken for a while by whoever tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The job; its record may have gone meanwhile.
    pub job: JobId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// Where to.
    pub url: String,
    /// How it ended.
    pub phase: Phase,
    /// When.
    pub ended: Timestamp,
    /// Which attempt this is, from 1. What came of an earlier one is not heard any more.
    pub attempt: u32,
}
