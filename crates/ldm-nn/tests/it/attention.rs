//! Attention's kernels against the formula in float64, and against each other.

use ldm_nn::attention::{attention, blocked_attention, fused_attention};
use tch::{Kind, Tensor};

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

#[test]
fn kernels_agree_in_bfloat16() {
    // Long enough for `attention` to choose the blocked kernel, and for a block that is not full.
    let Case { q, k, v, heads, output } = case(2);
    let half = |x: &Tensor| x.to_kind(Kind::BFloat16);
    let (q, k, v) = (half(&q), half(&k), half(&v));
    let chosen = attention(&q, &k, &v, heads, false);
    assert_eq!(chosen.kind(), Kind::BFloat16);
    let (q, k, v) = (split(&q, heads), split(&k, heads), split(&v, heads));
    let (fused, blocked) = (join(&fused_attention(&q, &k, &v, false)), join(&blocked_attention(&q, &k, &v)));
    assert!(chosen.equal(&blocked), "the blocked kernel serves long bfloat16 sequences");
    // The blocked kernel keeps scores in bfloat16, 2⁻⁹ of scores up to 5; sharp as these random ones are, that shows.
    close("fused and float64", &fused, &output, 1e-2);
    close("blocked and float64", &blocked, &output, 2e-2);
    close("blocked and fused", &blocked, &fused, 2e-2);
}
