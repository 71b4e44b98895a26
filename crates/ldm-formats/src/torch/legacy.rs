//! The form of torch before 1.6: pickles one after another (magic number, protocol, system, structure, storage keys), then the
//! storages, each after its number of elements.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::{Limits, Places, TorchError};
use crate::Dtype;
use crate::pickle::{self, Pickle, Value};

/// 0x1950a86a20f9469cfc6c, little-endian, with the sign's byte where Python writes one.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// As much of the file as its pickles may take.
pub(super) fn head<R: Read + Seek>(source: &mut R, limits: &Limits) -> Result<Vec<u8>, TorchError> {
    let mut head = Vec::new();
    source.rewind()?;
    Read::by_ref(source).take(limits.pickle.bytes).read_to_end(&mut head)?;
    Ok(head)
}

/// The structure, and where the storages are.
pub(super) fn read<'d, R: Read + Seek>(
    source: &mut R,
    head: &'d [u8],
    length: u64,
    limits: &Limits,
) -> Result<(Pickle<'d>, Places), TorchError> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'d>, TorchError> {
        let pickle = pickle::read(&head[at..], &limits.pickle)?;
        at += pickle.length;
        Ok(pickle)
    };
    let magic = next()?;
    if !matches!(magic.root(), Value::Long(bytes) if *bytes == MAGIC) {
        let hint = "; it looks like a plain pickle, without torch's magic number";
        return Err(TorchError::Kind { start: head[..head.len().min(16)].to_vec(), hint });
    }
    let protocol = next()?;
    if *protocol.root() != Value::Int(PROTOCOL) {
        return Err(TorchError::Layout(format!("its protocol is not {PROTOCOL}")));
    }
    let system = next()?;
    if let Value::Dict(pairs) = system.root() {
        let little = system.entries(pairs).into_iter().find(|(key, _)| *key == "little_endian");
        if let Some((_, id)) = little
            && *system.value(id) != Value::Bool(true)
        {
            return Err(TorchError::Layout("its numbers are big-endian".to_owned()));
        }
    }
    let structure = next()?;
    let keys = next()?;
    let Value::List(ids) = keys.root() else {
        return Err(TorchError::Layout("its storage keys are no list".to_owned()));
    };
    let widths: BTreeMap<&str, u64> = structure
        .values
        .iter()
        .filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key, storage.dtype.map_or(1, Dtype::size))),
            _ => None,
        })
        .collect();
    let mut places = Places::new();
    let mut position = at as u64;
    for &id in ids {
        let Value::Str(key) = *keys.value(id) else {
            return Err(TorchError::Layout("a storage key is no string".to_owned()));
        };
        let Some(width) = widths.get(key) else {
            let key = pickle::shown(key);
            return Err(TorchError::Layout(format!("the size of storage {key} is not known: no tensor that is read uses it")));
        };
        source.seek(SeekFrom::Start(position))?;
        let mut count = [0; 8];
        source.read_exact(&mut count)?;
        let size = u64::from_le_bytes(count).checked_mul(*width);
        let end = size.and_then(|size| (position + 8).checked_add(size)).filter(|&end| end <= length);
        let (Some(size), Some(end)) = (size, end) else {
            let (key, count) = (pickle::shown(key), u64::from_le_bytes(count));
            return Err(TorchError::Layout(format!("storage {key} of {count} numbers ends beyond the file")));
        };
        if places.insert(key.to_owned(), (position + 8, size)).is_some() {
            return Err(TorchError::Layout(format!("storage {} comes twice", pickle::shown(key))));
        }
        position = end;
    }
    Ok((structure, places))
}
