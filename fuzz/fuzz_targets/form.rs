//! Bodies of `multipart/form-data` with the boundary `B`, up to the requests that they ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ldm_http::fuzz::form(bytes));
