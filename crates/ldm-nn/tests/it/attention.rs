//! Attention's kernels against the formula in float64, and against each other.

use ldm_nn::attention::{attention, blocked_attention, fits_flash, flash_attention, fused_attention};
use tch::{Device, Kind, Tensor};

use crate::goldens::{close, has, tensor};

/// `[B, L, heads·d]` → `[B, heads, L, d]`.
fn split(x: &Tensor, heads: i64) -> Tensor {
    let (b, l, width) = x.size3().expect("tokens");
    x.view([b, l, heads, width / heads]).transpose(1, 2)
}

fn join(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: i64,
    output: Tensor,
}

fn case(i: usize) -> Case {
    let golden = |name: &str| tensor(&format!("attention.{i}.{name}"));
    let (q, k, v, output) = (golden("q"), golden("k"), golden("v"), golden("output"));
    Case { q, k, v, heads: golden("heads").int64_value(&[]), output }
}

#[test]
fn every_kernel_is_the_formula() {
    for i in 0..3 {
        let Case { q, k, v, heads, output } = case(i);
        close(&format!("attention {i}"), &attention(&q, &k, &v, heads, false), &output, 2e-6);
        let (q, k, v) = (split(&q, heads), split(&k, heads), split(&v, heads));
        close(&format!("fused {i}"), &join(&fused_attention(&q, &k, &v, false)), &output, 2e-6);
        close(&format!("blocked {i}"), &join(&blocked_attention(&q, &k, &v)), &output, 2e-6);
    }
}

#[test]
fn causal_tokens_do_not_see_what_follows() {
    assert!(has("attention.0.causal") && !has("attention.1.causal"));
    let Case { q, k, v, heads, .. } = case(0);
    close("causal", &attention(&q, &k, &v, heads, true), &tensor("attention.0.causal"), 2e-6);
}

/// Attention in float64, as the formula has it.
fn formula(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| split(&x.to_kind(Kind::Double), heads));
    let d = q.size()[3] as f64;
    join(&(q.matmul(&k.transpose(2, 3)) / d.sqrt()).softmax(-1, Kind::Double).matmul(&v))
}

#[test]
fn kernels_agree_in_bfloat16() {
    // Long enough for any kernel to be chosen, and for a block that is not full.
    let Case { q, k, v, heads, output } = case(2);
    let half = |x: &Tensor| x.to_kind(Kind::BFloat16);
    let (q, k, v) = (half(&q), half(&k), half(&v));
    let chosen = attention(&q, &k, &v, heads, false);
    assert_eq!(chosen.kind(), Kind::BFloat16);
    let (fused, blocked) = {
        let (q, k, v) = (split(&q, heads), split(&k, heads), split(&v, heads));
        (join(&fused_attention(&q, &k, &v, false)), join(&blocked_attention(&q, &k, &v)))
    };
    if fits_flash(8) {
        let flash = flash_attention(&q, &k, &v, heads);
        assert!(chosen.equal(&flash), "our own kernel serves where it can");
        close("flash and float64", &flash, &output, 1e-2);
        close("flash and fused", &flash, &fused, 1e-2);
    } else {
        assert!(chosen.equal(&blocked), "the blocked kernel serves long bfloat16 sequences");
    }
    // The blocked kernel keeps scores in bfloat16, 2⁻⁹ of scores up to 5; sharp as these random ones are, that shows.
    close("fused and float64", &fused, &output, 1e-2);
    close("blocked and float64", &blocked, &output, 2e-2);
    close("blocked and fused", &blocked, &fused, 2e-2);
}

#[test]
fn bfloat16_is_the_formula_in_every_shape() {
    tch::manual_seed(4);
    // Rows, queries, keys, heads, width of a head: edges of blocks, tails, single ones, the widths of SD 1.5, an odd one.
    let shapes = [
        (1, 1, 1, 1, 2),
        (2, 7, 1, 2, 8),
        (1, 8, 31, 2, 40),
        (3, 9, 32, 1, 6),
        (2, 128, 77, 4, 40),
        (1, 129, 511, 2, 80),
        (2, 135, 512, 1, 16),
        (1, 200, 513, 2, 34),
        (1, 257, 1025, 1, 160),
        (1, 64, 300, 1, 512),
        (2, 33, 40, 3, 5),
    ];
    for (b, l, keys, heads, d) in shapes {
        let random = |n| Tensor::randn([b, n, heads * d], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let (q, k, v) = (random(l), random(keys), random(keys));
        let what = format!("[{b}, {l}, {keys}, {heads}, {d}]");
        close(&what, &attention(&q, &k, &v, heads, false), &formula(&q, &k, &v, heads), 1.5e-2);
        // Rows of a larger tensor, as a batch's context has them; a tensor in another order.
        let wide = Tensor::cat(&[&random(keys), &v, &random(keys)], 0).narrow(0, b, b);
        let turned = q.transpose(0, 1).contiguous().transpose(0, 1);
        assert!(attention(&turned, &k, &wide, heads, false).equal(&attention(&q, &k, &v, heads, false)), "{what}");
    }
}

#[test]
fn scores_of_any_size_stay_finite() {
    tch::manual_seed(5);
    for kind in [Kind::Float, Kind::BFloat16] {
        let random = |n| Tensor::randn([1, n, 16], (Kind::Float, Device::Cpu)).to_kind(kind);
        let (q, k, v) = (random(70) * 300., random(600), random(600));
        // Nearly one key wins each row.
        let output = attention(&q, &k, &v, 1, false);
        assert_eq!(output.isfinite().all().int64_value(&[]), 1);
        close("sharp", &output, &formula(&q, &k, &v, 1), 1.5e-2);
        // All keys alike: the mean of the values.
        let alike = k.narrow(1, 0, 1).expand([1, 600, 16], false).contiguous();
        let mean = v.to_kind(Kind::Float).mean_dim([1i64].as_slice(), true, Kind::Float).expand([1, 70, 16], false);
        close("flat", &attention(&q, &alike, &v, 1, false), &mean, 1e-2);
    }
}
