//! JSON bodies: every reader of the native, OpenAI and web UI dialects and of the admin routes takes or refuses them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ldm_http::fuzz::json(bytes));
