//! Where panics and libtorch's errors stop: they become failures, by what they say.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ldm_core::{Failure, FailureKind};

/// What memory that ran out is called by libtorch on a GPU, by libtorch on a CPU, and by C++.
const MEMORY: [&str; 5] =
    ["out of memory", "can't allocate memory", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"];

/// What a GPU says that will not answer any more: after one of these every later call fails too.
const DEVICE: [&str; 8] = [
    "CUDA error",
    "device-side assert",
    "unspecified launch failure",
    "illegal memory access",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "cuDNN error",
    "CUDA driver",
];

/// The kind of a failure that says this.
fn kind_of(message: &str) -> FailureKind {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match () {
        () if says(&MEMORY) => FailureKind::OutOfMemory,
        () if says(&DEVICE) => FailureKind::Device,
        () => FailureKind::Panicked,
    }
}

/// Runs `call`; a panic becomes a failure. An operator of libtorch that fails panics with libtorch's words.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let message = words(&*payload);
        Err(Failure::new(kind_of(&message), message))
    })
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_of_the_kind_that_their_words_say() {
        for (message, kind) in [
            ("CUDA out of memory. Tried to allocate 20.00 MiB", FailureKind::OutOfMemory),
            ("CUDA error: out of memory", FailureKind::OutOfMemory),
            ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", FailureKind::OutOfMemory),
            ("std::bad_alloc", FailureKind::OutOfMemory),
            ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", FailureKind::OutOfMemory),
            ("CUDA error: device-side assert triggered", FailureKind::Device),
            ("CUDA error: unspecified launch failure", FailureKind::Device),
            ("CUBLAS_STATUS_EXECUTION_FAILED", FailureKind::Device),
            ("The size of tensor a (3) must match the size of tensor b (4)", FailureKind::Panicked),
        ] {
            assert_eq!(guarded::<()>(|| panic!("{message}")), Err(Failure::new(kind, message)));
        }
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }

    #[test]
    fn libtorchs_own_words_are_understood() {
        // Far more than any address space: the allocator says so at once.
        let failure = guarded(|| Ok(tch::Tensor::empty([1 << 46], (tch::Kind::Float, tch::Device::Cpu)))).expect_err("no room");
        assert_eq!(failure.kind, FailureKind::OutOfMemory, "{failure}");
        let failure = guarded(|| Ok(tch::Tensor::from_slice(&[1f32, 2.]) + tch::Tensor::from_slice(&[1f32, 2., 3.])));
        assert_eq!(failure.expect_err("unlike shapes").kind, FailureKind::Panicked);
    }
}
