//! Words in a prompt that make a fake job go wrong: `!deed@place`, for example `a cat !panic@3`.
//!
//! | deed | what happens |
//! |---|---|
//! | `!panic` | the call panics |
//! | `!fail` | the job fails with [`FailureKind::OutOfMemory`] |
//! | `!nan` | the job fails with [`FailureKind::NotFinite`] |
//! | `!unsupported` | the job fails with [`FailureKind::Unsupported`] |
//! | `!device` | the job fails with [`FailureKind::Device`] |
//!
//! The place is `price`, `prepare`, `first` (the first `prepare` of that seed), `preview`, `decode`, `usual` (decoding with as much memory as it likes), or the number of a step from 1. Other words mean nothing.

use ldm_core::{Failure, FailureKind};

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In `price`.
    Price,
    /// In `prepare`.
    Prepare,
    /// In the first `prepare` of that seed.
    First,
    /// In the evaluation of that step, from 1.
    Step(u32),
    /// In `preview`.
    Preview,
    /// In `decode`.
    Decode,
    /// In `decode`, unless it is frugal.
    Usual,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The call panics.
    Panic,
    /// The job fails so.
    Fail(FailureKind),
}

/// What a prompt says shall go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(Vec<(At, Deed)>);

impl Script {
    /// Reads a prompt.
    pub fn of(prompt: &str) -> Self {
        Self(prompt.split_whitespace().filter_map(deed).collect())
    }

    /// Does what the script says for this place.
    pub(super) fn act(&self, at: At) -> Result<(), Failure> {
        match self.0.iter().find(|(place, _)| *place == at) {
            None => Ok(()),
            Some((_, Deed::Panic)) => panic!("the prompt asked for a panic at {at:?}"),
            Some((_, Deed::Fail(kind))) => Err(Failure::new(*kind, format!("the prompt asked for this at {at:?}"))),
        }
    }
}

fn deed(word: &str) -> Option<(At, Deed)> {
    let (deed, place) = word.strip_prefix('!')?.split_once('@')?;
    let deed = match deed {
        "panic" => Deed::Panic,
        "fail" => Deed::Fail(FailureKind::OutOfMemory),
        "nan" => Deed::Fail(FailureKind::NotFinite),
        "unsupported" => Deed::Fail(FailureKind::Unsupported),
        "device" => Deed::Fail(FailureKind::Device),
        _ => return None,
    };
    let place = match place {
        "price" => At::Price,
        "prepare" => At::Prepare,
        "first" => At::First,
        "preview" => At::Preview,
        "decode" => At::Decode,
        "usual" => At::Usual,
        step => At::Step(step.parse().ok()?),
    };
    Some((place, deed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_deeds_and_ignores_the_rest() {
        let script = Script::of("a cat !panic@3, !panic@3 !nan@decode !fly@3 !fail@nowhere !fail");
        assert_eq!(script, Script(vec![(At::Step(3), Deed::Panic), (At::Decode, Deed::Fail(FailureKind::NotFinite))]));
    }
}
