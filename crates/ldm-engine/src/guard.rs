//! Where panics stop: a call that panics becomes a failure.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ldm_core::{Failure, FailureKind};

/// Runs `call`; a panic becomes [`FailureKind::Panicked`] with the panic's words.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(Failure::new(FailureKind::Panicked, words(&*payload))))
}

fn words(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}

/// Locks whatever a panic left behind: what these mutexes guard is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_with_its_words() {
        assert_eq!(guarded(|| Ok(1)), Ok(1));
        assert_eq!(guarded::<()>(|| panic!("of {}", 2)), Err(Failure::new(FailureKind::Panicked, "of 2")));
        assert_eq!(guarded::<()>(|| panic!("plain")), Err(Failure::new(FailureKind::Panicked, "plain")));
        let odd = guarded::<()>(|| std::panic::panic_any(7));
        assert_eq!(odd, Err(Failure::new(FailureKind::Panicked, "a panic without words")));
    }
}
