//! The pickle reader: no panic, and no more values than bytes.
#![no_main]

use ldm_formats::pickle::{Limits, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pickle) = read(bytes, &Limits::default()) {
        assert!(pickle.length <= bytes.len() && pickle.values.len() <= bytes.len());
        let _ = pickle.describe(pickle.root);
    }
});
