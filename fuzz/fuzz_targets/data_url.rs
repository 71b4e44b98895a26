//! Pictures in base64, with or without `data:` in front.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ldm_http::fuzz::data_url(bytes));
