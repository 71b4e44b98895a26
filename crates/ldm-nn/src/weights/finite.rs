//! A look at stored numbers for NaN and infinity, which damaged files are filled with.

use tch::Kind;

/// Numbers of a tensor that are all read, at most.
const READ_IN_FULL: usize = 1 << 15;
/// Numbers of a larger tensor that are read at each of three places.
const SAMPLE: usize = 256;

/// Whether a float holds NaN or infinity where it is looked at: everywhere in a small tensor, in its first, middle and last numbers in
/// a large one. A few bad numbers elsewhere are not seen: the warm-up and every picture are checked again.
pub(super) fn is_damaged(bytes: &[u8], kind: Kind) -> bool {
    let size = kind.elt_size_in_bytes();
    let count = bytes.len() / size;
    if count <= READ_IN_FULL {
        return not_finite(bytes, kind);
    }
    let places = [0, (count - SAMPLE) / 2, count - SAMPLE];
    places.into_iter().any(|first| not_finite(&bytes[first * size..][..SAMPLE * size], kind))
}

/// Whether one of the numbers has an exponent of ones alone: NaN or infinity (IEEE 754, section 3.4).
fn not_finite(bytes: &[u8], kind: Kind) -> bool {
    let halves = |mask: u16| bytes.as_chunks().0.iter().any(|&two| u16::from_le_bytes(two) & mask == mask);
    let any = |mask: u64, size: usize| {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        bytes.chunks_exact(size).any(|bytes| number(bytes) & mask == mask)
    };
    match kind {
        Kind::Half => halves(0x7c00),
        Kind::BFloat16 => halves(0x7f80),
        Kind::Float => any(0x7f80_0000, 4),
        Kind::Double => any(0x7ff0_0000_0000_0000, 8),
        _ => false,
    }
}
