//! The header check: no panic, and nothing is taken that the safetensors crate refuses.
#![no_main]

use ldm_formats::header::check;
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

fuzz_target!(|bytes: &[u8]| {
    if check(bytes, bytes.len() as u64).is_ok() {
        SafeTensors::deserialize(bytes).expect("the header check is the stricter one");
    }
});
