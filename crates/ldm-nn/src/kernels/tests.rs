//! Every way to compute a product against ATen's, in float64.

use tch::{Device, Kind, Tensor};

use super::{Filter, Matrix};
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
            let matrix = Matrix::packed(weight.shallow_clone());
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
    let y = Matrix::packed(weight.shallow_clone()).forward(&x, Some(&bias));
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
