//! Safetensors files in the making: a header that is known before the data, and files that appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::Dtype;

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
}

impl Planned {
    /// Bytes of its data.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.size()
    }
}

/// Where everything of a file goes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The length of the header and the header: what the file begins with.
    pub start: Vec<u8>,
    /// Tensors in the order of their data, with the byte behind each.
    pub order: Vec<(usize, u64)>,
    /// Bytes of all data.
    pub bytes: u64,
}

/// The plan of a file. The header names tensors in the order given; the data are ordered by width of their dtype, wide first, so
/// that every tensor is aligned.
pub fn plan(metadata: &BTreeMap<String, String>, tensors: &[Planned]) -> Plan {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(tensors[index].dtype.size()));
    let mut offsets = vec![(0, 0); tensors.len()];
    let mut bytes = 0;
    for &index in &order {
        let end = bytes + tensors[index].bytes();
        offsets[index] = (bytes, end);
        bytes = end;
    }
    let header = header(metadata, tensors, &offsets);
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    Plan { start, order: order.into_iter().map(|index| (index, offsets[index].1)).collect(), bytes }
}

/// The JSON header, padded to a multiple of eight.
fn header(metadata: &BTreeMap<String, String>, tensors: &[Planned], offsets: &[(u64, u64)]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    // `format: pt` is what diffusers and transformers look for.
    let mut metadata = metadata.clone();
    metadata.insert("format".to_owned(), "pt".to_owned());
    let metadata: Vec<String> = metadata.iter().map(|(key, text)| format!("{}:{}", quoted(key), quoted(text))).collect();
    let mut header = format!("{{\"__metadata__\":{{{}}}", metadata.join(","));
    for (Planned { name, dtype, shape }, (start, end)) in tensors.iter().zip(offsets) {
        let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
        let (name, shape) = (quoted(name), shape.join(","));
        header += &format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}");
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

/// A file in the making; removed when it is dropped before its end.
#[derive(Debug)]
pub struct Partial {
    /// Where it is written to.
    pub file: File,
    path: PathBuf,
}

/// The name beside `to` that something has while it is made.
pub fn partial_name(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    to.with_file_name(name)
}

impl Partial {
    /// Opens a new file beside `to`.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn create(to: &Path) -> std::io::Result<Self> {
        let path = partial_name(to);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name. Without `overwrite` a file that is there already is an error (of kind `AlreadyExists`).
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(self, to: &Path, overwrite: bool) -> std::io::Result<()> {
        self.file.sync_all()?;
        if overwrite {
            return std::fs::rename(&self.path, to);
        }
        if let Err(error) = std::fs::hard_link(&self.path, to) {
            // A link is the rename that never replaces; file systems without links get the rename after a look.
            if error.kind() == std::io::ErrorKind::AlreadyExists || to.exists() {
                return Err(std::io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(&self.path, to)?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already after a rename; nothing else can be done here.
        let _ = std::fs::remove_file(&self.path);
    }
}
