//! What a test holds a fake executor by: gates to stop it at, and counts of what it did.

use std::collections::HashMap;
use std::sync::Mutex;

use super::Gate;
use crate::cost::Profile;
use crate::guard::lock;

/// One network call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The jobs in it, by seed.
    pub seeds: Vec<u64>,
    /// Its rows.
    pub rows: u32,
}

/// Gates and counts of a [`FakeExecutor`](super::FakeExecutor). The warm-up counts too, with seed 0; see [`clear`](Self::clear).
#[derive(Debug, Default)]
pub struct FakeControl {
    /// Passed once by loading.
    pub loading: Gate,
    /// Passed once by every network call, after it was counted.
    pub steps: Gate,
    /// Passed once by every decoding.
    pub decoding: Gate,
    /// Passed once by every rehearsal, after it was counted.
    pub rehearsing: Gate,
    counts: Mutex<Counts>,
    /// What is recalled: the engine writes it, or a test.
    profile: Mutex<Option<Profile>>,
}

#[derive(Debug, Default)]
struct Counts {
    prepared: Vec<u64>,
    calls: Vec<Call>,
    steps: HashMap<u64, u32>,
    previews: Vec<u64>,
    probes: usize,
    reliefs: usize,
    rehearsals: Vec<u32>,
    models: Vec<String>,
}

impl FakeControl {
    /// Forgets all counts.
    pub fn clear(&self) {
        *lock(&self.counts) = Counts::default();
    }

    /// Jobs that were prepared, by seed, in order.
    pub fn preparations(&self) -> Vec<u64> {
        lock(&self.counts).prepared.clone()
    }

    /// Network calls, in order; one that stands before the gate is among them.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.counts).calls.clone()
    }

    /// Models that came and went, in order: `+id`, `-id`.
    pub fn models(&self) -> Vec<String> {
        lock(&self.counts).models.clone()
    }

    pub(super) fn loaded(&self, model: &str) {
        lock(&self.counts).models.push(format!("+{model}"));
    }

    pub(super) fn unloaded(&self, model: &str) {
        lock(&self.counts).models.push(format!("-{model}"));
    }

    /// Evaluations that the job with this seed has behind it.
    pub fn steps_of(&self, seed: u64) -> u32 {
        lock(&self.counts).steps.get(&seed).copied().unwrap_or(0)
    }

    /// Previews that were made, by seed, in order.
    pub fn previews(&self) -> Vec<u64> {
        lock(&self.counts).previews.clone()
    }

    /// How often the device was probed.
    pub fn probes(&self) -> usize {
        lock(&self.counts).probes
    }

    /// How often memory was let go of.
    pub fn reliefs(&self) -> usize {
        lock(&self.counts).reliefs
    }

    /// Rows of the calls that were rehearsed, in order; one that stands before the gate is among them.
    pub fn rehearsals(&self) -> Vec<u32> {
        lock(&self.counts).rehearsals.clone()
    }

    pub(super) fn rehearse(&self, rows: u32) {
        lock(&self.counts).rehearsals.push(rows);
    }

    /// What was measured and kept.
    pub fn profile(&self) -> Option<Profile> {
        lock(&self.profile).clone()
    }

    /// Keeps it, to be recalled.
    pub fn keep(&self, profile: Profile) {
        *lock(&self.profile) = Some(profile);
    }

    pub(super) fn relieved(&self) {
        lock(&self.counts).reliefs += 1;
    }

    pub(super) fn prepared(&self, seed: u64) {
        lock(&self.counts).prepared.push(seed);
    }

    pub(super) fn called(&self, call: Call) {
        lock(&self.counts).calls.push(call);
    }

    pub(super) fn stepped(&self, seed: u64) {
        *lock(&self.counts).steps.entry(seed).or_default() += 1;
    }

    pub(super) fn previewed(&self, seed: u64) {
        lock(&self.counts).previews.push(seed);
    }

    pub(super) fn probed(&self) {
        lock(&self.counts).probes += 1;
    }
}
