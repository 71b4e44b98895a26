//! What names a model's weights: a SHA-256 of its weight files, sampled, so that starting does not read gigabytes.
//!
//! Of each file: its name, its length, its header (every tensor's name, shape and place), and 64 blocks of 4 kB spread evenly from
//! the first number to the last. Training, merging or converting changes nearly every number, and so the digest; it is not proof
//! against somebody who changes single numbers on purpose. Files of at most 64 blocks are read whole.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::families::ModelError;
use crate::loras;
use crate::options::ModelSource;

/// Bytes of a block, and blocks of a file.
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 64;
/// The longest header that is read; longer ones are refused when the file is opened.
const HEADER: u64 = 100_000_000;

/// Hexadecimal digits of some bytes' SHA-256.
pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of what a source is made of, 64 hexadecimal digits.
pub(crate) fn of(source: &ModelSource) -> Result<String, ModelError> {
    let mut sum = Sha256::new();
    for (name, path) in files(source)? {
        let failed = |source| ModelError::Read { path: path.clone(), source };
        sum.update(name.as_bytes());
        sum.update([0]);
        add(&mut sum, &path).map_err(failed)?;
    }
    sum.update(source.ema.to_string().as_bytes());
    source.merge.iter().for_each(|merge| sum.update(merge.strength.to_le_bytes()));
    Ok(hex(sum.finalize()))
}

/// The weight files of a source, by name: the model's file, or those of a directory and its folders; then what is put beside it.
fn files(source: &ModelSource) -> Result<Vec<(String, PathBuf)>, ModelError> {
    let mut files = Vec::new();
    if source.dir.is_dir() {
        for folder in std::iter::once(source.dir.clone()).chain(sorted(&source.dir)?.into_iter().filter(|path| path.is_dir())) {
            for path in sorted(&folder)?.into_iter().filter(|path| is_weights(path)) {
                let name = path.strip_prefix(&source.dir).unwrap_or(&path);
                files.push((name.to_string_lossy().into_owned(), path.clone()));
            }
        }
    } else {
        files.push(("model".to_owned(), source.dir.clone()));
    }
    let merged: Vec<PathBuf> = source.merge.iter().map(|merge| merge.path.clone()).collect();
    for (name, paths) in [("embedding", &source.embeddings), ("lora", &source.loras), ("merge", &merged)] {
        files.extend(loras::files(paths)?.into_iter().map(|path| (name.to_owned(), path)));
    }
    for (name, path) in [("preview", &source.preview), ("first-stage", &source.first_stage)] {
        if let Some(path) = path {
            let own = if path.is_dir() {
                sorted(path)?.into_iter().filter(|path| is_weights(path)).collect()
            } else {
                vec![path.clone()]
            };
            files.extend(own.into_iter().map(|path| (name.to_owned(), path)));
        }
    }
    Ok(files)
}

fn is_weights(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "safetensors")
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let failed = |source| ModelError::Read { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn add(sum: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    sum.update(length.to_le_bytes());
    if length <= BLOCK * BLOCKS {
        return add_part(sum, &mut file, 0, length);
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)?;
    // A safetensors file begins with the length of its header.
    let header = u64::from_le_bytes(prefix).min(HEADER).min(length - 8);
    add_part(sum, &mut file, 0, 8 + header)?;
    let (start, room) = (8 + header, length - 8 - header);
    for block in 0..BLOCKS {
        let at = room.saturating_sub(BLOCK) * block / (BLOCKS - 1);
        add_part(sum, &mut file, start + at, BLOCK.min(room))?;
    }
    Ok(())
}

fn add_part(sum: &mut Sha256, file: &mut File, from: u64, count: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    let mut part = file.take(count);
    let mut buffer = vec![0; 65_536];
    loop {
        match part.read(&mut buffer)? {
            0 => return Ok(()),
            read => sum.update(&buffer[..read]),
        }
    }
}
