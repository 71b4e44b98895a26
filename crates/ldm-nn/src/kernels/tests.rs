//! Every way to compute a product against ATen's, in float64.

use tch::{Device, Kind, Tensor};

use super::{Filter, Matrix, Norm};
use crate::weights::{Init, Weights, channels_last};

const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 6e-3)];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// |x − y| / |y|.
fn error(x: &Tensor, y: &Tensor) -> f64 {
    assert_eq!(x.size(), y.size());
    let (x, y) = (x.to_kind(Kind::Double), y.to_kind(Kind::Double));
    ((&x - &y).norm() / y.norm()).double_value(&[])
}

fn double(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Double)
}

#[test]
fn packed_linear_layers_are_linear_layers() {
    tch::manual_seed(1);
    for (kind, tolerance) in KINDS {
        for (shape, output) in [(vec![2, 77, 48], 32), (vec![5, 16], 7), (vec![1, 320], 1280), (vec![3, 4, 5, 8], 8)] {
            let input = shape[shape.len() - 1];
            let (x, weight) = (random(&shape, kind), random(&[output, input], kind) / (input as f64).sqrt());
            let bias = random(&[output], kind);
            let matrix = Matrix::packed(weight.shallow_clone(), kind);
            let exact = double(&x).linear(&double(&weight), Some(double(&bias)));
            let close = |what: &str, y: &Tensor, exact: &Tensor| {
                let error = error(y, exact);
                assert!(y.kind() == kind && error < tolerance, "{what} {kind:?} {shape:?}: {error:e}");
            };
            close("plain", &Matrix::Plain(weight.shallow_clone()).forward(&x, Some(&bias)), &exact);
            close("biased", &matrix.forward(&x, Some(&bias)), &exact);
            close("unbiased", &matrix.forward(&x, None), &double(&x).linear::<Tensor>(&double(&weight), None));
            close("gelu", &matrix.forward_gelu(&x, Some(&bias)), &exact.gelu("none"));
            let other = random(&exact.size(), kind);
            close("times", &matrix.forward_times(&x, Some(&bias), &other), &(&exact * double(&other)));
            let slice = x.narrow(0, 0, 1);
            close("slice", &matrix.forward(&slice, Some(&bias)), &exact.narrow(0, 0, 1));
        }
    }
}

#[test]
fn packed_convolutions_are_convolutions() {
    tch::manual_seed(2);
    // Rows, input, output, height, width, size, stride, padding: odd sizes, more tiles than a block or a pass holds, what
    // Winograd's kernel takes and what it does not.
    let cases = [
        (2, 32, 64, 8, 8, 3, 1, 1),
        (3, 48, 32, 7, 5, 3, 1, 1),
        (1, 16, 32, 1, 1, 3, 1, 1),
        (1, 16, 96, 2, 19, 3, 1, 1),
        (2, 1280, 32, 24, 22, 3, 1, 1),
        (1, 32, 32, 33, 40, 3, 1, 1),
        (2, 4, 320, 8, 8, 3, 1, 1),
        (2, 32, 4, 8, 8, 3, 1, 1),
        (2, 32, 32, 8, 8, 3, 2, 1),
        (2, 32, 32, 9, 9, 3, 2, 0),
        (2, 24, 40, 6, 5, 1, 1, 0),
    ];
    for (kind, tolerance) in KINDS {
        for case in cases {
            let (b, input, output, height, width, size, stride, padding) = case;
            let x = random(&[b, input, height, width], kind);
            let weight = random(&[output, input, size, size], kind) / ((input * size * size) as f64).sqrt();
            let bias = random(&[output], kind);
            let exact = double(&x).conv2d(&double(&weight), Some(double(&bias)), [stride; 2], [padding; 2], [1, 1], 1);
            let filter = Filter::packed(channels_last(&weight), kind, stride, padding);
            for x in [channels_last(&x), x.shallow_clone()] {
                let y = filter.forward(&x, &bias, stride, padding);
                let error = error(&y, &exact);
                assert!(y.kind() == kind && error < tolerance, "{kind:?} {case:?}: {error:e}");
                assert!(y.permute([0, 2, 3, 1]).is_contiguous(), "{case:?} leaves channels_last");
            }
            let plain = Filter::Plain(weight).forward(&x, &bias, stride, padding);
            assert!(error(&plain, &exact) < tolerance);
        }
    }
}

#[test]
fn filters_are_packed_from_any_dtype() {
    tch::manual_seed(4);
    for (kind, _) in KINDS {
        for (input, output) in [(16, 32), (48, 64)] {
            let (x, bias) = (random(&[1, input, 5, 6], kind), random(&[output], kind));
            let weight = random(&[output, input, 3, 3], Kind::Double);
            for stored in [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double] {
                let weight = weight.to_kind(stored);
                let y = Filter::packed(weight.shallow_clone(), kind, 1, 1).forward(&x, &bias, 1, 1);
                let same = Filter::packed(weight.to_kind(kind), kind, 1, 1).forward(&x, &bias, 1, 1);
                assert_eq!(y, same, "{stored:?} as {kind:?}");
            }
        }
    }
}

#[test]
fn packed_weights_take_any_dtype() {
    tch::manual_seed(3);
    let (x, weight, bias) = (random(&[4, 32], Kind::BFloat16), random(&[32, 32], Kind::Float), random(&[32], Kind::Float));
    let y = Matrix::packed(weight.shallow_clone(), Kind::Float).forward(&x, Some(&bias));
    assert_eq!(y.kind(), Kind::BFloat16);
    assert!(error(&y, &double(&x).linear(&double(&weight), Some(double(&bias)))) < 6e-3);
}

#[test]
fn trained_weights_stay_plain_and_get_gradients() {
    let w = Weights::fresh(Device::Cpu);
    let weight = w.tensor("weight", &[32, 32], Init::FanIn(32));
    let matrix = Matrix::new(&w, weight.shallow_clone());
    assert!(matches!(matrix, Matrix::Plain(_)));
    matrix.forward(&random(&[2, 32], Kind::BFloat16), None).sum(Kind::Float).backward();
    assert!(weight.grad().defined());
    let filter = w.tensor("filter", &[32, 32, 3, 3], Init::FanIn(288));
    assert!(matches!(Filter::new(&w, filter, 1, 1), Filter::Plain(_)));
}

#[test]
fn counting_parameters_packs_nothing() {
    let w = Weights::shapes();
    assert!(matches!(Matrix::new(&w, w.tensor("weight", &[64, 32], Init::FanIn(32))), Matrix::Plain(_)));
}

/// A norm that serves, with parameters of its own.
fn norm(channels: i64, groups: i64, kind: Kind) -> Norm {
    Norm { weight: random(&[channels], kind), bias: random(&[channels], kind), groups, eps: 1e-6, serves: true }
}

/// The definition in float64.
fn exact_norm(norm: &Norm, x: &Tensor) -> Tensor {
    // `x` in NCHW: there ATen sums well.
    double(x).contiguous().group_norm(norm.groups, Some(double(&norm.weight)), Some(double(&norm.bias)), norm.eps, true)
}

#[test]
fn group_norms_are_group_norms() {
    tch::manual_seed(5);
    // Rows, channels, groups, height, width: odd sizes, single pixels, pieces that do not come out even, groups that share or
    // fill registers, channels that our kernel leaves to ATen.
    let cases = [
        (1, 16, 1, 1, 1),
        (2, 16, 16, 3, 5),
        (2, 32, 32, 1, 1),
        (3, 48, 3, 7, 5),
        (1, 80, 16, 33, 1),
        (2, 240, 16, 9, 7),
        (2, 320, 32, 13, 31),
        (1, 2560, 32, 8, 9),
        (3, 128, 32, 31, 29),
        (2, 24, 8, 5, 6),
        (1, 10, 5, 4, 3),
    ];
    // ATen rounds to bfloat16 twice, before the SiLU and after it.
    for (kind, tolerance) in [(Kind::Float, 3e-7), (Kind::BFloat16, 4e-3)] {
        for case in cases {
            let (b, channels, groups, height, width) = case;
            let norm = norm(channels, groups, kind);
            let x = (random(&[b, channels, height, width], Kind::Float) * 3. + 1.).to_kind(kind);
            let exact = exact_norm(&norm, &x);
            for x in [channels_last(&x), x.shallow_clone(), x.transpose(2, 3).contiguous().transpose(2, 3)] {
                let copy = x.copy();
                for (what, y, exact) in [
                    ("norm", norm.forward(&x), exact.shallow_clone()),
                    ("silu", norm.forward_silu(&x), exact.silu()),
                    ("aten", norm.aten(&x), exact.shallow_clone()),
                ] {
                    let error = error(&y, &exact);
                    // ATen loses a group of one number, which is its bias alone.
                    let tolerance = if what == "aten" && height * width * channels == groups { 1e-3 } else { tolerance };
                    assert!(y.kind() == kind && error < tolerance, "{what} {kind:?} {case:?}: {error:e}");
                }
                assert!(x.equal(&copy), "the input stays as it is");
            }
            if let Some(y) = norm.ours::<false>(&channels_last(&x)) {
                assert!(y.permute([0, 2, 3, 1]).is_contiguous(), "{case:?} leaves channels_last");
                // A row does not depend on those beside it.
                let last = norm.ours::<false>(&channels_last(&x.narrow(0, b - 1, 1))).expect("it fits as well");
                assert!(last.equal(&y.narrow(0, b - 1, 1)), "{case:?}");
            }
        }
    }
}

#[test]
fn group_norms_sum_large_maps() {
    // Where ATen's kernel for channels_last is 2e-5 off.
    tch::manual_seed(6);
    let norm = norm(128, 32, Kind::Float);
    let x = random(&[1, 128, 512, 512], Kind::Float) * 2. + 1.;
    // Statistics of all numbers, by the definition; of what comes of them every 13th row and column.
    let groups = double(&x).view([32, -1]);
    let mean = groups.mean_dim([1i64].as_slice(), true, Kind::Double);
    let factor = ((&groups - &mean).square_().mean_dim([1i64].as_slice(), true, Kind::Double) + norm.eps).rsqrt();
    drop(groups);
    let some = |x: &Tensor| double(&x.slice(2, 5, None, 13).slice(3, 3, None, 13).contiguous());
    let exact = ((some(&x).view([32, -1]) - mean) * factor).view([128, -1]) * double(&norm.weight).unsqueeze(1)
        + double(&norm.bias).unsqueeze(1);
    let x = channels_last(&x);
    for (what, y, exact) in [
        ("ours", norm.forward(&x), exact.shallow_clone()),
        ("silu", norm.forward_silu(&x), exact.silu()),
        ("aten", norm.aten(&x), exact.shallow_clone()),
    ] {
        let largest = ((some(&y).view([128, -1]) - &exact).abs().max() / exact.abs().max()).double_value(&[]);
        println!("{what}: {largest:.1e}");
        assert!(largest < 3e-7, "{what}: {largest:e}");
    }
}

#[test]
fn group_norms_find_small_differences() {
    // A mean of a thousand deviations: squares in float32 would leave nothing of the variance.
    tch::manual_seed(7);
    let norm = norm(64, 8, Kind::Float);
    let x = channels_last(&(random(&[2, 64, 19, 23], Kind::Float) + 1000.));
    if let Some(y) = norm.ours::<false>(&x) {
        let error = error(&y, &exact_norm(&norm, &x));
        assert!(error < 3e-7, "{error:e}");
    }
}

#[test]
fn silu_after_a_norm_has_its_tails() {
    let one = Tensor::ones([16], (Kind::Float, Device::Cpu));
    let norm = Norm { weight: &one * 1e4, bias: one, groups: 16, eps: 0., serves: true };
    // Deviations of ±1: ±1e4 before SiLU, far beyond where e^x overflows.
    let x = Tensor::from_slice(&[-1f32, 1.]).view([1, 1, 2, 1]).expand([1, 16, 2, 1], false);
    let y = norm.forward_silu(&channels_last(&x));
    assert!(y.select(2, 0).abs().max().double_value(&[]) < 1e-30);
    assert_eq!(y.select(2, 1).min().double_value(&[]), 10001.);
    for bad in [f32::NAN, f32::INFINITY] {
        let x = channels_last(&x.contiguous());
        let _ = x.select(1, 3).select(1, 0).fill_(f64::from(bad));
        for y in [norm.forward(&x), norm.forward_silu(&x)] {
            assert_eq!(y.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]), 2, "{bad}: its group alone, and all of it");
        }
    }
}

#[test]
fn trained_norms_get_gradients() {
    let w = Weights::fresh(Device::Cpu);
    let weight = w.tensor("weight", &[32], Init::Constant(1.));
    let norm = Norm::new(&w, weight.shallow_clone(), w.tensor("bias", &[32], Init::Constant(0.)), 8, 1e-5);
    let x = random(&[2, 32, 4, 4], Kind::BFloat16);
    assert!(norm.ours::<true>(&x).is_none() && norm.ours::<true>(&channels_last(&x)).is_none());
    norm.forward_silu(&x).sum(Kind::Float).backward();
    assert!(weight.grad().defined());
}
