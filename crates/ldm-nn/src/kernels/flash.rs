//! Attention for bfloat16 on processors with AVX512-BF16: scores never leave the first-level cache (Dao et al. 2022).
//!
//! Libtorch's kernel of that name packs bfloat16 operands only with AMX. Here keys and values are packed once per head into
//! the order in which `vdpbf16ps` reads them; then eight rows of queries at a time meet blocks of keys.

#![expect(clippy::needless_range_loop, reason = "rows and registers are numbered, and loops over their fixed counts unroll")]

use std::arch::x86_64::*;

use tch::{Kind, Tensor};

use super::avx512::{LANES, Shared, available, broadcast, exp2, load, multiply_add, product};
use super::team;

/// Query rows that go through the keys together.
const ROWS: usize = 8;
/// Keys per block: scores and weights of `ROWS` rows are 24 kB.
const BLOCK: usize = 512;
/// Query rows per piece of work.
const CHUNK: usize = 128;

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    /// Queries.
    l: usize,
    /// Keys.
    keys: usize,
    /// Width of a head; even.
    d: usize,
    /// `d` in registers, rounded up.
    vectors: usize,
    /// `keys` rounded up to pairs of registers.
    padded: usize,
}

impl Shape {
    /// Pairs of numbers in the packed keys of one head: `[padded / 16][d / 2][16]`.
    fn keys_len(self) -> usize {
        self.padded * self.d / 2
    }

    /// Pairs of numbers in the packed values of one head: `[padded / 2][vectors][16]`.
    fn values_len(self) -> usize {
        self.padded / 2 * self.vectors * LANES
    }
}

/// softmax(q kᵀ / √d) v per head; bfloat16 on the CPU, `q` `[B, L, heads·d]`, `k` and `v` `[B, L', heads·d]` → `[B, L, heads·d]`.
///
/// # Panics
/// When the processor cannot ([`available`]), or a shape, dtype or an odd `d` does not fit.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    assert!(available() && [q, k, v].iter().all(|x| x.kind() == Kind::BFloat16 && x.device() == tch::Device::Cpu));
    let ((b, l, width), (_, keys, _)) = (q.size3().expect("[B, L, D]"), k.size3().expect("[B, L, D]"));
    assert!(k.size() == [b, keys, width] && v.size() == [b, keys, width] && keys > 0 && width % (2 * heads) == 0);
    let d = (width / heads) as usize;
    let shape = Shape {
        heads: heads as usize,
        l: l as usize,
        keys: keys as usize,
        d,
        vectors: d.div_ceil(LANES),
        padded: (keys as usize).next_multiple_of(2 * LANES),
    };
    let (q, k, v) = (q.contiguous(), k.contiguous(), v.contiguous());
    let out = q.empty_like();
    let units = b as usize * shape.heads;
    // Two bfloat16 each. Not zeroed first: `pack` writes all of it.
    let mut packed: Vec<u32> = Vec::with_capacity(units * (shape.keys_len() + shape.values_len()));
    let packed = Shared(packed.spare_capacity_mut().as_mut_ptr().cast::<u32>());
    let at = |x: &Tensor| Shared(x.data_ptr().cast::<u16>());
    let (q, k, v, out_at) = (at(&q), at(&k), at(&v), at(&out));

    team::each(units, &|unit| {
        let (row, head) = (unit / shape.heads, unit % shape.heads);
        let offset = row * shape.keys * shape.heads * shape.d + head * shape.d;
        // SAFETY: `k` and `v` are contiguous `[B, L', heads·d]` (asserted, made contiguous), so `offset` and the rows that
        // `pack` reads lie within them; the packed parts of different units do not overlap.
        unsafe {
            let part = packed.get().add(unit * (shape.keys_len() + shape.values_len()));
            pack(k.get().add(offset), v.get().add(offset), shape, part, part.add(shape.keys_len()));
        }
    });
    let chunks = shape.l.div_ceil(CHUNK);
    team::each(units * chunks, &|piece| {
        let (unit, from) = (piece / chunks, piece % chunks * CHUNK);
        let (row, head) = (unit / shape.heads, unit % shape.heads);
        let offset = (row * shape.l + from) * shape.heads * shape.d + head * shape.d;
        let count = CHUNK.min(shape.l - from);
        // SAFETY: the processor has the instructions (asserted); `q` and `out` are contiguous `[B, L, heads·d]` and rows
        // `from .. from + count` lie within them; pieces write disjoint rows or columns; the packed part was written above.
        unsafe {
            let part = packed.get().add(unit * (shape.keys_len() + shape.values_len()));
            chunk(q.get().add(offset), part, part.add(shape.keys_len()), out_at.get().add(offset), count, shape);
        }
    });
    out
}

/// Brings the keys and values of one head into the order of [`Shape`]; what lies beyond `keys` and `d` becomes zero.
///
/// # Safety
/// `k` and `v` point to `keys` rows of `d` numbers, `heads·d` apart; `keys_to` and `values_to` to as many pairs as [`Shape`] says.
unsafe fn pack(k: *const u16, v: *const u16, shape: Shape, keys_to: *mut u32, values_to: *mut u32) {
    let (stride, pairs, columns) = (shape.heads * shape.d, shape.d / 2, shape.vectors * LANES);
    for key in 0..shape.padded {
        let to = key / LANES * pairs * LANES + key % LANES;
        for pair in 0..pairs {
            // SAFETY: `key < keys` and `2·pair + 1 < d`; the target is within `[padded / 16][d / 2][16]`. Rows of an odd
            // number of pairs are not aligned to four bytes.
            unsafe {
                let value = if key < shape.keys { k.add(key * stride + 2 * pair).cast::<u32>().read_unaligned() } else { 0 };
                keys_to.add(to + pair * LANES).write(value);
            }
        }
    }
    for pair in 0..shape.padded / 2 {
        for column in 0..columns {
            let value = |key: usize| {
                // SAFETY: only read when the row and the column exist.
                if key < shape.keys && column < shape.d { unsafe { v.add(key * stride + column).read() } } else { 0 }
            };
            // SAFETY: within `[padded / 2][vectors][16]`.
            unsafe {
                values_to.add(pair * columns + column).write(u32::from(value(2 * pair)) | u32::from(value(2 * pair + 1)) << 16)
            };
        }
    }
}

/// Scratch of one thread.
struct Scratch {
    /// Scores, `[ROWS][BLOCK]`.
    scores: Vec<f32>,
    /// Their exponentials, pairs of bfloat16, `[ROWS][BLOCK / 2]`.
    weights: Vec<u32>,
    /// Sums of values, `[ROWS][vectors · 16]`.
    sums: Vec<f32>,
}

/// Attention of `count` rows of queries of one head.
///
/// # Safety
/// The processor is [`available`]; `q` and `out` point to `count` rows of `d` numbers, `heads·d` apart; `k` and `v` to what
/// [`pack`] wrote.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn chunk(q: *const u16, k: *const u32, v: *const u32, out: *mut u16, count: usize, shape: Shape) {
    let mut scratch = Scratch {
        scores: vec![0.; ROWS * BLOCK],
        weights: vec![0; ROWS * BLOCK / 2],
        sums: vec![0.; ROWS * shape.vectors * LANES],
    };
    let stride = shape.heads * shape.d;
    let mut row = 0;
    while row < count {
        // SAFETY: rows `row .. row + R` exist by the conditions; the rest as for this function.
        unsafe {
            let (q, out) = (q.add(row * stride), out.add(row * stride));
            if count - row >= ROWS {
                rows::<ROWS>(q, k, v, out, shape, &mut scratch);
                row += ROWS;
            } else {
                rows::<1>(q, k, v, out, shape, &mut scratch);
                row += 1;
            }
        }
    }
}

/// Attention of `R` rows of queries.
///
/// # Safety
/// As for [`chunk`], with `R` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rows<const R: usize>(q: *const u16, k: *const u32, v: *const u32, out: *mut u16, shape: Shape, scratch: &mut Scratch) {
    let (stride, columns) = (shape.heads * shape.d, shape.vectors * LANES);
    let scale = std::f32::consts::LOG2_E / (shape.d as f32).sqrt(); // exponentials are powers of two
    let (mut maximum, mut total) = ([f32::NEG_INFINITY; R], [0f32; R]);
    scratch.sums[..R * columns].fill(0.);
    let mut from = 0;
    while from < shape.padded {
        let keys = BLOCK.min(shape.padded - from);
        let mut group = 0;
        while group < keys / LANES {
            // SAFETY: groups come in pairs (`padded`), so `from / 16 + group + 1` is one of the packed groups, and the
            // scores of both fit into the block.
            unsafe {
                let k = k.add((from / LANES + group) * shape.d / 2 * LANES);
                product::<R, true>(q.cast(), stride / 2, k, shape.d / 2, scratch.scores.as_mut_ptr().add(group * LANES), BLOCK);
            }
            group += 2;
        }
        let mut decay = [0f32; R];
        for r in 0..R {
            let scores = &mut scratch.scores[r * BLOCK..r * BLOCK + keys];
            if from + keys > shape.keys {
                scores[shape.keys - from..].fill(f32::NEG_INFINITY);
            }
            let highest = maximum[r].max(highest(scores));
            decay[r] = ((maximum[r] - highest) * scale).exp2();
            maximum[r] = highest;
            let weights = &mut scratch.weights[r * BLOCK / 2..r * BLOCK / 2 + keys / 2];
            total[r] = total[r] * decay[r] + exponentials(scores, weights, scale, highest);
        }
        let mut vector = 0;
        while vector < shape.vectors {
            let left = shape.vectors - vector;
            // SAFETY: `C` registers from `vector` on exist in the packed values and in the sums, `keys / 2` pairs from
            // `from / 2` on exist, and weights were written for them.
            unsafe {
                let v = v.add(from / 2 * columns + vector * LANES);
                let sums = scratch.sums.as_mut_ptr().add(vector * LANES);
                let weights = scratch.weights.as_ptr();
                match left {
                    1 => accumulate::<R, 1>(weights, v, keys / 2, columns, sums, &decay),
                    2 | 4 => accumulate::<R, 2>(weights, v, keys / 2, columns, sums, &decay),
                    _ => accumulate::<R, 3>(weights, v, keys / 2, columns, sums, &decay),
                }
            }
            vector += match left {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
        }
        from += keys;
    }
    for r in 0..R {
        let factor = 1. / total[r];
        let sums = &scratch.sums[r * columns..(r + 1) * columns];
        for (column, sum) in sums[..shape.d].iter().enumerate() {
            // SAFETY: `d` numbers of each row of the output are ours.
            unsafe { out.add(r * stride + column).write(to_bfloat16(sum * factor)) };
        }
    }
}

/// Rounds to the nearest, ties to even; not for NaN's payload, which stays a NaN.
fn to_bfloat16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

/// `sums = sums · decay + weights · values` for `R` rows and `C` registers of columns.
///
/// # Safety
/// The processor is [`available`]; `weights` points to `R` rows of `pairs` pairs, `BLOCK / 2` apart; `v` to `pairs` rows of
/// `C` registers, `columns` apart; `sums` to `R` rows of `C` registers, `columns` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn accumulate<const R: usize, const C: usize>(
    weights: *const u32,
    v: *const u32,
    pairs: usize,
    columns: usize,
    sums: *mut f32,
    decay: &[f32; R],
) {
    let mut held = [[_mm512_setzero_ps(); C]; R];
    for r in 0..R {
        for c in 0..C {
            // SAFETY: by the contract.
            let sum = unsafe { _mm512_loadu_ps(sums.add(r * columns + c * LANES)) };
            held[r][c] = _mm512_mul_ps(sum, _mm512_set1_ps(decay[r]));
        }
    }
    for pair in 0..pairs {
        // SAFETY: by the contract.
        unsafe {
            let mut values = [load(v.add(pair * columns)); C];
            for c in 1..C {
                values[c] = load(v.add(pair * columns + c * LANES));
            }
            for r in 0..R {
                let weight = broadcast(weights.add(r * BLOCK / 2 + pair));
                for c in 0..C {
                    held[r][c] = multiply_add::<true>(held[r][c], weight, values[c]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: by the contract.
            unsafe { _mm512_storeu_ps(sums.add(r * columns + c * LANES), held[r][c]) };
        }
    }
}

/// The highest of some numbers, a multiple of 32 of them.
#[target_feature(enable = "avx512f")]
fn highest(scores: &[f32]) -> f32 {
    let mut held = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    for pair in scores.chunks_exact(2 * LANES) {
        for (c, held) in held.iter_mut().enumerate() {
            // SAFETY: `pair` has 32 numbers.
            *held = _mm512_max_ps(*held, unsafe { _mm512_loadu_ps(pair.as_ptr().add(c * LANES)) });
        }
    }
    _mm512_reduce_max_ps(_mm512_max_ps(held[0], held[1]))
}

/// Writes 2^((score − highest) · scale) in bfloat16, and returns the sum before rounding; a multiple of 32 of them.
#[target_feature(enable = "avx512f,avx512bf16")]
fn exponentials(scores: &[f32], weights: &mut [u32], scale: f32, highest: f32) -> f32 {
    let (scale_, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(highest * scale));
    // 2^−120 is nothing beside the highest score's 1; a masked score is −∞. 4e-5 is a hundredth of bfloat16's rounding.
    let power = |score| exp2::<4>(_mm512_max_ps(_mm512_fmsub_ps(score, scale_, shift), _mm512_set1_ps(-120.)));
    let mut sums = [_mm512_setzero_ps(); 2];
    for (scores, weights) in scores.chunks_exact(2 * LANES).zip(weights.chunks_exact_mut(LANES)) {
        // SAFETY: 32 numbers in, 16 pairs out.
        unsafe {
            let low = power(_mm512_loadu_ps(scores.as_ptr()));
            let high = power(_mm512_loadu_ps(scores.as_ptr().add(LANES)));
            sums = [_mm512_add_ps(sums[0], low), _mm512_add_ps(sums[1], high)];
            let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(weights.as_mut_ptr().cast(), both);
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}
