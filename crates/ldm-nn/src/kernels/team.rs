//! Libtorch's own threads for our own kernels: a second pool would fight with the first, whose threads spin between operations.

use std::ffi::{c_char, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

type GompParallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// What `#pragma omp parallel` compiles to, when libtorch has brought GNU's runtime into the process.
fn gomp_parallel() -> Option<GompParallel> {
    static FOUND: OnceLock<Option<GompParallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a null handle is RTLD_DEFAULT, the name ends in zero, and whoever defines `GOMP_parallel` defines it with
        // this signature (GCC's libgomp ABI, unchanged since GOMP 4.0).
        unsafe {
            let symbol = dlsym(std::ptr::null_mut(), c"GOMP_parallel".as_ptr());
            (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, GompParallel>(symbol))
        }
    })
}

struct Share<'a> {
    next: AtomicUsize,
    count: usize,
    work: &'a (dyn Fn(usize) + Sync),
}

extern "C" fn take_turns(share: *mut c_void) {
    // SAFETY: `each` passes a `Share` that outlives the parallel region, and shares it read-only.
    let share = unsafe { &*share.cast::<Share<'_>>() };
    loop {
        let index = share.next.fetch_add(1, Ordering::Relaxed);
        if index >= share.count {
            return;
        }
        (share.work)(index);
    }
}

/// The number of threads.
pub(super) fn size() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// Calls `work` with every number below `count`, on as many threads as libtorch uses. A panic in `work` aborts the process.
pub(super) fn each(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let threads = size().min(count);
    let mut share = Share { next: AtomicUsize::new(0), count, work };
    match gomp_parallel() {
        // SAFETY: `GOMP_parallel` returns when every thread has returned from `take_turns`, so `share` outlives them.
        Some(parallel) if threads > 1 => unsafe { parallel(take_turns, (&raw mut share).cast(), threads as c_uint, 0) },
        _ => (0..count).for_each(work),
    }
}
