//! Scaled dot-product attention with one place that chooses the kernel.

use tch::{Device, Kind, Tensor};

/// Query rows per block of the blocked kernel: the scores of one block and head stay in cache.
const BLOCK: i64 = 512;

/// Tokens from which on the blocked kernel wins over libtorch's own in bfloat16 on the CPU (`docs/benchmarks.md`).
const BLOCKED_FROM: i64 = 256;

/// softmax(q kᵀ / √d) v per head (Vaswani et al. 2017, Eq. 1).
///
/// `q` `[B, L, heads·d]`, `k` and `v` `[B, L', heads·d]` → `[B, L, heads·d]`. With `causal`, token `i` sees tokens up to `i`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, causal: bool) -> Tensor {
    let (b, l, width) = q.size3().expect("tokens have three dimensions");
    let keys = k.size()[1];
    let trained = [q, k, v].iter().any(|x| x.requires_grad());
    let ours = q.kind() == Kind::BFloat16 && q.device() == Device::Cpu && !causal && !trained;
    if ours && fits_flash(width / heads) {
        return flash_attention(q, k, v, heads);
    }
    let split = |x: &Tensor, l: i64| x.view([b, l, heads, width / heads]).transpose(1, 2); // [B, heads, L, d]
    let (q, k, v) = (split(q, l), split(k, keys), split(v, keys));
    // The backward pass of libtorch's kernel is slow on the CPU: 274 of 887 ms of a step with 64 tokens and heads of 24.
    let blocked = ours && l >= BLOCKED_FROM && keys >= BLOCKED_FROM;
    if trained && !causal && q.device() == Device::Cpu {
        let scores = (q / ((width / heads) as f64).sqrt()).matmul(&k.transpose(2, 3)); // [B, heads, L, L']
        return scores.softmax(-1, scores.kind()).matmul(&v).transpose(1, 2).reshape([b, l, width]);
    }
    let out = if blocked { blocked_attention(&q, &k, &v) } else { fused_attention(&q, &k, &v, causal) };
    out.transpose(1, 2).reshape([b, l, width])
}

/// Whether this processor can run [`flash_attention`] for heads of width `d`.
pub fn fits_flash(d: i64) -> bool {
    #[cfg(target_arch = "x86_64")]
    return d % 2 == 0 && crate::kernels::available();
    #[cfg(not(target_arch = "x86_64"))]
    return d < 0;
}

/// Our own kernel for bfloat16 on processors with AVX512-BF16; shapes as for [`attention`].
///
/// # Panics
/// When [`fits_flash`] is false.
pub fn flash_attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    #[cfg(target_arch = "x86_64")]
    return crate::kernels::flash::attention(q, k, v, heads);
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{q:?} {k:?} {v:?} {heads}: not on this processor")
}

/// libtorch's own choice of kernel, `[B, heads, L, d]`.
pub fn fused_attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, causal, None, false)
}

/// Product, softmax, product per head and block of query rows, `[B, heads, L, d]`: libtorch's flash kernel packs bfloat16
/// operands only with AMX, so without it two plain products with bfloat16 scores are faster.
pub fn blocked_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (b, heads, l, d) = q.size4().expect("heads have four dimensions");
    let scale = 1.0 / (d as f64).sqrt();
    let (q, k, v) = ((q * scale).contiguous(), k.contiguous(), v.contiguous());
    let out = Tensor::empty([b, heads, l, d], (q.kind(), q.device()));
    for row in 0..b {
        for head in 0..heads {
            let of = |x: &Tensor| x.select(0, row).select(0, head);
            let (q, k, v, out) = (of(&q), of(&k).transpose(0, 1), of(&v), of(&out));
            let mut from = 0;
            while from < l {
                let count = BLOCK.min(l - from);
                let scores = q.narrow(0, from, count).matmul(&k); // [count, L']
                let weights = scores.softmax(-1, scores.kind());
                let _ = weights.matmul_out(&out.narrow(0, from, count), &v);
                from += count;
            }
        }
    }
    out
}
