//! The header check takes what the safetensors crate takes, and says what is wrong with the rest.

use std::time::{Duration, Instant};

use ldm_formats::header::{self, HEADER_LIMIT, TENSOR_LIMIT, check};
use safetensors::SafeTensors;

use super::{Folder, golden};

/// A file with this JSON and so many bytes of data.
fn file(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

fn refusal(json: &str, data: usize) -> String {
    let bytes = file(json, data);
    check(&bytes, bytes.len() as u64).unwrap_err().to_string()
}

#[test]
fn what_is_sound_is_described_in_its_order() {
    let json = concat!(
        r#"{"__metadata__":{"a":"b"},"z":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"#,
        r#""a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"s":{"dtype":"I64","shape":[],"data_offsets":[12,20]},"#,
        r#""e":{"dtype":"U8","shape":[0,3],"data_offsets":[20,20]}}  "#
    );
    let bytes = file(json, 20);
    let header = check(&bytes, bytes.len() as u64).unwrap();
    let names: Vec<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "s", "e"]);
    assert_eq!(header.metadata["a"], "b");
    assert_eq!(header.data_start, 8 + json.len() as u64);
    assert!(SafeTensors::deserialize(&bytes).is_ok());
}

#[test]
fn what_is_wrong_is_named() {
    let one = |info: &str| format!(r#"{{"w":{info}}}"#);
    let empty = |index: usize| format!(r#""{index}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let cases = [
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4, "F32 of shape [2] takes 8 bytes, its offsets say 4"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 4, "its bytes 0 to 8 do not lie in the 4 bytes of data"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[8,4]}"#), 8, "its bytes 8 to 4 do not lie"),
        (
            one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#),
            8,
            "starts at byte 4 of the data, not at 0: it leaves a hole",
        ),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#), 8, "the tensors end at byte 4 of the data, the file has 8"),
        (one(r#"{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}"#), 4, "`w`: its dtype Q4 is not known"),
        (one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#), 4, "takes more than 2⁶⁴ bytes"),
        (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), 4, "not as safetensors has it: invalid value"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}"#), 4, "unknown field `more`"),
        (
            one(r#"{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}"#),
            1,
            "17 dimensions, more than 16",
        ),
        (
            format!(r#"{{"{}":{{"dtype":"U8","shape":[],"data_offsets":[0,1]}}}}"#, "n".repeat(2000)),
            1,
            "names have 1 to 1024 bytes",
        ),
        (r#"{"w\u0000":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#.to_owned(), 1, "no control characters"),
        ("[]".to_owned(), 0, "does not start with {"),
        ("{".to_owned(), 0, "EOF"),
        (format!("{{\"w\":{}", "[".repeat(100_000)), 0, "not as safetensors has it"),
        (
            r#"{"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[],"data_offsets":[1,2]}}"#
                .to_owned(),
            2,
            "`w` comes twice",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#
                .to_owned(),
            3,
            "tensor `b` starts at byte 1 of the data, not at 2: it overlaps",
        ),
        (r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "invalid type: integer"),
        (
            format!("{{{}}}", (0..=TENSOR_LIMIT).map(empty).collect::<Vec<_>>().join(",")),
            0,
            "there are more than the limit of 65536 tensors",
        ),
    ];
    for (json, data, expected) in cases {
        let error = refusal(&json, data);
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    }
}

#[test]
fn lengths_are_checked_before_the_header_is_read() {
    let length = |length: u64| check(&length.to_le_bytes(), 1 << 40).unwrap_err().to_string();
    assert!(length(u64::MAX).contains("more than the limit of 100000000"));
    assert!(length(HEADER_LIMIT + 1).contains("more than the limit of 100000000"));
    assert!(check(&1000u64.to_le_bytes(), 8).unwrap_err().to_string().contains("says 1000 bytes, but the file has only 8"));
    assert!(check(b"abc", 3).unwrap_err().to_string().contains("3 bytes are too few"));
}

#[test]
fn other_files_are_told_apart() {
    let of = |name: &str| header::open(&golden(name)).unwrap_err().to_string();
    assert!(of("module.bin").contains("a zip archive, most likely of torch.save"));
    assert!(of("legacy.pt").contains("a Python pickle"));
}

#[test]
fn a_large_file_is_checked_in_milliseconds() {
    // 3 000 tensors and 12 GB, of which nothing but the header is there.
    let folder = Folder::new("sparse");
    let path = folder.0.join("large.safetensors");
    let size = 4 << 20;
    let tensor = |index: usize| {
        let (start, end) = (index * size, (index + 1) * size);
        format!(
            r#""model.diffusion_model.block.{index}.weight":{{"dtype":"F32","shape":[1024,1024],"data_offsets":[{start},{end}]}}"#
        )
    };
    let json = format!("{{{}}}", (0..3000).map(tensor).collect::<Vec<_>>().join(","));
    std::fs::write(&path, file(&json, 0)).unwrap();
    let handle = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    handle.set_len((8 + json.len() + 3000 * size) as u64).unwrap();
    let start = Instant::now();
    let header = header::open(&path).unwrap();
    let took = start.elapsed();
    assert_eq!(header.tensors.len(), 3000);
    assert!(took < Duration::from_millis(500), "{took:?}");
    // One byte short, as a broken download is.
    handle.set_len((8 + json.len() + 3000 * size - 1) as u64).unwrap();
    let error = header::open(&path).unwrap_err().to_string();
    assert!(error.starts_with("tensor `model.diffusion_model.block.2999.weight`: its bytes"), "{error}");
}
