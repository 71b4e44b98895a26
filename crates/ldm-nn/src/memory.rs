//! How memory is taken from the system while weights are loaded, and while they are used.

/// While it lives, large allocations are given back to the system as soon as they are freed.
///
/// Loading frees as much as it keeps, and what it frees lies between weights that stay: the heap would grow by a tenth of the model.
/// Networks, on the other hand, want what they freed for the next step, without asking the system again. So this lasts for the
/// loading alone. It is glibc's allocator that is told; others are left as they are.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Lean(());

impl Lean {
    /// From now on.
    pub fn new() -> Self {
        set(1 << 20);
        Self(())
    }
}

impl Default for Lean {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lean {
    fn drop(&mut self) {
        // Where glibc's own adjustment ends, which is off once the threshold was set (mallopt(3), `M_MMAP_THRESHOLD`).
        set(32 << 20);
    }
}

/// Allocations of so many bytes and more come from the system and go back to it; twice as many are kept at the heap's end.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(threshold: i32) {
    use std::ffi::c_int;
    // malloc.h.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_some() {
        return;
    }
    // SAFETY: glibc's own function, which takes any number, under its lock; a refusal changes nothing.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, threshold);
        mallopt(M_TRIM_THRESHOLD, threshold * 2);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_threshold: i32) {}
