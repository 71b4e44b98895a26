//! Mapped safetensors files of one module: one file, or shards with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_formats::Dtype;
use ldm_formats::header::{self, Header, HeaderError};
use tch::{Kind, Tensor};

use super::finite;
use super::mapped_file::MappedFile;
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
    /// The file is no sound safetensors file.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: HeaderError,
    },
    /// A tensor has a dtype that networks do not have.
    #[error("{path}: tensor `{name}` has dtype {dtype}, which networks do not have")]
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

#[derive(Clone)]
struct Entry {
    file: Arc<MappedFile>,
    offset: usize,
    /// As stored.
    shape: Vec<i64>,
    kind: Kind,
    form: Form,
}

/// How a tensor is made of the stored one.
#[derive(Clone, Copy)]
enum Form {
    Stored,
    Transposed,
    /// The third `part` of rows in the order `[heads, 3, width]`.
    Head {
        heads: i64,
        part: i64,
    },
}

/// What a map of names makes of one stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// It is left out.
    Drop,
    /// It has another name.
    As(String),
    /// A matrix `[a, b]` is read as `[b, a]`.
    Transposed(String),
    /// Its rows, cut into as many equal parts as there are names, in order (`in_proj_weight` of `torch.nn.MultiheadAttention`).
    Rows(Vec<String>),
    /// The rows are `[heads, 3, width]`: query, key and value of one head after another, as in openaimodel.py
    /// `QKVAttentionLegacy`.
    Heads {
        /// The names of queries, keys and values.
        names: [String; 3],
        /// The number of heads.
        heads: i64,
    },
}

impl Entry {
    /// Numbers stored. The header's check has their bytes in the file, unless there are none.
    fn count(&self) -> i64 {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// The shape of the tensor that is made of it.
    fn made(&self) -> Vec<i64> {
        match self.form {
            Form::Stored => self.shape.clone(),
            Form::Transposed => self.shape.iter().rev().copied().collect(),
            Form::Head { .. } => self.shape.iter().enumerate().map(|(i, &n)| if i == 0 { n / 3 } else { n }).collect(),
        }
    }
}

/// The tensors of one module, by canonical name. A clone shares the mapped files. A file stays mapped for as long as a checkpoint or
/// one of its tensors lives.
#[derive(Clone)]
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
            let header = match header::open(&path) {
                Ok(header) => header,
                Err(HeaderError::Read(source)) => return Err(CheckpointError::Read { path, source }),
                Err(source) => return Err(CheckpointError::Format { path, source }),
            };
            let Header { tensors, data_start, .. } = header;
            let length = data_start + tensors.iter().map(|tensor| tensor.offsets.1).max().unwrap_or_default();
            let file = MappedFile::open(&path, length).map_err(|source| CheckpointError::Read { path: path.clone(), source })?;
            for tensor in tensors {
                let Some(kind) = kind_of(tensor.dtype) else {
                    return Err(CheckpointError::Dtype { path, name: tensor.name, dtype: tensor.dtype });
                };
                // The header's check has the range in the file, which is mapped: both fit.
                let shape = tensor.shape.iter().map(|&n| n as i64).collect();
                let offset = (data_start + tensor.offsets.0) as usize;
                entries.insert(tensor.name, Entry { file: Arc::clone(&file), offset, shape, kind, form: Form::Stored });
            }
        }
        Ok(Self { entries })
    }

    /// The same tensors under other names; `None` drops one.
    pub fn rename(self, rule: impl Fn(&str) -> Option<String>) -> Self {
        let entries = self.entries.into_iter().filter_map(|(name, entry)| Some((rule(&name)?, entry))).collect();
        Self { entries }
    }

    /// The same tensors under the names, and in the forms, that `rule` gives for each name and shape. A form that does not fit the
    /// shape leaves the tensor as it is under its first name, so that the strict report shows it.
    pub fn map_names(self, rule: impl Fn(&str, &[i64]) -> Mapped) -> Self {
        let mut entries = BTreeMap::new();
        for (name, entry) in self.entries {
            match rule(&name, &entry.shape) {
                Mapped::Drop => {}
                Mapped::As(name) => _ = entries.insert(name, entry),
                Mapped::Transposed(name) if entry.shape.len() == 2 => {
                    entries.insert(name, Entry { form: Form::Transposed, ..entry });
                }
                Mapped::Transposed(name) => _ = entries.insert(name, entry),
                Mapped::Rows(names) => entries.extend(rows(&names, entry)),
                Mapped::Heads { names, heads } => entries.extend(heads_of(names, heads, entry)),
            }
        }
        Self { entries }
    }

    /// The tensors of both; of two with the same name, that of `other`.
    pub fn joined(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(Entry::made)
    }

    /// The dtype of a tensor in the file.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.entries.get(name).map(|entry| entry.kind)
    }

    /// Numbers stored, all tensors together.
    pub fn parameters(&self) -> u64 {
        self.entries.values().map(|entry| entry.count().unsigned_abs()).sum()
    }

    /// The dtype that most numbers are stored in: `f32`, `f16`, `bf16`.
    pub fn stored_kind(&self) -> Option<Kind> {
        self.entries.values().max_by_key(|entry| entry.count()).map(|entry| entry.kind)
    }

    /// The first tensor that is seen to hold NaN or infinity. Small tensors are read in full, of large ones a few hundred numbers:
    /// milliseconds, whatever the file's size.
    pub fn damaged(&self) -> Option<&str> {
        self.entries.iter().find(|(_, entry)| finite::is_damaged(entry.bytes(), entry.kind)).map(|(name, _)| name.as_str())
    }

    /// The tensor, on the CPU in the dtype of the file, pointing into the map if it is as stored.
    ///
    /// # Panics
    /// When there is no tensor of that name; ask [`shape`](Self::shape) first.
    pub fn tensor(&self, name: &str) -> Tensor {
        let entry = &self.entries[name];
        let stored = entry.stored();
        match entry.form {
            Form::Stored => stored,
            Form::Transposed => stored.transpose(0, 1).contiguous(),
            Form::Head { heads, part } => {
                let made = entry.made();
                stored.view([heads, 3, made[0] / heads, -1]).select(1, part).reshape(made)
            }
        }
    }
}

impl Entry {
    /// Numbers as stored.
    fn bytes(&self) -> &[u8] {
        self.file.bytes(self.offset, self.count() as usize * self.kind.elt_size_in_bytes())
    }

    fn stored(&self) -> Tensor {
        self.file.tensor(self.offset, &self.shape, self.kind)
    }
}

/// Equal parts of the rows; the whole under the first name when they do not come out even.
fn rows(names: &[String], entry: Entry) -> Vec<(String, Entry)> {
    let parts = names.len();
    let total = entry.shape.first().copied().unwrap_or_default();
    if parts == 0 || total <= 0 || total % parts as i64 != 0 {
        return names.first().map(|name| (name.clone(), entry)).into_iter().collect();
    }
    let mut shape = entry.shape.clone();
    shape[0] = total / parts as i64;
    let bytes = shape.iter().product::<i64>() as usize * entry.kind.elt_size_in_bytes();
    let part = |index: usize| Entry { offset: entry.offset + index * bytes, shape: shape.clone(), ..entry.clone() };
    names.iter().enumerate().map(|(index, name)| (name.clone(), part(index))).collect()
}

/// Queries, keys and values of rows `[heads, 3, width]`; the whole under the first name when they do not come out even.
fn heads_of(names: [String; 3], heads: i64, entry: Entry) -> Vec<(String, Entry)> {
    let total = entry.shape.first().copied().unwrap_or_default();
    let [query, key, value] = names;
    if heads <= 0 || total <= 0 || total % (3 * heads) != 0 {
        return vec![(query, entry)];
    }
    let part = |part| Entry { form: Form::Head { heads, part }, ..entry.clone() };
    vec![(query, part(0)), (key, part(1)), (value, part(2))]
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
        Dtype::Bool => Kind::Bool,
        _ => return None,
    })
}
