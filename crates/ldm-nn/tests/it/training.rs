//! The same definitions train: fresh variables learn, every one of them, and come back from a file as they were.

use std::collections::BTreeSet;

use ldm_nn::weights::save;
use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, Checkpoint, Layout, UNet2DCondition, UNet2DConditionConfig, Variables, Weights,
};
use tch::{Device, Kind, Tensor};

use crate::goldens::{close, scratch, tensor};

fn config() -> UNet2DConditionConfig {
    UNet2DConditionConfig {
        block_out_channels: vec![16, 24],
        layers_per_block: 1,
        down_block_types: vec!["CrossAttnDownBlock2D".into(), "DownBlock2D".into()],
        up_block_types: vec!["UpBlock2D".into(), "CrossAttnUpBlock2D".into()],
        cross_attention_dim: 32,
        attention_head_dim: ldm_nn::unet::PerLevel::Same(2),
        norm_num_groups: 8,
        ..UNet2DConditionConfig::default()
    }
}

/// One step of gradient descent; returns the loss before it, and takes from `idle` what has a gradient.
fn descend(variables: &Variables, loss: &Tensor, rate: f64, idle: &mut BTreeSet<String>) -> f64 {
    loss.backward();
    tch::no_grad(|| {
        for (name, variable) in variables.iter() {
            let mut grad = variable.grad();
            if grad.abs().max().double_value(&[]) > 0. {
                idle.remove(name);
            }
            let _ = variable.shallow_clone().g_sub_(&(&grad * rate));
            let _ = grad.zero_();
        }
    });
    loss.double_value(&[])
}

/// All weights. Biases are left out: one before a normalisation of its own channel, or of keys, has no gradient by rights.
fn weights_of(variables: &Variables) -> BTreeSet<String> {
    variables.iter().filter(|(name, _)| name.ends_with("weight")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn a_fresh_denoiser_learns_and_comes_back_from_a_file() {
    tch::manual_seed(1);
    let config = config();
    let weights = Weights::fresh(Device::Cpu);
    let unet = UNet2DCondition::new(&weights, &config);
    assert!(weights.is_fresh());
    let variables = weights.into_variables();
    let (x, t) = (tensor("tiny-sd.unet.0.x"), tensor("tiny-sd.unet.0.t"));
    let tokens = tensor("tiny-sd.clip.output");
    let target = x.roll([1], [3]);

    // Fresh residual branches and the last layer are zero, so the first prediction is.
    let first = unet.forward(&x, &t, &unet.context(&tokens));
    assert_eq!(first.abs().max().double_value(&[]), 0.);
    let mut idle = weights_of(&variables);
    let mut losses = Vec::new();
    for _ in 0..4 {
        let output = unet.forward(&x, &t, &unet.context(&tokens));
        losses.push(descend(&variables, &(output - &target).square().mean(Kind::Float), 0.05, &mut idle));
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    // What stands before a zero layer starts to learn a step after it: by now everything has.
    assert_eq!(idle, BTreeSet::new());

    let reference = tch::no_grad(|| unet.forward(&x, &t, &unet.context(&tokens)));
    let dir = scratch("trained");
    for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::Half, 1e-2), (Kind::BFloat16, 5e-2)] {
        let path = dir.join("model.safetensors");
        save(variables.iter(), kind, &path).expect("saved");
        assert!(!path.with_extension("partial").exists());
        let checkpoint = Checkpoint::open(&dir, "model").expect("the file");
        assert_eq!(checkpoint.stored_kind(), Some(kind));
        let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
        let again = UNet2DCondition::new(&weights, &config);
        let report = weights.finish().expect("its own file fits");
        assert_eq!(report.parameters, variables.parameters() as u64);
        close(&format!("{kind:?}"), &again.forward(&x, &t, &again.context(&tokens)), &reference, tolerance);
    }
}

#[test]
fn a_fresh_autoencoder_learns() {
    tch::manual_seed(2);
    let levels = |kind: &str| vec![kind.to_owned(); 2];
    let config = AutoencoderKlConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 8,
        down_block_types: levels("DownEncoderBlock2D"),
        up_block_types: levels("UpDecoderBlock2D"),
        ..AutoencoderKlConfig::default()
    };
    let weights = Weights::fresh(Device::Cpu);
    let vae = AutoencoderKl::new(&weights, &config);
    let variables = weights.into_variables();
    let x = tensor("variant.vae.0.x");
    let mut idle = weights_of(&variables);
    let mut losses = Vec::new();
    for _ in 0..4 {
        let posterior = vae.encode(&x);
        let z = posterior.sample(&Tensor::randn_like(&posterior.mode()));
        let loss = (vae.decode(&z) - &x).square().mean(Kind::Float) + posterior.kl() * 1e-6;
        losses.push(descend(&variables, &loss, 0.05, &mut idle));
    }
    assert!(losses[3] < losses[0], "{losses:?}");
    assert_eq!(idle, BTreeSet::new());
}

#[test]
fn networks_of_different_modules_save_together() {
    tch::manual_seed(3);
    let weights = Weights::fresh(Device::Cpu);
    let (unet, vae) = (weights.sub("unet"), weights.sub("vae"));
    UNet2DCondition::new(&unet, &config());
    AutoencoderKl::new(&vae, &AutoencoderKlConfig { block_out_channels: vec![32], ..AutoencoderKlConfig::default() });
    let variables = weights.into_variables();
    let names: Vec<_> = variables.iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"unet.conv_in.weight") && names.contains(&"vae.encoder.conv_in.weight"));
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}
