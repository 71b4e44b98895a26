//! A file of `torch.save` rewritten as safetensors, one tensor at a time.

use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use crate::Dtype;
use crate::header::HEADER_LIMIT;
use crate::torch::{Skipped, StoredTensor, TorchError, TorchFile};
use crate::writer::{Partial, Plan, Planned, plan};

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
    /// What float tensors become.
    pub const fn dtype(self) -> Dtype {
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
    /// There is no room for the new file.
    #[error("{path}: the disk is full; the file needs {bytes} bytes")]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes of its tensors, or of the checkpoint when those are not known yet.
        bytes: u64,
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
    let written = into(&mut file, &partial, options, progress);
    let full = |bytes| ConvertError::Full { path: to.to_owned(), bytes };
    let needed = || file.tensors().iter().map(|tensor| tensor.numel() * target(tensor, options.cast).size()).sum();
    let summary = written.map_err(|error| match error {
        ConvertError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => full(needed()),
        error => error,
    })?;
    partial.finish(to, options.overwrite).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => ConvertError::Exists { path: to.to_owned() },
        std::io::ErrorKind::StorageFull => full(summary.bytes),
        _ => error.into(),
    })?;
    Ok(summary)
}

fn into<R: Read + Seek>(
    file: &mut TorchFile<R>,
    partial: &Partial,
    options: Options,
    progress: impl FnMut(Progress<'_>),
) -> Result<Summary, ConvertError> {
    let mut writer = BufWriter::with_capacity(1 << 20, &partial.file);
    let summary = write(file, &mut writer, options, progress)?;
    writer.flush()?;
    Ok(summary)
}

/// Writes an open file as safetensors. Takes the memory of one chunk (see [`TorchFile::copy`]).
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
    let planned = |tensor: &StoredTensor| Planned {
        name: tensor.name.clone(),
        dtype: target(tensor, options.cast),
        shape: tensor.shape.clone(),
    };
    let planned: Vec<Planned> = tensors.iter().map(planned).collect();
    let Plan { start, order, bytes: bytes_total } = plan(file.metadata(), &planned);
    if start.len() as u64 - 8 > HEADER_LIMIT {
        return Err(ConvertError::Header { length: start.len() - 8 });
    }
    sink.write_all(&start)?;
    let mut buffer = Vec::new();
    for (done, &(index, bytes)) in order.iter().enumerate() {
        let (tensor, dtype) = (&tensors[index], planned[index].dtype);
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
        let tensors_total = tensors.len();
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

/// Casts little-endian numbers of a float dtype; the number that does not fit, when one does not.
pub fn cast(chunk: &[u8], from: Dtype, to: Dtype, out: &mut Vec<u8>) -> Result<(), f64> {
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
