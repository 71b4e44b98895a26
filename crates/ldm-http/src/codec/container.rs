//! What decoders take on trust: that a file goes on to its picture's end, that what lies within is no larger than it says, and that a
//! palette has whole colours.

use super::{Format, Unreadable};

/// Refuses a file that is cut short, where its decoder would make up the rest, one whose parts are larger than its header's
/// `size`, width and height, which bounds the memory, and one whose palette its decoder would panic at.
pub(crate) fn check(format: Format, file: &[u8], size: (u32, u32)) -> Result<(), Unreadable> {
    let wrong = match format {
        // What is cut short the decoder finds out by itself.
        Format::Png => (!whole_palette(file)).then_some(PARTS),
        Format::Jpeg => (!jpeg_ends(file)).then_some(CUT),
        Format::WebP => webp(file, size).err(),
    };
    wrong.map_or(Ok(()), |wrong| Err(Unreadable::Picture(wrong.to_owned())))
}

/// The size in a PNG's header, where it always has the same place.
pub(crate) fn claimed(format: Format, file: &[u8]) -> Option<(u32, u32)> {
    let &[a, b, c, d, e, f, g, h] = file.get(16..24)?.first_chunk()?;
    let size = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    (format == Format::Png).then_some(size)
}

const CUT: &str = "it is cut short";
const LARGER: &str = "it has a frame that is larger than the picture";

const PARTS: &str = "it has a palette that ends within a colour";

/// Whether palettes before a PNG's pixels have three bytes a colour (PNG, third edition, 11.2.2). png 0.18.1 takes others and panics.
fn whole_palette(file: &[u8]) -> bool {
    let mut rest = file.get(8..).unwrap_or_default();
    while let Some((&[a, b, c, d, kind @ ..], after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match &kind {
            b"PLTE" if !length.is_multiple_of(3) => return false,
            b"IDAT" => return true,
            // A checksum follows.
            _ => rest = after.get(length.saturating_add(4)..).unwrap_or_default(),
        }
    }
    true
}

/// Whether an end of image follows the first scan. The two bytes of that marker do not come up within a scan.
fn jpeg_ends(file: &[u8]) -> bool {
    let mut rest = file.get(2..).unwrap_or_default();
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)) {
        let (marker, after) = (rest[at + 1], &rest[at + 2..]);
        match marker {
            0xd9 => return false,
            0xda => return after.windows(2).any(|pair| pair == [0xff, 0xd9]),
            // These have no length.
            0x01 | 0xd0..=0xd8 => rest = after,
            _ => {
                let length = after.first_chunk::<2>().map_or(usize::MAX, |&length| usize::from(u16::from_be_bytes(length)));
                rest = after.get(length..).unwrap_or_default();
            }
        }
    }
    false
}

/// Walks the chunks (RFC 9649, section 2).
fn webp(file: &[u8], size: (u32, u32)) -> Result<(), &'static str> {
    let (head, body) = file.split_first_chunk::<8>().ok_or(CUT)?;
    let chunks = body.get(4..length(head)).ok_or(CUT)?;
    webp_chunks(chunks, size, false)
}

fn webp_chunks(mut chunks: &[u8], size: (u32, u32), within_frame: bool) -> Result<(), &'static str> {
    while let Some((head, rest)) = chunks.split_first_chunk::<8>() {
        let body = rest.get(..length(head)).ok_or(CUT)?;
        match &head[..4] {
            b"VP8 " => {
                // A frame tag, a start code, and the sides with two bits of scaling each (RFC 6386, section 9.1).
                let &[w0, w1, h0, h1] = body.get(6..10).and_then(<[u8]>::first_chunk).ok_or(CUT)?;
                let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                if side(w0, w1) > size.0 || side(h0, h1) > size.1 {
                    return Err(LARGER);
                }
            }
            b"ANMF" if !within_frame => webp_chunks(body.get(16..).ok_or(CUT)?, size, true)?,
            _ => {}
        }
        // The last chunk's padding may be missing.
        chunks = rest.get(body.len().next_multiple_of(2)..).unwrap_or_default();
    }
    Ok(())
}

/// The size in a chunk's header.
fn length(&[_, _, _, _, a, b, c, d]: &[u8; 8]) -> usize {
    u32::from_le_bytes([a, b, c, d]) as usize
}
