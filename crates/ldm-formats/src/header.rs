//! The header of a safetensors file, checked against the file's length before any tensor is touched.
//!
//! The format (huggingface/safetensors, README): eight bytes of length, that many bytes of JSON, the data. The JSON maps names to
//! dtype, shape and `data_offsets`; `__metadata__` maps texts to texts. The data are covered exactly: no overlap, no hole.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Dtype;
use crate::pickle::shown;

/// Bytes of a header at most, as in the `safetensors` crate.
pub const HEADER_LIMIT: u64 = 100_000_000;
/// Tensors in a file at most: twenty times those of the largest models of this line. Reading names takes longer than their bytes.
pub const TENSOR_LIMIT: usize = 1 << 16;
/// Bytes of a tensor's name at most.
pub const NAME_LIMIT: usize = 1024;
/// Dimensions of a tensor at most.
pub const RANK_LIMIT: usize = 16;

/// One tensor as a header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// First byte and the byte after the last, counted from the start of the data.
    pub offsets: (u64, u64),
}

/// A header that fits its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tensors in the order of the header.
    pub tensors: Vec<TensorInfo>,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Where the data start in the file.
    pub data_start: u64,
}

/// A file that is no sound safetensors file.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It is another kind of file.
    #[error("not safetensors: it is {what}")]
    Kind {
        /// What it is.
        what: &'static str,
    },
    /// It is shorter than a header's length.
    #[error("not safetensors: {length} bytes are too few for a header")]
    Short {
        /// Bytes of the file.
        length: u64,
    },
    /// The header is longer than the limit.
    #[error("its header says {header} bytes, more than the limit of {HEADER_LIMIT}")]
    Long {
        /// Bytes that it says.
        header: u64,
    },
    /// The header is longer than the file: most often, the file is cut off.
    #[error("its header says {header} bytes, but the file has only {length}: it is cut off or no safetensors file")]
    CutOff {
        /// Bytes that the header says.
        header: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// The header is not the JSON that it must be.
    #[error("its header is not as safetensors has it: {0}")]
    Json(serde_json::Error),
    /// A tensor's description is wrong.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong, with numbers.
        what: String,
    },
    /// The tensors do not cover the data.
    #[error("{0}")]
    Cover(String),
}

/// Opens a file and checks its header. Reads the header only: milliseconds, whatever the file's size.
///
/// # Errors
/// When the file is not sound; the error names the tensor and the numbers.
pub fn open(path: &Path) -> Result<Header, HeaderError> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(16).read_to_end(&mut start)?;
    let what = match start[..] {
        [b'P', b'K', 3, 4, ..] => Some("a zip archive, most likely of torch.save: convert it first"),
        [0x80, 2..=5, b'}' | b']' | b'(' | b'c' | 0x8a | 0x95, ..] => Some("a Python pickle: convert it first"),
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => Some("a pointer of Git LFS, not the file itself"),
        [b'<', b'!' | b'h' | b'H', ..] => Some("a web page"),
        _ => None,
    };
    if let Some(what) = what {
        return Err(HeaderError::Kind { what });
    }
    let header = length_of(&start, length)?;
    let mut json = vec![0; header as usize];
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(8))?;
    file.read_exact(&mut json)?;
    parse(&json, length - 8 - header)
}

/// Checks the first bytes of a file that is `length` bytes long: all of its header must be among them.
///
/// # Errors
/// As [`open`].
pub fn check(bytes: &[u8], length: u64) -> Result<Header, HeaderError> {
    let header = length_of(bytes, length)?;
    let json = usize::try_from(header).ok().and_then(|header| bytes[8..].get(..header));
    let json = json.ok_or(HeaderError::CutOff { header, length: bytes.len() as u64 })?;
    parse(json, length - 8 - header)
}

/// The length of the header, checked against the limit and the file.
fn length_of(start: &[u8], length: u64) -> Result<u64, HeaderError> {
    let Some(Ok(eight)) = start.get(..8).map(<[u8; 8]>::try_from) else {
        return Err(HeaderError::Short { length });
    };
    let header = u64::from_le_bytes(eight);
    if header > HEADER_LIMIT {
        return Err(HeaderError::Long { header });
    }
    if header.checked_add(8).is_none_or(|end| end > length) {
        return Err(HeaderError::CutOff { header, length });
    }
    Ok(header)
}

/// Checks a header of a file with `data` bytes after it.
fn parse(json: &[u8], data: u64) -> Result<Header, HeaderError> {
    if json.first() != Some(&b'{') {
        return Err(HeaderError::Json(serde_json::Error::custom("it does not start with {")));
    }
    let Raw { metadata, tensors: raw } = serde_json::from_slice(json).map_err(HeaderError::Json)?;
    let tensors: Vec<TensorInfo> = raw.into_iter().map(|(name, raw)| checked(name, raw, data)).collect::<Result<_, _>>()?;
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offsets);
    let mut at = 0;
    for tensor in order {
        let (start, end) = tensor.offsets;
        if start != at {
            let what = if start < at { "overlaps the one before it" } else { "leaves a hole before it" };
            let name = shown(&tensor.name);
            return Err(HeaderError::Cover(format!(
                "tensor `{name}` starts at byte {start} of the data, not at {at}: it {what}"
            )));
        }
        at = end;
    }
    if at != data {
        return Err(HeaderError::Cover(format!("the tensors end at byte {at} of the data, the file has {data}")));
    }
    Ok(Header { tensors, metadata, data_start: 8 + json.len() as u64 })
}

fn checked(name: String, raw: RawInfo, data: u64) -> Result<TensorInfo, HeaderError> {
    let wrong = |what: String| HeaderError::Tensor { name: shown(&name), what };
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(wrong(format!("names have 1 to {NAME_LIMIT} bytes and no control characters")));
    }
    let Some(dtype) = Dtype::named(&raw.dtype) else {
        return Err(wrong(format!("its dtype {} is not known", shown(&raw.dtype))));
    };
    if raw.shape.len() > RANK_LIMIT {
        return Err(wrong(format!("it has {} dimensions, more than {RANK_LIMIT}", raw.shape.len())));
    }
    let shape = raw.shape;
    let (start, end) = raw.data_offsets;
    let Some(length) = end.checked_sub(start).filter(|_| end <= data) else {
        return Err(wrong(format!("its bytes {start} to {end} do not lie in the {data} bytes of data")));
    };
    let size = shape.iter().try_fold(dtype.size(), |size, &n| size.checked_mul(n));
    if size != Some(length) {
        let size = size.map_or("more than 2⁶⁴".to_owned(), |size| size.to_string());
        return Err(wrong(format!("{dtype} of shape {shape:?} takes {size} bytes, its offsets say {length}")));
    }
    Ok(TensorInfo { name, dtype, shape, offsets: (start, end) })
}

/// The header as JSON has it, in order, no name twice.
struct Raw {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawInfo)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw { metadata: BTreeMap::new(), tensors: Vec::new() };
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("`{}` comes twice", shown(&name))));
                    }
                    if raw.tensors.len() == TENSOR_LIMIT && name != "__metadata__" {
                        return Err(A::Error::custom(format_args!("there are more than the limit of {TENSOR_LIMIT} tensors")));
                    }
                    if name == "__metadata__" {
                        // The crate takes null for none.
                        raw.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                    } else {
                        raw.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
