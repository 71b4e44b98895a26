//! Labels that come from outside, bounded in number.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// What all values beyond the bound are called.
const OTHER: &str = "other";

/// The first so many values have a label of their own; later ones share one.
pub(super) struct Bounded {
    most: usize,
    known: RwLock<HashSet<String>>,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: RwLock::default() }
    }

    /// The label of that value.
    pub(super) fn label<'a>(&self, value: &'a str) -> &'a str {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return value;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value;
        }
        if known.len() >= self.most {
            return OTHER;
        }
        known.insert(value.to_owned());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_is_other_for_good() {
        let bounded = Bounded::new(2);
        for (value, label) in [("a", "a"), ("b", "b"), ("c", "other"), ("a", "a"), ("c", "other")] {
            assert_eq!(bounded.label(value), label);
        }
    }
}
