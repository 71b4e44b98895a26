//! Reading Python pickles as data: a stack machine over an allow-list that runs nothing.
//!
//! Why our own. `repugnant-pickle` 0.0.1 (2023, no later release) clones memoised values, so a memo bomb takes all memory.
//! `serde-pickle` refuses every global, hence every torch file. `candle-core` reads torch files, but clones memoised values too,
//! allocates what a length field says before it reads, evaluates nesting by recursion and drops what it does not know without
//! saying so; it also brings a tensor library. `pytorch-reader` (burn) is the only one that is hardened against hostile files; it
//! exists as a pre-release only, keeps dictionaries in hash maps (the order of tensors is lost), accepts much that a service
//! should refuse (compressed entries, tar archives, pickled modules) and has its limits as constants. What checkpoints need is
//! the short table of opcodes in `machine.rs`.
//!
//! Values live in one arena and are named by index; a memo entry is an index. A value that is referred to a million times is
//! stored once, nothing is ever copied, and nothing recurses: time and memory are linear in the number of opcodes.

mod machine;
mod value;

pub use machine::read;
pub(crate) use value::shown;
pub use value::{Callable, Id, Pickle, StorageRef, TensorRef, Value};

/// What a pickle may at most hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all pickles of a file.
    pub bytes: u64,
    /// Opcodes; also bounds the values, since each makes one at most.
    pub opcodes: u64,
    /// Values on the stack.
    pub stack: usize,
    /// Entries of the memo.
    pub memo: usize,
    /// Open marks: how deep containers nest while they are built.
    pub marks: usize,
    /// Bytes of one string.
    pub string: usize,
    /// Dimensions of a tensor.
    pub rank: usize,
}

impl Default for Limits {
    /// Far above any published checkpoint (the largest, with optimizer states, have some 10⁶ opcodes); about 250 MB of memory at
    /// the very worst.
    fn default() -> Self {
        Self { bytes: 32 << 20, opcodes: 4_000_000, stack: 1_000_000, memo: 2_000_000, marks: 1000, string: 1 << 20, rank: 16 }
    }
}

/// A pickle that is not read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickleError {
    /// It ends too early.
    #[error("byte {at}: the pickle ends inside {what}")]
    Truncated {
        /// Where the missing bytes would start.
        at: usize,
        /// What they belong to.
        what: &'static str,
    },
    /// An opcode that is not on the list.
    #[error("byte {at}: opcode {code:#04x} ({name}) is not among those that checkpoints need, so it is refused")]
    Opcode {
        /// Where.
        at: usize,
        /// The byte.
        code: u8,
        /// Python's name for it.
        name: &'static str,
    },
    /// Something is not as it must be.
    #[error("byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What.
        what: &'static str,
    },
    /// More than the limit.
    #[error("byte {at}: more than {limit} {what}")]
    Limit {
        /// Where.
        at: usize,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
