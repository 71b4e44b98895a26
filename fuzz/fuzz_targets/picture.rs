//! Picture files: what is decoded is within its bounds, and what the file says of itself is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ldm_http::fuzz::picture(bytes));
