//! The form of torch since 1.6: an archive of stored entries, `*/data.pkl` with the structure and `*/data/N` with storages.
//!
//! Names of entries are compared, never used as paths. `torch.save` stores entries uncompressed, so that tensors can be mapped;
//! anything compressed or encrypted is refused, and with it every archive that unpacks to more than it is.

use std::io::{Error, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::{Limits, Places, TorchError};

/// The bytes of the pickle, and where the storages are.
pub(super) fn read<R: Read + Seek>(source: &mut R, length: u64, limits: &Limits) -> Result<(Vec<u8>, Places), TorchError> {
    let mut pickles = Vec::new();
    let mut places = Vec::new();
    let mut byteorder = None;
    {
        let mut archive = ZipArchive::new(Bounded { source: &mut *source, left: limits.directory })?;
        if archive.len() > limits.entries {
            let found = archive.len() as u64;
            return Err(TorchError::Limit { what: "entries in its archive", found, limit: limits.entries as u64 });
        }
        if archive.has_duplicate_names() {
            return Err(TorchError::Layout("two entries have the same name".to_owned()));
        }
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index)?;
            let name = entry.name()?.into_owned();
            let shown = crate::pickle::shown(&name);
            if entry.encrypted() {
                return Err(TorchError::Layout(format!("`{shown}` is encrypted")));
            }
            if entry.compression() != CompressionMethod::Stored || entry.size() != entry.compressed_size() {
                let (packed, size) = (entry.compressed_size(), entry.size());
                return Err(TorchError::Layout(format!("`{shown}` is compressed ({packed} bytes for {size})")));
            }
            let place = entry.data_start().map(|start| (start, entry.size()));
            let Some(place) = place.filter(|&(start, size)| start.checked_add(size).is_some_and(|end| end <= length)) else {
                return Err(TorchError::Layout(format!("`{shown}` lies beyond the end of the file")));
            };
            if name == "data.pkl" || name.ends_with("/data.pkl") {
                pickles.push((name[..name.len() - "data.pkl".len()].to_owned(), place));
            } else if name.ends_with("byteorder") {
                byteorder = Some(place);
            }
            places.push((name, place));
        }
    }
    let [(root, pickle)] = &pickles[..] else {
        return Err(TorchError::Layout(format!("it has {} entries named data.pkl, not one", pickles.len())));
    };
    if let Some(place) = byteorder {
        let order = bytes(source, place, 64, "bytes in `byteorder`")?;
        if order != b"little" {
            return Err(TorchError::Layout(format!(
                "its numbers are {}-endian",
                crate::pickle::shown(&String::from_utf8_lossy(&order))
            )));
        }
    }
    let data = bytes(source, *pickle, limits.pickle.bytes, "bytes in its pickle")?;
    let prefix = format!("{root}data/");
    let storages = places.into_iter().filter_map(|(name, place)| Some((name.strip_prefix(&prefix)?.to_owned(), place)));
    Ok((data, storages.collect()))
}

fn bytes<R: Read + Seek>(
    source: &mut R,
    (start, size): (u64, u64),
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, TorchError> {
    if size > limit {
        return Err(TorchError::Limit { what, found: size, limit });
    }
    let mut bytes = vec![0; size as usize];
    source.seek(SeekFrom::Start(start))?;
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A reader that gives out so many bytes in all: a table of contents cannot be larger than that.
struct Bounded<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            return Err(Error::other("its table of contents is too long"));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.source.seek(position)
    }
}
