//! What our kernels for AVX-512 share: registers of 32-bit words, each one float32 or a pair of bfloat16.

use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Words in a register.
pub(super) const LANES: usize = 16;

/// Whether this processor can run our kernels. Those for float32 ask for AVX512-BF16 too: one list is enough.
pub(crate) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16")
    })
}

/// A pointer that threads may share; they write to disjoint parts.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub(super) *mut T);

// SAFETY: see the uses: every piece of work writes to a part that no other touches.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn get(&self) -> *mut T {
        self.0
    }
}

/// A register of words.
///
/// # Safety
/// The processor is [`available`]; `from` points to 16 words; it need not be aligned.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load(from: *const u32) -> __m512i {
    // SAFETY: by the contract.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// One word in every lane.
///
/// # Safety
/// The processor is [`available`]; `from` points to a word; it need not be aligned.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn broadcast(from: *const u32) -> __m512i {
    // SAFETY: by the contract.
    _mm512_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}

/// `sum + a · b`, where words are pairs of bfloat16 (`PAIRS`; both products are added) or float32.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn multiply_add<const PAIRS: bool>(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    if PAIRS {
        // SAFETY: both types are 64 bytes without structure.
        let (a, b) = unsafe { (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)) };
        _mm512_dpbf16_ps(sum, a, b)
    } else {
        _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
    }
}

/// `R` rows of `words` against two groups of 16 columns, `[2][words][16]`: `to[r][0..32] = rows[r] · columns`.
///
/// # Safety
/// The processor is [`available`]; `rows` points to `R` rows of `words` words, `stride` apart; `columns` to two groups; `to` to
/// `R` rows of 32 numbers, `to_stride` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn product<const R: usize, const PAIRS: bool>(
    rows: *const u32,
    stride: usize,
    columns: *const u32,
    words: usize,
    to: *mut f32,
    to_stride: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for word in 0..words {
        // SAFETY: by the contract.
        unsafe {
            let columns = [load(columns.add(word * LANES)), load(columns.add((words + word) * LANES))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = broadcast(rows.add(r * stride + word));
                for c in 0..2 {
                    sums[c] = multiply_add::<PAIRS>(sums[c], row, columns[c]);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { _mm512_storeu_ps(to.add(r * to_stride + c * LANES), *sum) };
        }
    }
}

/// 16 numbers as float32.
///
/// # Safety
/// The processor is [`available`]; `from` points to 16 bfloat16 (`PAIRS`) or float32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn read<const PAIRS: bool>(from: *const u8) -> __m512 {
    // SAFETY: by the contract. A bfloat16 is the upper half of the float32.
    unsafe {
        if PAIRS {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
        } else {
            _mm512_loadu_ps(from.cast())
        }
    }
}

/// 16 numbers in the dtype.
///
/// # Safety
/// The processor is [`available`]; `to` has room for 16 bfloat16 (`PAIRS`) or float32.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn write<const PAIRS: bool>(to: *mut u8, x: __m512) {
    // SAFETY: by the contract; both 256-bit types are 32 bytes without structure.
    unsafe {
        if PAIRS {
            _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)));
        } else {
            _mm512_storeu_ps(to.cast(), x);
        }
    }
}

/// ln(2)ᵏ / k!, Taylor's coefficients of 2^x.
const TAYLOR: [f32; 8] = {
    let (mut coefficients, mut coefficient, mut k) = ([0.; 8], 1f64, 0);
    while k < coefficients.len() {
        coefficients[k] = coefficient as f32;
        k += 1;
        coefficient *= std::f64::consts::LN_2 / k as f64;
    }
    coefficients
};

/// 2^x for finite x: the integer part goes to the exponent, the rest through Taylor's polynomial. Its degree is `DEGREE`, at most
/// 7: 4 is exact to 4e-5, 7 to the rounding of float32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp2<const DEGREE: usize>(x: __m512) -> __m512 {
    let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let part = _mm512_sub_ps(x, whole);
    let mut power = _mm512_set1_ps(TAYLOR[DEGREE]);
    for coefficient in TAYLOR[..DEGREE].iter().rev() {
        power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(*coefficient));
    }
    _mm512_scalef_ps(power, whole)
}
