//! Layers against their definitions in float64, whatever kernel serves them: every shape has its tails and edges.

use ldm_nn::blocks::{Conv2d, GatedLinear, Linear};
use ldm_nn::weights::save;
use ldm_nn::{Checkpoint, Layout, Weights};
use tch::{Device, Kind, Tensor};

use crate::goldens::{LAYOUTS, close, scratch};

/// float32 sums of a few thousand products, by the direct way or Winograd's; bfloat16 keeps 8 bits of each operand.
const PRECISIONS: [(Kind, f64); 2] = [(Kind::Float, 5e-6), (Kind::BFloat16, 1.5e-2)];

fn random(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// A layer's parameters: exactly what `weight` and `bias` hold, in their dtype.
fn weights(name: &str, weight: &Tensor, bias: &Tensor, layout: Layout) -> Weights {
    let dir = scratch(name);
    save([("weight", weight), ("bias", bias)], weight.kind(), &dir.join("model.safetensors")).expect("saved");
    let checkpoint = Checkpoint::open(&dir, "model").expect("the file");
    Weights::from_checkpoint(checkpoint, weight.kind(), Device::Cpu, layout)
}

fn double(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Double)
}

/// The same numbers, with NHWC strides.
fn nhwc(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

#[test]
fn convolutions_are_their_sums() {
    tch::manual_seed(6);
    // Input and output channels, size, stride, padding.
    let filters = [
        (4, 32, 3, 1, 1),
        (32, 32, 3, 1, 1),
        (16, 64, 3, 1, 1),
        (48, 96, 3, 1, 1),
        (64, 48, 3, 1, 1),
        (24, 32, 3, 1, 1),
        (96, 4, 3, 1, 1),
        (320, 64, 3, 1, 1),
        (32, 32, 3, 2, 1),
        (32, 32, 3, 2, 0),
        (64, 32, 1, 1, 0),
        (8, 8, 1, 1, 0),
    ];
    let sizes = [(1, 1), (1, 7), (2, 2), (5, 4), (9, 7), (16, 16), (3, 33)];
    for (kind, tolerance) in PRECISIONS {
        for (input, output, size, stride, padding) in filters {
            let fan_in = (input * size * size) as f64;
            let weight = random(&[output, input, size, size], kind) / fan_in.sqrt();
            let bias = random(&[output], kind);
            for layout in LAYOUTS {
                let w = weights("conv", &weight, &bias, layout);
                let conv =
                    if stride == 2 { Conv2d::strided(&w, input, output, padding) } else { Conv2d::new(&w, input, output, size) };
                w.finish().expect("it fits");
                for (height, width) in sizes {
                    if stride == 2 && padding == 0 && (height < 3 || width < 3) {
                        continue;
                    }
                    for b in [1, 3] {
                        let x = random(&[b, input, height, width], kind);
                        let (s, p) = ([stride; 2], [padding; 2]);
                        let reference = double(&x).conv2d(&double(&weight), Some(double(&bias)), s, p, [1, 1], 1);
                        let what = format!("{input}→{output} {size}×{size}/{stride} on {b}×{height}×{width} {kind:?} {layout:?}");
                        for x in [&x, &nhwc(&x)] {
                            let found = conv.forward(x);
                            assert_eq!(found.kind(), kind);
                            close_silently(&what, &found, &reference, tolerance);
                        }
                    }
                }
            }
        }
    }
}

fn close_silently(what: &str, found: &Tensor, reference: &Tensor, tolerance: f64) {
    let error = crate::goldens::error(found, reference);
    assert!(error <= tolerance, "{what}: {error:.2e} of the largest value, more than {tolerance:.0e}");
}

#[test]
fn convolutions_see_no_neighbour_but_their_own() {
    // One pixel set: the output is the filter turned around, wherever the pixel is, and nothing elsewhere.
    tch::manual_seed(7);
    let weight = random(&[32, 16, 3, 3], Kind::Float);
    let w = weights("conv-impulse", &weight, &Tensor::zeros([32], (Kind::Float, Device::Cpu)), Layout::ChannelsLast);
    let conv = Conv2d::new(&w, 16, 32, 3);
    let (height, width) = (5, 6);
    for row in 0..height {
        for column in 0..width {
            let x = Tensor::zeros([2, 16, height, width], (Kind::Float, Device::Cpu));
            let _ = x.select(0, 1).select(0, 3).select(0, row).select(0, column).fill_(1.);
            let found = conv.forward(&x);
            let reference = double(&x).conv2d(&double(&weight), None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            close_silently(&format!("({row}, {column})"), &found, &reference, 5e-6);
            assert_eq!(found.select(0, 0).abs().max().double_value(&[]), 0., "the other picture");
        }
    }
}

#[test]
fn pointwise_convolutions_work_on_tokens() {
    tch::manual_seed(8);
    for (kind, tolerance) in PRECISIONS {
        let (weight, bias) = (random(&[24, 40, 1, 1], kind) * 0.2, random(&[24], kind));
        for layout in LAYOUTS {
            let w = weights("conv-tokens", &weight, &bias, layout);
            let conv = Conv2d::new(&w, 40, 24, 1);
            let x = random(&[2, 11, 40], kind);
            let reference = double(&x).linear(&double(&weight.view([24, 40])), Some(double(&bias)));
            close(&format!("tokens {kind:?} {layout:?}"), &conv.forward_tokens(&x), &reference, tolerance);
        }
    }
}

#[test]
fn linear_layers_are_their_sums() {
    tch::manual_seed(9);
    for (kind, tolerance) in PRECISIONS {
        for (input, output) in [(1, 1), (7, 3), (32, 128), (320, 320), (768, 40), (33, 65)] {
            let (weight, bias) = (random(&[output, input], kind) / (input as f64).sqrt(), random(&[output], kind));
            let w = weights("linear", &weight, &bias, Layout::ChannelsLast);
            let (linear, bare) = (Linear::new(&w, input, output), Linear::without_bias(&w, input, output));
            for shape in [vec![1, input], vec![3, input], vec![2, 77, input], vec![2, 5, 3, input]] {
                let x = random(&shape, kind);
                let what = format!("{input}→{output} on {shape:?} {kind:?}");
                let reference = double(&x).linear(&double(&weight), None::<Tensor>);
                close_silently(&what, &bare.forward(&x), &reference, tolerance);
                let found = linear.forward(&x);
                assert_eq!(found.kind(), kind);
                close_silently(&what, &found, &(reference + double(&bias)), tolerance);
                // Tokens in another order.
                if shape.len() == 3 {
                    let turned = x.transpose(0, 1).contiguous().transpose(0, 1);
                    close_silently(&format!("{what}, turned"), &linear.forward(&turned), &double(&found), tolerance);
                }
            }
        }
    }
}

#[test]
fn gated_layers_are_value_times_gelu_of_gate() {
    tch::manual_seed(10);
    for (kind, tolerance) in PRECISIONS {
        for (input, output) in [(8, 4), (32, 128), (33, 7)] {
            let (weight, bias) = (random(&[output * 2, input], kind) / (input as f64).sqrt(), random(&[output * 2], kind));
            let w = weights("gated", &weight, &bias, Layout::ChannelsLast);
            let gated = GatedLinear::new(&w, input, output);
            let x = random(&[2, 19, input], kind);
            let both = double(&x).linear(&double(&weight), Some(double(&bias)));
            let (value, gate) = (both.narrow(-1, 0, output), both.narrow(-1, output, output));
            // The exact GELU: the one by tanh differs by 1e-4.
            close(&format!("{input}→{output} {kind:?}"), &gated.forward(&x), &(value * gate.gelu("none")), tolerance);
        }
    }
}

#[test]
fn layers_do_not_change_their_input() {
    tch::manual_seed(11);
    let (weight, bias) = (random(&[32, 32, 3, 3], Kind::BFloat16), random(&[32], Kind::BFloat16));
    let conv = Conv2d::new(&weights("conv-input", &weight, &bias, Layout::ChannelsLast), 32, 32, 3);
    let x = nhwc(&random(&[1, 32, 6, 6], Kind::BFloat16));
    let copy = x.copy();
    let (first, second) = (conv.forward(&x), conv.forward(&x));
    assert!(x.equal(&copy) && first.equal(&second));
}

#[test]
fn threads_share_layers() {
    // Previews, probes and tests run side by side: kernels keep what they hold to their own thread.
    tch::manual_seed(12);
    let x = random(&[2, 32, 9, 7], Kind::Float);
    let weight = random(&[32, 32, 3, 3], Kind::Float);
    let bias = random(&[32], Kind::Float);
    let make = |name: &str| Conv2d::new(&weights(name, &weight, &bias, Layout::ChannelsLast), 32, 32, 3);
    let reference = Vec::<f32>::try_from(make("conv-one").forward(&x).contiguous().flatten(0, -1)).expect("numbers");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (conv, x, reference) = (make(&format!("conv-{thread}")), x.copy(), &reference);
            scope.spawn(move || {
                for _ in 0..20 {
                    let found = Vec::<f32>::try_from(conv.forward(&x).contiguous().flatten(0, -1)).expect("numbers");
                    assert!(found == *reference, "thread {thread}");
                }
            });
        }
    });
}
