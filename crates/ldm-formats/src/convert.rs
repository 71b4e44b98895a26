//! A file of `torch.save` rewritten as safetensors, one tensor at a time.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use crate::Dtype;
use crate::header::HEADER_LIMIT;
use crate::torch::{Skipped, StoredTensor, TorchError, TorchFile};

/// How a file is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Float tensors are cast to this; otherwise, and for all others, the dtype is kept.
    pub cast: Option<Cast>,
    /// Whether a file that is there already is replaced.
    pub overwrite: bool,
}

/// What float tensors can be cast to. Rounding is to nearest, ties to even, as in torch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// float16; a finite number beyond ±65504 is an error.
    F16,
    /// bfloat16; a finite number that rounds to infinity is an error.
    Bf16,
    /// float32; a float64 that rounds to infinity is an error.
    F32,
}

impl Cast {
    const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }
}

/// How far a conversion is; given after each tensor.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor that was written.
    pub name: &'a str,
    /// Tensors written, it included.
    pub tensors: usize,
    /// Tensors in all.
    pub tensors_total: usize,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of tensors.
    pub bytes: u64,
    /// What the file held besides and is not in the new one.
    pub skipped: Vec<Skipped>,
}

/// A conversion that failed; there is no new file then.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TorchError,
    },
    /// The new file is there already.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed on the way.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A number does not fit the dtype asked for.
    #[error("tensor `{name}` holds {value}, which {dtype} cannot: keep the dtype or choose another")]
    Range {
        /// The tensor.
        name: String,
        /// The number.
        value: f64,
        /// The dtype asked for.
        dtype: Dtype,
    },
    /// The header would be larger than readers take.
    #[error("the new file's header has {length} bytes, more than the {HEADER_LIMIT} that readers take")]
    Header {
        /// Its length.
        length: usize,
    },
}

/// Converts `from` into `to`. The new file appears whole or not at all: it is written beside and renamed.
///
/// # Errors
/// When `from` is not read ([`TorchFile::open`]), `to` is there already, a number does not fit, or the disk fails.
pub fn convert(
    from: &Path,
    to: &Path,
    reading: &crate::torch::Options,
    options: Options,
    progress: impl FnMut(Progress<'_>),
) -> Result<Summary, ConvertError> {
    let mut file = TorchFile::open(from, reading).map_err(|source| ConvertError::Open { path: from.to_owned(), source })?;
    if !options.overwrite && to.exists() {
        return Err(ConvertError::Exists { path: to.to_owned() });
    }
    let partial = Partial::create(to)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &partial.file);
    let summary = write(&mut file, &mut writer, options, progress)?;
    writer.flush()?;
    drop(writer);
    partial.finish(to, options.overwrite)?;
    Ok(summary)
}

/// Writes an open file as safetensors. Takes the memory of one chunk (see [`TorchFile::copy`]).
///
/// The header names tensors in the order of the state dict; the data are ordered by width of their dtype, wide first, so that
/// every tensor is aligned.
///
/// # Errors
/// As [`convert`].
pub fn write<R: Read + Seek>(
    file: &mut TorchFile<R>,
    mut sink: impl Write,
    options: Options,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Summary, ConvertError> {
    let tensors = file.tensors().to_vec();
    let dtypes: Vec<Dtype> = tensors.iter().map(|tensor| target(tensor, options.cast)).collect();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(dtypes[index].size()));
    let mut offsets = vec![(0, 0); tensors.len()];
    let mut bytes_total = 0;
    for &index in &order {
        let end = bytes_total + tensors[index].numel() * dtypes[index].size();
        offsets[index] = (bytes_total, end);
        bytes_total = end;
    }
    let header = header(file, &tensors, &dtypes, &offsets);
    if header.len() as u64 > HEADER_LIMIT {
        return Err(ConvertError::Header { length: header.len() });
    }
    sink.write_all(&(header.len() as u64).to_le_bytes())?;
    sink.write_all(header.as_bytes())?;
    let mut buffer = Vec::new();
    for (done, &index) in order.iter().enumerate() {
        let (tensor, dtype) = (&tensors[index], dtypes[index]);
        file.copy(index, |chunk| {
            if dtype == tensor.dtype {
                return Ok::<(), ConvertError>(sink.write_all(chunk)?);
            }
            buffer.clear();
            cast(chunk, tensor.dtype, dtype, &mut buffer).map_err(|value| {
                let name = tensor.name.clone();
                ConvertError::Range { name, value, dtype }
            })?;
            Ok(sink.write_all(&buffer)?)
        })?;
        let (bytes, tensors_total) = (offsets[index].1, tensors.len());
        progress(Progress { name: &tensor.name, tensors: done + 1, tensors_total, bytes, bytes_total });
    }
    Ok(Summary { tensors: tensors.len(), bytes: bytes_total, skipped: file.skipped().to_vec() })
}

fn target(tensor: &StoredTensor, cast: Option<Cast>) -> Dtype {
    match cast {
        Some(cast) if tensor.dtype.is_float() => cast.dtype(),
        _ => tensor.dtype,
    }
}

/// The JSON header, padded to a multiple of eight.
fn header<R: Read + Seek>(file: &TorchFile<R>, tensors: &[StoredTensor], dtypes: &[Dtype], offsets: &[(u64, u64)]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    // `format: pt` is what diffusers and transformers look for.
    let mut metadata = file.metadata().clone();
    metadata.insert("format".to_owned(), "pt".to_owned());
    let metadata: Vec<String> = metadata.iter().map(|(key, text)| format!("{}:{}", quoted(key), quoted(text))).collect();
    let mut header = format!("{{\"__metadata__\":{{{}}}", metadata.join(","));
    for ((tensor, dtype), (start, end)) in tensors.iter().zip(dtypes).zip(offsets) {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let (name, shape) = (quoted(&tensor.name), shape.join(","));
        header += &format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}");
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

/// Casts little-endian numbers; the number that does not fit, when one does not.
fn cast(chunk: &[u8], from: Dtype, to: Dtype, out: &mut Vec<u8>) -> Result<(), f64> {
    let width = from.size() as usize;
    for bytes in chunk.chunks_exact(width) {
        let wide = match *bytes {
            [a, b] if from == Dtype::F16 => f16::from_le_bytes([a, b]).to_f64(),
            [a, b] => bf16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => f64::NAN,
        };
        // torch goes through float32 too.
        let single = wide as f32;
        let finite = match to {
            Dtype::F16 => {
                let value = f16::from_f32(single);
                out.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
            Dtype::BF16 => {
                let value = bf16::from_f32(single);
                out.extend_from_slice(&value.to_le_bytes());
                value.is_finite()
            }
            _ => {
                out.extend_from_slice(&single.to_le_bytes());
                single.is_finite()
            }
        };
        if !finite && wide.is_finite() {
            return Err(wide);
        }
    }
    Ok(())
}

/// A file in the making; removed when it is dropped before its end.
struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    fn create(to: &Path) -> std::io::Result<Self> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = to.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    fn finish(self, to: &Path, overwrite: bool) -> Result<(), ConvertError> {
        self.file.sync_all()?;
        if overwrite {
            std::fs::rename(&self.path, to)?;
        } else if let Err(error) = std::fs::hard_link(&self.path, to) {
            // A link is the rename that never replaces; file systems without links get the rename after a look.
            if error.kind() == std::io::ErrorKind::AlreadyExists || to.exists() {
                return Err(ConvertError::Exists { path: to.to_owned() });
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
