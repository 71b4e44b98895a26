//! Lossy WebP through libwebp, and the EXIF block beside it. `image` writes lossless WebP alone.

use std::ffi::c_int;
use std::{ptr, slice};

use ldm_core::Raster;
use libwebp_sys::{WebPEncodeRGB, WebPFree};

/// Pixels that a side may have (`WEBP_MAX_DIMENSION`).
const SIDE: u32 = 16383;

/// Writes a picture of at most 16383 pixels a side at `quality`, 0 to 100, with an EXIF block unless that is empty. `None` is a picture
/// without pixels or a lack of memory.
pub(super) fn lossy(picture: &Raster, quality: u8, exif: &[u8]) -> Option<Vec<u8>> {
    let (width, height) = (picture.width(), picture.height());
    if !(1..=SIDE).contains(&width) || !(1..=SIDE).contains(&height) {
        return None;
    }
    let file = compressed(picture, quality)?;
    if exif.is_empty() { Some(file) } else { extended(&file, width, height, exif) }
}

fn compressed(picture: &Raster, quality: u8) -> Option<Vec<u8>> {
    let (width, height) = (c_int::try_from(picture.width()).ok()?, c_int::try_from(picture.height()).ok()?);
    let mut start = ptr::null_mut();
    // SAFETY: a `Raster` holds `height` rows of `3 * width` bytes, which libwebp only reads; `start` may be written.
    let size = unsafe { WebPEncodeRGB(picture.data().as_ptr(), width, height, 3 * width, f32::from(quality), &mut start) };
    if start.is_null() {
        return None;
    }
    // SAFETY: libwebp wrote `size` bytes from `start` on, and nobody else knows them.
    let file = unsafe { slice::from_raw_parts(start, size) }.to_vec();
    // SAFETY: `start` came from libwebp and is given back once; the copy above is ours.
    unsafe { WebPFree(start.cast()) };
    (size > 0).then_some(file)
}

/// The chunks of a simple file in an extended one (RFC 9649, section 2.7), with a chunk `EXIF` after them.
fn extended(file: &[u8], width: u32, height: u32, exif: &[u8]) -> Option<Vec<u8>> {
    const HAS_EXIF: u8 = 1 << 3;
    let chunks = file.get(12..)?;
    let [w, h] = [width - 1, height - 1].map(u32::to_le_bytes);
    let header = [HAS_EXIF, 0, 0, 0, w[0], w[1], w[2], h[0], h[1], h[2]];
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(b"VP8X", &header)?);
    body.extend(chunks);
    body.extend(chunk(b"EXIF", exif)?);
    chunk(b"RIFF", &body)
}

/// A chunk; those of odd size are padded.
fn chunk(name: &[u8; 4], body: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(body.len()).ok()?.to_le_bytes();
    let padding: &[u8] = if body.len() % 2 == 1 { &[0] } else { &[] };
    Some([name, &size, body, padding].concat())
}
