//! Mapped safetensors files of one module: one file, or shards with an index.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::config::read_json;

/// A checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No file of that module is there.
    #[error("{dir} has no {stem}.safetensors, {stem}.fp16.safetensors or {stem}.safetensors.index.json")]
    Absent {
        /// The module's directory.
        dir: PathBuf,
        /// The file name's stem.
        stem: String,
    },
    /// Only a pickle is there; such files can run code when they are read.
    #[error("{path} is a Python pickle, which can run code when it is read: convert it to safetensors first")]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not safetensors.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor has a dtype that networks do not have.
    #[error("{path}: {name} has dtype {dtype:?}")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// The index of the shards is not what it should be.
    #[error("{0}")]
    Index(#[from] crate::ConfigError),
}

struct Entry {
    map: Arc<Mmap>,
    offset: usize,
    shape: Vec<i64>,
    kind: Kind,
}

/// The tensors of one module, by canonical name. They point into the mapped files, which stay mapped for the life of the process.
pub struct Checkpoint {
    entries: BTreeMap<String, Entry>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({} tensors)", self.entries.len())
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `dir/stem.safetensors`, its `fp16` variant, or the shards that its index names.
    pub fn open(dir: &Path, stem: &str) -> Result<Self, CheckpointError> {
        for name in [format!("{stem}.safetensors"), format!("{stem}.fp16.safetensors")] {
            let path = dir.join(name);
            if path.is_file() {
                return Self::open_files([path]);
            }
        }
        for name in [format!("{stem}.safetensors.index.json"), format!("{stem}.safetensors.index.fp16.json")] {
            let path = dir.join(name);
            if path.is_file() {
                let index: Index = read_json(&path)?;
                let files: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
                // A shard is a plain file name beside its index, whatever the index says.
                let plain = files.iter().filter_map(|file| Path::new(file).file_name());
                return Self::open_files(plain.map(|file| dir.join(file)));
            }
        }
        let pickles = [format!("{stem}.bin"), "pytorch_model.bin".to_owned()];
        if let Some(path) = pickles.iter().map(|name| dir.join(name)).find(|path| path.is_file()) {
            return Err(CheckpointError::Pickle { path });
        }
        Err(CheckpointError::Absent { dir: dir.to_owned(), stem: stem.to_owned() })
    }

    /// Opens these files as one checkpoint.
    pub fn open_files(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, CheckpointError> {
        let mut entries = BTreeMap::new();
        for path in paths {
            let file = File::open(&path).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
            // SAFETY: the map is read-only and private; a file that another process truncates while it is served would
            // raise SIGBUS, which is the documented contract of serving from a mapped file.
            let map = unsafe { Mmap::map(&file) }.map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
            let map = Arc::new(map);
            let (header, metadata) =
                SafeTensors::read_metadata(&map).map_err(|source| CheckpointError::Format { path: path.clone(), source })?;
            // The header is preceded by its length, 8 bytes.
            let start = header + 8;
            for (name, info) in metadata.tensors() {
                let Some(kind) = kind_of(info.dtype) else {
                    return Err(CheckpointError::Dtype { path, name, dtype: info.dtype });
                };
                let shape = info.shape.iter().map(|&n| n as i64).collect();
                entries.insert(name, Entry { map: Arc::clone(&map), offset: start + info.data_offsets.0, shape, kind });
            }
        }
        Ok(Self { entries })
    }

    /// The same tensors under other names; `None` drops one.
    pub fn rename(self, rule: impl Fn(&str) -> Option<String>) -> Self {
        let entries = self.entries.into_iter().filter_map(|(name, entry)| Some((rule(&name)?, entry))).collect();
        Self { entries }
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(|entry| entry.shape.clone())
    }

    /// Numbers stored, all tensors together.
    pub fn parameters(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().product::<i64>().unsigned_abs()).sum()
    }

    /// The dtype that most numbers are stored in: `f32`, `f16`, `bf16`.
    pub fn stored_kind(&self) -> Option<Kind> {
        self.entries.values().max_by_key(|entry| entry.shape.iter().product::<i64>()).map(|entry| entry.kind)
    }

    /// The tensor, on the CPU in the dtype of the file, pointing into the map.
    ///
    /// # Panics
    /// When there is no tensor of that name; ask [`shape`](Self::shape) first.
    pub fn tensor(&self, name: &str) -> Tensor {
        let entry = &self.entries[name];
        let bytes = &entry.map[entry.offset..];
        let count: i64 = entry.shape.iter().product();
        if !(bytes.as_ptr() as usize).is_multiple_of(entry.kind.elt_size_in_bytes()) {
            // Not aligned: copied instead.
            return Tensor::from_data_size(&bytes[..count as usize * entry.kind.elt_size_in_bytes()], &entry.shape, entry.kind);
        }
        // The map must outlive every view of it, and views travel into modules and their clones: one reference is given away.
        std::mem::forget(Arc::clone(&entry.map));
        // SAFETY: safetensors checked at parsing that the range lies in the file and fits shape and dtype; the pointer is
        // aligned (checked above) and stays valid because the map is never unmapped (the reference given away above);
        // networks never write to their parameters in place.
        unsafe { Tensor::from_blob(bytes.as_ptr(), &entry.shape, &[], entry.kind, Device::Cpu) }
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
