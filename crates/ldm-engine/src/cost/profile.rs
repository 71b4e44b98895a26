//! The cost table as plain data, for whoever keeps it.

use crate::BatchKey;

/// What was measured on one machine. Keep it beside the model, with a fingerprint of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Every key, in order.
    pub keys: Vec<KeyProfile>,
}

/// What one key costs.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyProfile {
    /// The key.
    pub key: BatchKey,
    /// Evaluations by row count, ascending.
    pub points: Vec<PointProfile>,
    /// Preparing one job; `rows` is 0 and has no meaning.
    pub prepare: PointProfile,
    /// Decoding one job; `rows` is 0 and has no meaning.
    pub decode: PointProfile,
    /// The most rows that memory holds, if more were tried and did not fit.
    pub memory_rows: Option<u32>,
}

/// A mean of measured seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PointProfile {
    /// Rows of the call.
    pub rows: u32,
    /// Mean seconds.
    pub mean: f64,
    /// Mean absolute deviation in seconds.
    pub deviation: f64,
    /// Calls that were measured.
    pub count: u64,
}
