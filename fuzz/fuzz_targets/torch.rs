//! Whole files of torch.save, both forms: no panic, and what is written is sound safetensors.
#![no_main]

use std::io::Cursor;

use ldm_formats::torch::{Options, TorchFile};
use ldm_formats::{convert, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = TorchFile::new(Cursor::new(bytes), &Options::default()) else { return };
    let mut out = Vec::new();
    convert::write(&mut file, &mut out, convert::Options::default(), |_| {}).expect("what was opened can be written");
    header::check(&out, out.len() as u64).expect("what was written is sound");
});
