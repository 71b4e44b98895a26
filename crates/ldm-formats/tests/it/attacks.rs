//! Files that somebody wrote to harm: nothing runs, nothing grows, everything is named.

use std::io::Cursor;
use std::time::{Duration, Instant};

use ldm_formats::pickle::{self, Limits, PickleError, Value};
use ldm_formats::torch::{Options, TorchError, TorchFile};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::golden;

/// A short string.
fn text(text: &[u8]) -> Vec<u8> {
    [&[0x8c, text.len() as u8][..], text].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn int(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"("[..], &items.concat(), b"t"].concat()
}

fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|&value| int(value)).collect::<Vec<_>>())
}

/// `{'w': <body>}`.
fn with_entry(body: &[u8]) -> Vec<u8> {
    [&[0x80, 2, b'}'][..], &text(b"w"), body, b"s."].concat()
}

/// A tensor that calls `_rebuild_tensor_v2`.
fn tensor(class: &[u8], key: &[u8], numel: i64, size: &[i64], stride: &[i64], offset: i64) -> Vec<u8> {
    let class = global("torch", std::str::from_utf8(class).unwrap());
    let storage = [tuple(&[text(b"storage"), class, text(key), text(b"cpu"), int(numel)]), b"Q".to_vec()].concat();
    let hooks = [global("collections", "OrderedDict"), b")R".to_vec()].concat();
    let arguments = tuple(&[storage, int(offset), ints(size), ints(stride), vec![0x89], hooks]);
    [global("torch._utils", "_rebuild_tensor_v2"), arguments, b"R".to_vec()].concat()
}

/// A state dict of one tensor `w` over storage 0.
pub(crate) fn state(class: &[u8], numel: i64, size: &[i64], stride: &[i64], offset: i64) -> Vec<u8> {
    with_entry(&tensor(class, b"0", numel, size, stride, offset))
}

/// A file before torch 1.6 with one storage, `0`.
pub(crate) fn legacy(pickle: &[u8], count: u64, data: &[u8]) -> Vec<u8> {
    let magic = [&[0x80, 2, 0x8a, 10][..], &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19], b"."].concat();
    let protocol = [&[0x80, 2][..], &int(1001), b"."].concat();
    let system = [&[0x80, 2, b'}'][..], &text(b"little_endian"), &[0x88, b's', b'.']].concat();
    let keys = [&[0x80, 2, b']'][..], &text(b"0"), b"a."].concat();
    [&magic, &protocol, &system, pickle, &keys, &count.to_le_bytes()[..], data].concat()
}

/// An archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn open(bytes: &[u8]) -> Result<TorchFile<Cursor<&[u8]>>, TorchError> {
    TorchFile::new(Cursor::new(bytes), &Options::default())
}

fn refusal(bytes: &[u8]) -> String {
    open(bytes).map(|_| ()).unwrap_err().to_string()
}

fn zipped(pickle: &[u8], data: &[u8]) -> Vec<u8> {
    archive(&[("archive/data.pkl", pickle), ("archive/data/0", data)])
}

#[test]
fn calls_of_unknown_functions_are_not_run_and_are_named() {
    let error = TorchFile::open(&golden("evil_inside.ckpt"), &Options::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`evil` of the state dict is made by posix.system, which is not run; only plain tensors are read"
    );
    let file = TorchFile::open(&golden("evil_beside.ckpt"), &Options::default()).unwrap();
    assert_eq!(file.tensors().len(), 1);
    assert_eq!((file.skipped()[0].key.as_str(), file.skipped()[0].what.as_str()), ("callbacks", "posix.system"));
    let error = TorchFile::open(&golden("whole_module.pt"), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("torch.nn.modules.container.Sequential"), "{error}");
}

#[test]
fn every_way_to_call_gives_something_inert() {
    let command = || text(b"echo owned");
    let stack_global = [text(b"os"), text(b"system"), vec![0x93]].concat();
    let ways = [
        ("GLOBAL REDUCE", [global("os", "system"), tuple(&[command()]), b"R".to_vec()].concat()),
        ("STACK_GLOBAL REDUCE", [stack_global.clone(), tuple(&[command()]), b"R".to_vec()].concat()),
        ("INST", [b"(".to_vec(), command(), b"ios\nsystem\n".to_vec()].concat()),
        ("OBJ", [b"(".to_vec(), global("os", "system"), command(), b"o".to_vec()].concat()),
        ("NEWOBJ", [global("os", "system"), tuple(&[command()]), vec![0x81]].concat()),
        ("NEWOBJ_EX", [global("os", "system"), tuple(&[command()]), b"}".to_vec(), vec![0x92]].concat()),
        ("BUILD", [global("os", "system"), tuple(&[]), b"R}".to_vec(), text(b"a"), command(), b"sb".to_vec()].concat()),
        ("a function itself", stack_global),
    ];
    for (way, body) in ways {
        let error = refusal(&zipped(&with_entry(&body), &[]));
        assert_eq!(error, "`w` of the state dict is made by os.system, which is not run; only plain tensors are read", "{way}");
    }
    // Hidden in an argument of a call that is known: an inert value of no use.
    let evil = [global("os", "system"), tuple(&[command()]), b"R".to_vec()].concat();
    let hidden =
        [global("torch._utils", "_rebuild_parameter"), tuple(&[evil.clone(), vec![0x89], vec![b'N']]), b"R".to_vec()].concat();
    assert!(refusal(&zipped(&with_entry(&hidden), &[])).contains("made by os.system"));
    let as_storage =
        [global("torch._utils", "_rebuild_tensor_v2"), tuple(&[evil, int(0), ints(&[]), ints(&[])]), b"R".to_vec()].concat();
    assert!(refusal(&zipped(&with_entry(&as_storage), &[])).contains("made by os.system"));
}

#[test]
fn opcodes_that_no_checkpoint_needs_are_refused_by_name() {
    let cases: [(&[u8], &str); 6] = [
        (b"I1\n.", "INT, protocol 0"),
        (b"S'a'\n.", "STRING, protocol 0"),
        (b"Pos\n.", "PERSID, protocol 0"),
        (&[0x82, 1, b'.'], "EXT"),
        (&[0x97, b'.'], "NEXT_BUFFER"),
        (&[0xff, b'.'], "unknown"),
    ];
    for (opcodes, name) in cases {
        let bytes = [&[0x80, 2][..], opcodes].concat();
        let error = pickle::read(&bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, PickleError::Opcode { name: found, at: 2, .. } if found == name), "{error}");
    }
}

#[test]
fn a_memo_bomb_is_small_and_fast() {
    // Each list holds the one before it ten times: 10^5000 leaves if anything were copied.
    let mut bytes = vec![0x80, 4];
    bytes.extend([b']', 0x94]);
    for level in 0..5000u32 {
        bytes.extend(b"](");
        for _ in 0..10 {
            bytes.push(b'j');
            bytes.extend(level.to_le_bytes());
        }
        bytes.extend([b'e', 0x94]);
    }
    // 10 001 values are left on the stack, so it ends with a tuple of all.
    let bytes = [&bytes[..2], b"(", &bytes[2..], b"t."].concat();
    let start = Instant::now();
    let pickle = pickle::read(&bytes, &Limits::default()).unwrap();
    assert!(pickle.values.len() < 10_010, "{}", pickle.values.len());
    drop(pickle);
    assert!(start.elapsed() < Duration::from_secs(2));
    // As a state dict it is a dictionary without tensors.
    let bytes = [&[0x80, 2, b'}'][..], &text(b"w"), b"]s."].concat();
    assert!(refusal(&zipped(&bytes, &[])).starts_with("the file has no tensors"));
}

#[test]
fn deep_nesting_and_cycles_end() {
    // A tuple in a tuple, 100 000 times.
    let deep = [&[0x80, 2, b')'][..], &[0x85; 100_000], b"."].concat();
    let pickle = pickle::read(&deep, &Limits::default()).unwrap();
    assert!(matches!(pickle.root(), Value::Tuple(items) if items.len() == 1));
    drop(pickle);
    // Open marks.
    let marks = [&[0x80, 2][..], &[b'('; 2000]].concat();
    assert!(matches!(pickle::read(&marks, &Limits::default()), Err(PickleError::Limit { what: "open marks", .. })));
    // A list in itself, a dictionary in itself.
    pickle::read(&[0x80, 4, b']', 0x94, b'h', 0, b'a', b'.'], &Limits::default()).unwrap();
    let cyclic = [&[0x80, 4, b'}', 0x94][..], &text(b"state_dict"), &[b'h', 0, b's', b'.']].concat();
    assert!(refusal(&zipped(&cyclic, &[])).contains("made by a dictionary of 1"));
}

#[test]
fn lengths_are_looked_at_before_anything_is_done_with_them() {
    let long: [(&[u8], &str); 4] = [
        (&[0x8d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "BINUNICODE8"),
        (&[b'X', 0xff, 0xff, 0xff, 0xff], "BINUNICODE"),
        (&[0x8e, 0, 0, 0, 0, 0, 1, 0, 0], "BINBYTES8"),
        (&[0x8b, 0xff, 0xff, 0xff, 0x7f], "LONG4"),
    ];
    for (opcodes, name) in long {
        let bytes = [&[0x80, 4][..], opcodes, b"abc."].concat();
        let error = pickle::read(&bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, PickleError::Limit { what: "bytes in one string", .. }), "{name}: {error}");
    }
    let frame = [&[0x80, 4, 0x95][..], &u64::MAX.to_le_bytes(), b"N."].concat();
    assert!(matches!(pickle::read(&frame, &Limits::default()), Err(PickleError::Truncated { what: "a frame", .. })));
    let limits = Limits { opcodes: 100, ..Limits::default() };
    let many = [&[0x80, 2][..], &[b'N'; 200]].concat();
    assert!(matches!(pickle::read(&many, &limits), Err(PickleError::Limit { what: "opcodes", .. })));
    let limits = Limits { stack: 100, memo: 3, ..Limits::default() };
    assert!(matches!(pickle::read(&many, &limits), Err(PickleError::Limit { what: "values on the stack", .. })));
    let memo = [&[0x80, 4, b'N'][..], &[0x94; 10]].concat();
    assert!(matches!(pickle::read(&memo, &limits), Err(PickleError::Limit { what: "memo entries", .. })));
}

#[test]
fn the_one_call_that_copies_is_bounded() {
    // OrderedDict(the same list of 1000 pairs), again and again.
    let pairs: Vec<u8> = (0..1000).flat_map(|_| [b'N', b'N', 0x86]).collect();
    let list = [&[0x80, 4, b']', b'('][..], &pairs, &[b'e', 0x94]].concat();
    let call = [&global("collections", "OrderedDict")[..], b"h\x00\x85R0"].concat();
    let bytes = [&list[..], &call.repeat(200), b"."].concat();
    let limits = Limits { opcodes: 100_000, ..Limits::default() };
    assert!(matches!(pickle::read(&bytes, &limits), Err(PickleError::Limit { what: "pairs in OrderedDict calls", .. })));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_an_error() {
    for name in ["module.bin", "legacy.pt", "protocol4.pt"] {
        let whole = std::fs::read(golden(name)).unwrap();
        open(&whole).unwrap();
        for length in (0..whole.len()).step_by(7) {
            assert!(open(&whole[..length]).is_err(), "{name} cut to {length} of {}", whole.len());
        }
    }
}

#[test]
fn compressed_archives_are_refused() {
    for name in ["deflated.ckpt", "bomb.ckpt"] {
        let error = TorchFile::open(&golden(name), &Options::default()).unwrap_err().to_string();
        assert!(error.starts_with("the archive is not as torch.save writes it: `"), "{error}");
        assert!(error.contains("is compressed ("), "{error}");
    }
}

#[test]
fn names_of_entries_are_compared_and_never_used_as_paths() {
    let pickle = state(b"FloatStorage", 1, &[1], &[1], 0);
    let one = 1f32.to_le_bytes();
    for root in ["../../etc/", "/abs/", "a\\b/", "", "C:/x/"] {
        let bytes = archive(&[(&format!("{root}data.pkl"), &pickle), (&format!("{root}data/0"), &one)]);
        assert_eq!(open(&bytes).unwrap().tensors().len(), 1, "{root}");
    }
    // A key is digits, so that it cannot lead anywhere else.
    for key in [&b"../0"[..], b"", b"0/../1", b"123456789012345678901"] {
        let bytes = zipped(&with_entry(&tensor(b"FloatStorage", key, 1, &[1], &[1], 0)), &one);
        assert!(refusal(&bytes).contains("a storage's key is not a number"), "{key:?}");
    }
    let twice = archive(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle), ("a/data/0", &one)]);
    assert!(refusal(&twice).contains("2 entries named data.pkl"));
    assert!(refusal(&archive(&[("a/other", &pickle)])).contains("0 entries named data.pkl"));
    let big = archive(&[("a/data.pkl", &pickle), ("a/data/0", &one), ("a/byteorder", b"big")]);
    assert!(refusal(&big).contains("big-endian"));
}

#[test]
fn tensors_must_lie_in_their_storage_and_storages_in_the_file() {
    let of = |numel, size: &[i64], stride: &[i64], offset, bytes: usize| {
        let pickle = state(b"FloatStorage", numel, size, stride, offset);
        let data = vec![0; bytes];
        let old = refusal(&legacy(&pickle, (bytes / 4) as u64, &data));
        let new = refusal(&zipped(&pickle, &data));
        assert_eq!(old, new);
        new
    };
    assert!(of(4, &[2, 3], &[3, 1], 0, 16).contains("ends at byte 24, beyond its storage of 16 bytes"));
    assert!(of(4, &[4], &[1], 1, 16).contains("ends at byte 20, beyond its storage of 16 bytes"));
    assert!(of(4, &[2], &[4], 0, 16).contains("ends at byte 20"));
    assert!(of(5, &[4], &[1], 0, 16).contains("says 5 numbers, the file has 16 bytes of it"));
    assert!(of(4, &[0], &[1], 5, 16).contains("starts at byte 20, beyond"));
    assert!(of(4, &[i64::MAX, i64::MAX], &[1, 1], 0, 16).contains("larger than any file"));
    assert!(of(4, &[2], &[i64::MAX], 0, 16).contains("larger than any file"));
    assert!(of(4, &[1], &[1], i64::MAX, 16).contains("larger than any file"));
    assert!(of(4, &[-1], &[1], 0, 16).contains("no tuple of natural numbers"));
    assert!(of(4, &[1, 1], &[1], 0, 16).contains("differ in length"));
    assert!(of(4, &[1; 17], &[1; 17], 0, 16).contains("more than 16 dimensions"));
    assert!(of(i64::MAX, &[1], &[1], 0, 16).contains("says 9223372036854775807 numbers"));
    // 2^40 numbers out of one, by a stride of zero: more than a file of this size may unfold to.
    assert!(of(4, &[1 << 20, 1 << 20], &[0, 0], 0, 16).contains("bytes of tensors, many of them shared"));
    assert!(refusal(&legacy(&state(b"FloatStorage", 4, &[4], &[1], 0), u64::MAX, &[0; 16])).contains("ends beyond the file"));
    let quantized = with_entry(&tensor(b"QInt8Storage", b"0", 4, &[4], &[1], 0));
    assert!(refusal(&zipped(&quantized, &[0; 4])).contains("made by torch.QInt8Storage"));
    let missing = with_entry(&tensor(b"FloatStorage", b"7", 4, &[4], &[1], 0));
    assert!(refusal(&zipped(&missing, &[0; 16])).contains("its storage 7 is not in the file"));
}

#[test]
fn names_that_would_break_the_new_file_are_refused() {
    for name in ["", "__metadata__", "a\nb", &"n".repeat(600)] {
        let key = [&[b'X'][..], &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat();
        let body = [&[0x80, 2, b'}'][..], &key, &tensor(b"FloatStorage", b"0", 1, &[1], &[1], 0), b"s."].concat();
        assert!(refusal(&zipped(&body, &[0; 4])).contains("names have 1 to 512 bytes"), "{name:?}");
    }
}

#[test]
fn other_files_are_told_apart() {
    let of = |bytes: &[u8]| refusal(bytes);
    assert!(of(&std::fs::read(golden("module.safetensors")).unwrap()).contains("looks like safetensors"));
    assert!(of(b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS"));
    assert!(of(b"<!DOCTYPE html><html>").contains("web page"));
    assert!(of(&std::fs::read(golden("plain.pkl")).unwrap()).contains("without torch's magic number"));
    assert!(of(b"").contains("not a file of torch.save"));
}
