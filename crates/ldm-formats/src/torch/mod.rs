//! Files of `torch.save`: which tensors they hold and where their bytes are. Nothing in them is run; see [`crate::pickle`].

mod archive;
mod legacy;
mod state;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::Dtype;
use crate::pickle::{self, PickleError};

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The key of the top level under which the tensors lie. Without it: `state_dict` where there is one, else the top level.
    pub key: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

/// What a file may at most hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of its pickles.
    pub pickle: pickle::Limits,
    /// Entries of the archive, bytes of its table of contents.
    pub entries: usize,
    /// Bytes that may be read to find the archive's entries.
    pub directory: u64,
    /// Tensors.
    pub tensors: usize,
    /// Bytes of a tensor's name.
    pub name: usize,
    /// Bytes of all tensors, in multiples of the file's length: shared storages make it more than one.
    pub expansion: u64,
    /// Entries beside the tensors that are kept as text, and bytes of such a text.
    pub metadata: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pickle: pickle::Limits::default(),
            entries: 100_000,
            directory: 64 << 20,
            tensors: 100_000,
            name: 512,
            expansion: 8,
            metadata: 1000,
        }
    }
}

/// A file of torch that is not read.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The disk.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The archive is broken, or says too much.
    #[error("the archive cannot be read: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// The archive is not as `torch.save` writes it.
    #[error("the archive is not as torch.save writes it: {0}")]
    Layout(String),
    /// It is another kind of file.
    #[error("not a file of torch.save: it starts with {start:02x?}{hint}")]
    Kind {
        /// The first bytes.
        start: Vec<u8>,
        /// What it may be instead.
        hint: &'static str,
    },
    /// Its pickle is refused.
    #[error("its pickle is not read: {0}")]
    Pickle(#[from] PickleError),
    /// There is no state dict.
    #[error("{0}")]
    State(String),
    /// An entry of the state dict is made by something that is not read.
    #[error("`{name}` of the state dict is made by {what}, which is not run; only plain tensors are read")]
    Opaque {
        /// The entry.
        name: String,
        /// Module and name of what makes it, or a description.
        what: String,
    },
    /// A tensor does not fit its storage or the file.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong, with numbers.
        what: String,
    },
    /// More than the limit.
    #[error("the file has {found} {what}, more than the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

/// One tensor of a file: what it is and where its bytes are. All of it was checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the state dict.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Numbers from one index to the next, by dimension.
    pub strides: Vec<u64>,
    /// The first byte of its first number in the file.
    position: u64,
}

impl StoredTensor {
    /// Numbers.
    pub fn numel(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.numel() * self.dtype.size()
    }

    /// Whether its numbers lie one after another in the order of its shape.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size <= 1 || stride == expected;
            expected *= size.max(1);
            fits
        })
    }

    /// Numbers of the storage from its first to its last, both counted.
    fn span(&self) -> u64 {
        1 + self.shape.iter().zip(&self.strides).map(|(&size, &stride)| size.saturating_sub(1) * stride).sum::<u64>()
    }
}

/// An entry that is no tensor and was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its key at the top level.
    pub key: String,
    /// What it is: a description, or what it would have been made with.
    pub what: String,
}

/// An open file of `torch.save`: its tensors by name, in the order of the state dict.
#[derive(Debug)]
pub struct TorchFile<R = File> {
    source: R,
    tensors: Vec<StoredTensor>,
    metadata: BTreeMap<String, String>,
    skipped: Vec<Skipped>,
}

/// Where a storage lies in the file, by key: first byte and length.
type Places = BTreeMap<String, (u64, u64)>;

impl TorchFile<File> {
    /// Opens a file: reads its table of contents and its pickle, no tensor.
    ///
    /// # Errors
    /// When it is no file of torch, breaks a limit, or its state dict needs anything but plain tensors.
    pub fn open(path: &Path, options: &Options) -> Result<Self, TorchError> {
        Self::new(File::open(path)?, options)
    }
}

impl<R: Read + Seek> TorchFile<R> {
    /// As [`open`](TorchFile::open), from anything that can be read.
    ///
    /// # Errors
    /// The same.
    pub fn new(mut source: R, options: &Options) -> Result<Self, TorchError> {
        let length = source.seek(SeekFrom::End(0))?;
        source.rewind()?;
        let mut start = Vec::new();
        Read::by_ref(&mut source).take(16).read_to_end(&mut start)?;
        let limits = &options.limits;
        let state = if start.starts_with(b"PK\x03\x04") {
            let (data, places) = archive::read(&mut source, length, limits)?;
            let pickle = pickle::read(&data, &limits.pickle)?;
            state::State::new(&pickle, &places, length, options)?
        } else if matches!(start[..], [0x80, 2..=5, ..]) {
            let head = legacy::head(&mut source, limits)?;
            let (pickle, places) = legacy::read(&mut source, &head, length, limits)?;
            state::State::new(&pickle, &places, length, options)?
        } else {
            let hint = match start[..] {
                [_, _, _, _, _, _, _, _, b'{', ..] => "; it looks like safetensors, which needs no conversion",
                [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => {
                    "; it looks like a pointer of Git LFS, not the file itself"
                }
                [b'<', ..] => "; it looks like a web page",
                _ => "",
            };
            return Err(TorchError::Kind { start, hint });
        };
        let state::State { tensors, metadata, skipped } = state;
        Ok(Self { source, tensors, metadata, skipped })
    }

    /// Its tensors in the order of the state dict.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// Numbers and short texts beside the tensors, such as `global_step`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What else the file holds; none of it was run.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Hands the bytes of a tensor to `sink`, in order and in chunks of whole numbers, little-endian. Takes the memory of one
    /// chunk; for a tensor that is not contiguous, of the stretch of its storage that it touches.
    ///
    /// # Errors
    /// When the file cannot be read or `sink` fails.
    ///
    /// # Panics
    /// When there is no tensor `index`.
    pub fn copy<E: From<std::io::Error>>(&mut self, index: usize, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        const CHUNK: u64 = 4 << 20;
        let tensor = &self.tensors[index];
        if tensor.numel() == 0 {
            return Ok(());
        }
        self.source.seek(SeekFrom::Start(tensor.position))?;
        let width = tensor.dtype.size();
        if tensor.is_contiguous() {
            let mut left = tensor.bytes();
            let mut chunk = vec![0; left.min(CHUNK) as usize];
            while left > 0 {
                let part = &mut chunk[..left.min(CHUNK) as usize];
                self.source.read_exact(part)?;
                sink(part)?;
                left -= part.len() as u64;
            }
            return Ok(());
        }
        let mut stretch = vec![0; (tensor.span() * width) as usize];
        self.source.read_exact(&mut stretch)?;
        let width = width as usize;
        let mut chunk = Vec::with_capacity(tensor.bytes().min(CHUNK) as usize);
        let mut at = vec![0u64; tensor.shape.len()];
        let mut number = 0;
        for _ in 0..tensor.numel() {
            chunk.extend_from_slice(&stretch[number as usize * width..][..width]);
            if chunk.len() as u64 == CHUNK {
                sink(&chunk)?;
                chunk.clear();
            }
            // The next index, last dimension first.
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                number += tensor.strides[axis];
                if at[axis] < tensor.shape[axis] {
                    break;
                }
                number -= at[axis] * tensor.strides[axis];
                at[axis] = 0;
            }
        }
        if chunk.is_empty() { Ok(()) } else { sink(&chunk) }
    }
}
