//! 3×3 filters in the order in which Winograd's kernel reads them, and their way into its domain.
//!
//! Filters are kept as nine taps, not as the sixteen points that they become: the kernel makes a group's points anew at every
//! call. That is a few operations for each filter against one product for each tile, reads fewer bytes, and keeps a model's
//! memory at the size of its weights. Filters that a file has in float16 stay so where float32 is computed: they are widened, which is
//! exact, on their way into the domain.

use std::arch::x86_64::*;
use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use super::avx512::{LANES, Shared};
use super::team;

/// Numbers in a filter.
pub(super) const TAPS: usize = 9;
/// Points of the transformed domain.
pub(super) const POINTS: usize = 16;

thread_local! {
    static NUMBERS: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    static ROWS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// `weight` `[output, input, 3, 3]` for a kernel of `kind`, float32 or bfloat16, in the order `[output / 16][words][9][16]` of words: for
/// float32 one number, float32 or, where the file has that, float16; for bfloat16 two inputs' numbers. The processor must be
/// [`available`](super::available), and channels come in sixteens.
pub(super) fn pack(weight: &Tensor, kind: Kind) -> Tensor {
    let weight = match weight.kind() {
        Kind::Float | Kind::Half | Kind::BFloat16 => weight.contiguous(),
        _ => weight.to_kind(Kind::Float).contiguous(),
    };
    let (output, input) = (weight.size()[0] as usize, weight.size()[1] as usize);
    assert!(super::available() && output.is_multiple_of(LANES) && input.is_multiple_of(LANES));
    let (stored, pairs) = (weight.kind(), kind == Kind::BFloat16);
    let halves = !pairs && stored == Kind::Half;
    let packed = Tensor::empty([weight.numel() as i64], (if halves { Kind::Half } else { kind }, Device::Cpu));
    let (from, to) = (Shared(weight.data_ptr().cast::<u8>()), Shared(packed.data_ptr().cast::<u8>()));
    let numbers = input * TAPS;
    let words = numbers / if pairs { 2 } else { 1 };
    let word_size = if halves { 2 } else { 4 };
    team::each(output / LANES, &|group| {
        ROWS.with_borrow_mut(|rows| {
            // What a row of pairs writes beyond its end is the start of the next.
            rows.resize(LANES * words, 0);
            for lane in 0..LANES {
                // SAFETY: the processor is available (above); a filter's `numbers` numbers of dtype `stored`; room for its words.
                unsafe {
                    let from = from.get().add((group * LANES + lane) * numbers * stored.elt_size_in_bytes());
                    let row = &mut rows[lane * words..][..words];
                    match () {
                        () if pairs => pair(from, stored, numbers, row),
                        () if halves => raise(from, row),
                        () => widen(from, stored, row),
                    }
                }
            }
            // SAFETY: the processor is available; 16 rows, and a group of the packed filters that no other piece writes.
            unsafe {
                let to = to.get().add(group * words * LANES * word_size);
                if halves { turn::<true>(rows, words, to) } else { turn::<false>(rows, words, to) }
            }
        });
    });
    packed
}

/// 16 numbers of dtype `kind` from the `index`-th on, as float32.
///
/// # Safety
/// The processor is [`available`](super::available); the numbers exist.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn sixteen(from: *const u8, kind: Kind, index: usize) -> __m512 {
    // SAFETY: by the contract. A bfloat16 is the upper half of the float32.
    unsafe {
        match kind {
            Kind::Float => _mm512_loadu_ps(from.cast::<f32>().add(index)),
            Kind::Half => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast::<u16>().add(index).cast())),
            _ => {
                let halves = _mm256_loadu_si256(from.cast::<u16>().add(index).cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            }
        }
    }
}

/// One filter's numbers as float32.
///
/// # Safety
/// The processor is [`available`](super::available); `from` points to as many numbers of dtype `kind` as `to` has words, a multiple
/// of 16.
#[target_feature(enable = "avx512f")]
unsafe fn widen(from: *const u8, kind: Kind, to: &mut [u32]) {
    for index in (0..to.len()).step_by(LANES) {
        // SAFETY: by the contract.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().add(index).cast(), sixteen(from, kind, index)) };
    }
}

/// One filter's float16 numbers, each in the lower half of a word.
///
/// # Safety
/// As of [`widen`], for numbers of float16.
#[target_feature(enable = "avx512f")]
unsafe fn raise(from: *const u8, to: &mut [u32]) {
    for index in (0..to.len()).step_by(LANES) {
        // SAFETY: by the contract.
        unsafe {
            let halves = _mm256_loadu_si256(from.cast::<u16>().add(index).cast());
            _mm512_storeu_si512(to.as_mut_ptr().add(index).cast(), _mm512_cvtepu16_epi32(halves));
        }
    }
}

/// One filter's numbers as bfloat16, the taps of two inputs side by side.
///
/// # Safety
/// The processor is [`available`](super::available); `from` points to `numbers` numbers of dtype `kind`, a multiple of 16; `to` has room
/// for half as many words.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pair(from: *const u8, kind: Kind, numbers: usize, to: &mut [u32]) {
    NUMBERS.with_borrow_mut(|halves| {
        halves.resize(numbers + LANES, 0);
        for index in (0..numbers).step_by(LANES) {
            // SAFETY: by the contract; both 256-bit types are 32 bytes without structure.
            unsafe {
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(sixteen(from, kind, index)));
                _mm256_storeu_si256(halves.as_mut_ptr().add(index).cast(), rounded);
            }
        }
        for word in 0..to.len() / TAPS {
            // SAFETY: two filters of nine numbers, and room behind the last for what is read beyond; nine words are written.
            unsafe {
                let first = halves.as_ptr().add(word * 2 * TAPS);
                let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.cast()));
                let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.add(TAPS).cast()));
                let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                _mm512_mask_storeu_epi32(to.as_mut_ptr().add(word * TAPS).cast(), (1 << TAPS) - 1, both);
            }
        }
    });
}

/// 16 rows of `words` words into `words` columns of 16; of their lower halves alone (`HALVES`).
///
/// # Safety
/// The processor is [`available`](super::available); `rows` holds 16 rows, and `to` has room for as much.
#[target_feature(enable = "avx512f")]
unsafe fn turn<const HALVES: bool>(rows: &[u32], words: usize, to: *mut u8) {
    for first in (0..words).step_by(LANES) {
        let count = LANES.min(words - first);
        let mask = ((1u32 << count) - 1) as u16;
        let mut block = [_mm512_setzero_si512(); LANES];
        for (row, words_of) in block.iter_mut().zip(rows.chunks_exact(words)) {
            // SAFETY: `count` words from `first` on exist in the row.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask, words_of.as_ptr().add(first).cast()) };
        }
        for (i, column) in transposed(block).iter().take(count).enumerate() {
            let at = (first + i) * LANES;
            // SAFETY: a column.
            unsafe {
                if HALVES {
                    _mm256_storeu_si256(to.cast::<u16>().add(at).cast(), _mm512_cvtepi32_epi16(*column));
                } else {
                    _mm512_storeu_si512(to.cast::<u32>().add(at).cast(), *column);
                }
            }
        }
    }
}

/// 16 × 16 words, rows and columns exchanged: in pairs, in fours, then in whole lanes of 128 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let (mut twos, mut fours, mut columns) = (rows, rows, rows);
    for i in (0..LANES).step_by(2) {
        twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for i in (0..LANES).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    // Lane `l` of `fours[4 r + j]` is column `4 l + j` of rows `4 r` to `4 r + 3`.
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_below, odd_below) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<0x88>(even, even_below);
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd_below);
        columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, even_below);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_below);
    }
    columns
}

/// G g Gᵀ of 16 output channels: `[words][9][16]` words into `[16][words][16]`, points `apart` words from one another.
///
/// # Safety
/// The processor is [`available`](super::available); `from` and `to` point to that many words: bfloat16 in pairs (`PAIRS`), or one number
/// of dtype `kind` in and a float32 out.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn transform<const PAIRS: bool>(from: *const u8, kind: Kind, words: usize, to: *mut u32, apart: usize) {
    let size = word_size(kind, PAIRS);
    for word in 0..words {
        // SAFETY: by the contract: nine registers of words in, one at each point out.
        unsafe {
            let (from, to) = (from.add(word * TAPS * LANES * size), to.add(word * LANES));
            let lower = columns(from, kind, LANES * size);
            // The upper eight of sixteen pairs; a word of one number has none.
            let upper = if PAIRS { columns(from.add(LANES / 2 * size), kind, LANES * size) } else { lower };
            for i in 0..4 {
                let low = thirds([lower[0][i], lower[1][i], lower[2][i]]);
                let high = if PAIRS { thirds([upper[0][i], upper[1][i], upper[2][i]]) } else { low };
                for j in 0..4 {
                    let to = to.add((4 * i + j) * apart);
                    if PAIRS {
                        let words = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high[j], low[j]));
                        _mm512_storeu_si512(to.cast(), words);
                    } else {
                        _mm512_storeu_ps(to.cast(), low[j]);
                    }
                }
            }
        }
    }
}

/// Bytes of a word of packed filters of dtype `kind`.
pub(super) fn word_size(kind: Kind, pairs: bool) -> usize {
    kind.elt_size_in_bytes() * if pairs { 2 } else { 1 }
}

/// G g of 16 numbers' filters, column by column.
///
/// # Safety
/// The processor is [`available`](super::available); `from` points to the first of nine taps, `apart` bytes apart, of 16 numbers of dtype
/// `kind` each.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns(from: *const u8, kind: Kind, apart: usize) -> [[__m512; 4]; 3] {
    // SAFETY: by the contract.
    let tap = |i: usize| unsafe { sixteen(from.add(i * apart), kind, 0) };
    [0, 1, 2].map(|j| thirds([tap(j), tap(3 + j), tap(6 + j)]))
}

/// G g.
#[inline]
#[target_feature(enable = "avx512f")]
fn thirds(g: [__m512; 3]) -> [__m512; 4] {
    let (half, outer) = (_mm512_set1_ps(0.5), _mm512_add_ps(g[0], g[2]));
    let (sum, difference) = (_mm512_add_ps(outer, g[1]), _mm512_sub_ps(outer, g[1]));
    [g[0], _mm512_mul_ps(sum, half), _mm512_mul_ps(difference, half), g[2]]
}
