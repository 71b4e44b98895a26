//! Every network against the reference, in float32 and both memory formats.

use ldm_nn::Layout;
use tch::Kind;

use crate::goldens::{LAYOUTS, MODELS, clip, close, tensor, unet, vae};

/// A wrong ε or the other GELU changes outputs by 6e-5 and more (`spec/models.md`, 4); two orders of summation by about 1e-6.
const TOLERANCE: f64 = 1e-5;

#[test]
fn unet_is_the_reference() {
    for model in MODELS {
        let tokens = tensor(&format!("{model}.clip.output"));
        for layout in LAYOUTS {
            let unet = unet(model, Kind::Float, layout);
            let context = unet.context(&tokens);
            for case in 0..2 {
                let golden = |name: &str| tensor(&format!("{model}.unet.{case}.{name}"));
                let output = unet.forward(&golden("x"), &golden("t"), &context);
                close(&format!("{model} unet {case} {layout:?}"), &output, &golden("output"), TOLERANCE);
            }
        }
    }
}

#[test]
fn autoencoder_is_the_reference() {
    for model in MODELS {
        for layout in LAYOUTS {
            let vae = vae(model, Kind::Float, layout);
            for case in 0..2 {
                let golden = |name: &str| tensor(&format!("{model}.vae.{case}.{name}"));
                let what = |part| format!("{model} vae {case} {part} {layout:?}");
                let posterior = vae.encode(&golden("x"));
                close(&what("mean"), &posterior.mode(), &golden("mean"), TOLERANCE);
                close(&what("std"), &posterior.std(), &golden("std"), TOLERANCE);
                close(&what("kl"), &posterior.kl(), &golden("kl"), TOLERANCE);
                let noise = golden("z");
                let sample = golden("mean") + golden("std") * &noise;
                close(&what("sample"), &posterior.sample(&noise), &sample, TOLERANCE);
                close(&what("decode"), &vae.decode(&golden("z")), &golden("output"), TOLERANCE);
            }
        }
    }
}

#[test]
fn text_encoder_is_the_reference() {
    for model in MODELS {
        let golden = |name: &str| tensor(&format!("{model}.clip.{name}"));
        let output = clip(model, Kind::Float).forward(&golden("ids"));
        close(&format!("{model} clip"), &output, &golden("output"), TOLERANCE);
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let unet = unet("tiny-sd", Kind::Float, Layout::ChannelsLast);
    let (x, t) = (tensor("tiny-sd.unet.0.x"), tensor("tiny-sd.unet.0.t"));
    let tokens = tensor("tiny-sd.clip.output");
    let reference = tensor("tiny-sd.unet.0.output");
    for row in 0..3 {
        let context = unet.context(&tokens.narrow(0, row, 1));
        let output = unet.forward(&x.narrow(0, row, 1), &t.narrow(0, row, 1), &context);
        close(&format!("row {row} alone"), &output, &reference.narrow(0, row, 1), TOLERANCE);
    }
}

#[test]
fn memory_format_of_the_input_does_not_matter() {
    let (unet, vae) = (unet("tiny-sd", Kind::Float, Layout::ChannelsLast), vae("tiny-sd", Kind::Float, Layout::ChannelsLast));
    let transposed = |x: &tch::Tensor| x.transpose(2, 3).contiguous().transpose(2, 3);
    let context = unet.context(&tensor("tiny-sd.clip.output"));
    let output = unet.forward(&transposed(&tensor("tiny-sd.unet.0.x")), &tensor("tiny-sd.unet.0.t"), &context);
    close("unet", &output, &tensor("tiny-sd.unet.0.output"), TOLERANCE);
    close("vae", &vae.decode(&transposed(&tensor("tiny-sd.vae.0.z"))), &tensor("tiny-sd.vae.0.output"), TOLERANCE);
}
