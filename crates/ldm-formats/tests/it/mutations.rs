//! Changed files: nothing panics, nothing takes long, and what is taken is sound. Deterministic; `fuzz/` has the same targets for
//! cargo-fuzz.

use std::io::Cursor;
use std::time::{Duration, Instant};

use ldm_formats::pickle::{self, Limits};
use ldm_formats::torch::{Options, TorchFile};
use ldm_formats::{convert, header};
use safetensors::SafeTensors;

use super::golden;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One to four changes: bytes replaced, cut, repeated, moved, or made a number that is often trouble.
fn mutate(source: &[u8], dice: &mut Dice) -> Vec<u8> {
    const TROUBLE: [u64; 6] = [0, 1, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
    let mut bytes = source.to_vec();
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.below(bytes.len());
        let length = dice.below(16).min(bytes.len() - at);
        match dice.below(7) {
            0 => bytes[at] = dice.next() as u8,
            1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.truncate(at),
            3 => _ = bytes.drain(at..at + length),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            5 => {
                let number = TROUBLE[dice.below(TROUBLE.len())].to_le_bytes();
                let width = [1, 2, 4, 8][dice.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            _ => {
                const OPCODES: &[u8] = b"().0125NRbtes}]ucQ\x80\x81\x85\x86\x87\x88\x8a\x8c\x90\x93\x94";
                bytes.insert(at, OPCODES[dice.below(OPCODES.len())]);
            }
        }
    }
    bytes
}

/// Runs `check` over many changes of each source.
fn many(sources: &[Vec<u8>], count: usize, seed: u64, mut check: impl FnMut(&[u8])) {
    const EACH: Duration = Duration::from_secs(2);
    let mut dice = Dice(seed);
    for index in 0..count {
        let bytes = mutate(&sources[index % sources.len()], &mut dice);
        let start = Instant::now();
        check(&bytes);
        assert!(start.elapsed() < EACH, "change {index} took {:?}", start.elapsed());
    }
}

fn sources(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| std::fs::read(golden(name)).unwrap()).collect()
}

/// The pickle of an archive, which lies in it as it is.
fn pickle_of(archive: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let name = archive.file_names().map(|name| name.unwrap().into_owned()).find(|name| name.ends_with("data.pkl")).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn pickles() {
    let archives = sources(&["lightning.ckpt", "protocol4.pt", "module.bin", "parameters.bin", "v3.pt", "evil_inside.ckpt"]);
    let pickles: Vec<Vec<u8>> = archives.iter().map(|archive| pickle_of(archive)).collect();
    let mut read = 0;
    many(&pickles, 40_000, 1, |bytes| {
        if let Ok(pickle) = pickle::read(bytes, &Limits::default()) {
            assert!(pickle.length <= bytes.len());
            assert!(pickle.values.len() <= bytes.len());
            read += 1;
        }
    });
    assert!(read > 1000, "only {read} changed pickles were read: the changes are too coarse to test much");
}

#[test]
fn files_of_torch() {
    let files =
        sources(&["lightning.ckpt", "legacy.pt", "module.bin", "v3.pt", "evil_beside.ckpt", "deflated.ckpt", "bomb.ckpt"]);
    let mut converted = 0;
    many(&files, 20_000, 2, |bytes| {
        let Ok(mut file) = TorchFile::new(Cursor::new(bytes), &Options::default()) else { return };
        let mut out = Vec::new();
        // What was opened can be written, except that data may be cut off in an archive whose sizes lie.
        if convert::write(&mut file, &mut out, convert::Options::default(), |_| {}).is_ok() {
            header::check(&out, out.len() as u64).unwrap();
            SafeTensors::deserialize(&out).unwrap();
            converted += 1;
        }
    });
    assert!(converted > 500, "only {converted} changed files were converted: the changes are too coarse to test much");
}

#[test]
fn headers_and_the_safetensors_crate_agree() {
    let files = sources(&["lightning.safetensors", "module.safetensors", "v3.safetensors"]);
    let mut sound = 0;
    many(&files, 40_000, 3, |bytes| {
        if header::check(bytes, bytes.len() as u64).is_ok() {
            // Ours is the stricter one.
            SafeTensors::deserialize(bytes).unwrap();
            sound += 1;
        }
    });
    assert!(sound > 1000, "only {sound} changed files were sound: the changes are too coarse to test much");
}
