//! Both trainings, small: they learn, resume to the same numbers, and export what serving loads.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, Checkpoint, ClipTextConfig, ClipTextModel, ClipTokenizer, Layout, UNet2DCondition,
    UNet2DConditionConfig, Weights,
};
use ldm_train::config::{Card, Dtype, Loop, Prediction, TextShape, UnetShape, VaeShape};
use ldm_train::{AutoencoderRun, DiffusionRun, autoencoder, diffusion, scene};
use tch::{Device, Kind};

/// Trainings draw from libtorch's generator, which a process has one of: one training at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ldm-train-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(out: PathBuf, steps: u64) -> Loop {
    Loop {
        out,
        seed: 3,
        steps,
        batch: 4,
        size: 16,
        learning_rate: 2e-3,
        warmup: 2,
        weight_decay: 0.01,
        beta2: 0.99,
        clip: 1.,
        ema: 0.9,
        dtype: Dtype::F32,
        log_every: 1,
        sample_every: 100,
        checkpoint_every: 100,
    }
}

fn first_stage(out: PathBuf, steps: u64) -> AutoencoderRun {
    AutoencoderRun {
        train: settings(out, steps),
        grow_from: None,
        crop: 8,
        kl_weight: 1e-6,
        held_out: 4,
        vae: VaeShape {
            block_out_channels: vec![8, 8],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 4,
            mid_block_add_attention: false,
        },
    }
}

fn denoiser(out: PathBuf, first_stage: PathBuf, steps: u64) -> DiffusionRun {
    DiffusionRun {
        train: settings(out, steps),
        first_stage,
        init: None,
        pictures: 8,
        caption_dropout: 0.1,
        prediction: Prediction::VPrediction,
        beta_schedule: "scaled_linear".into(),
        beta_start: 0.00085,
        beta_end: 0.012,
        min_snr_gamma: None,
        parts: 1,
        prompts: 2,
        unet: UnetShape {
            block_out_channels: vec![16, 16],
            layers_per_block: 1,
            cross_attention: vec![false, true],
            heads: 2,
            norm_num_groups: 4,
        },
        text_encoder: TextShape { hidden_size: 16, layers: 1, heads: 2, tokens: 32 },
        card: Card { sampler: "ddim".into(), steps: 5, guidance: 2. },
    }
}

fn losses(out: &Path) -> Vec<f64> {
    let log = std::fs::read_to_string(out.join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

fn open(dir: &Path, stem: &str) -> Weights {
    Weights::from_checkpoint(Checkpoint::open(dir, stem).unwrap(), Kind::Float, Device::Cpu, Layout::ChannelsLast)
}

/// Stops after that many steps.
fn after(steps: u32) -> impl Fn() -> bool {
    let left = Cell::new(steps);
    move || {
        left.set(left.get() - 1);
        left.get() == 0
    }
}

#[test]
fn both_trainings_learn_and_export_what_serving_loads() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("export");
    let (first, second) = (scratch.0.join("first"), scratch.0.join("second"));
    autoencoder::train(&first_stage(first.clone(), 40), Device::Cpu, &|| false).unwrap();
    let seen = losses(&first);
    assert!(seen[35..].iter().sum::<f64>() < 0.8 * seen[..5].iter().sum::<f64>(), "{seen:?}");
    diffusion::train(&denoiser(second.clone(), first, 6), Device::Cpu, 1, &|| false).unwrap();
    assert!(losses(&second).iter().all(|loss| loss.is_finite()));

    let model = second.join("model");
    let text_config = ClipTextConfig::read(&model.join("text_encoder/config.json")).unwrap();
    let text = open(&model.join("text_encoder"), "model");
    ClipTextModel::new(&text, &text_config);
    text.finish().unwrap();
    let unet = open(&model.join("unet"), "diffusion_pytorch_model");
    UNet2DCondition::new(&unet, &UNet2DConditionConfig::read(&model.join("unet/config.json")).unwrap());
    unet.finish().unwrap();
    let vae = open(&model.join("vae"), "diffusion_pytorch_model");
    AutoencoderKl::new(&vae, &AutoencoderKlConfig::read(&model.join("vae/config.json")).unwrap());
    vae.finish().unwrap();
    for file in ["model_index.json", "card.toml", "scheduler/scheduler_config.json"] {
        assert!(model.join(file).is_file(), "{file}");
    }

    // A training can start from what another one exported; a fresh one would lose more at its first step.
    let third = scratch.0.join("third");
    let again = DiffusionRun { init: Some(model.clone()), ..denoiser(third.clone(), scratch.0.join("first"), 1) };
    diffusion::train(&again, Device::Cpu, 1, &|| false).unwrap();
    assert!(losses(&third)[0] < losses(&second)[0], "{:?} {:?}", losses(&third), losses(&second));
    let shape = UnetShape { heads: 2, block_out_channels: vec![16, 32], ..again.unet.clone() };
    let other = DiffusionRun { unet: shape, ..DiffusionRun { train: settings(scratch.0.join("fourth"), 1), ..again } };
    let error = diffusion::train(&other, Device::Cpu, 1, &|| false).unwrap_err().to_string();
    assert!(error.contains("do not fit"), "{error}");

    // Every word of the scene grammar is one token, and any other text still has some.
    let tokenizer = ClipTokenizer::read(&model.join("tokenizer"), 32).unwrap();
    assert_eq!(tokenizer.vocabulary() as i64, text_config.vocab_size);
    let tokens =
        |text: &str| tokenizer.encode(text).unwrap().ids.iter().position(|&id| id == text_config.vocab_size - 1).unwrap() - 1;
    for word in scene::vocabulary() {
        assert_eq!(tokens(word), 1, "{word}");
    }
    assert!(tokens("redcircle") > 1, "a word of no scene is several tokens");
    assert!(tokens("ünïcode 🦀") > 1);
}

#[test]
fn a_resumed_training_equals_one_that_never_stopped() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("resume");
    let state = |out: &Path| {
        let checkpoint = Checkpoint::open_files([out.join("checkpoint-6.safetensors")]).unwrap();
        ["parameters", "first_moment", "second_moment", "average"].map(|name| checkpoint.tensor(name).copy())
    };
    // The configuration is part of a checkpoint, `out` too: both runs use one directory, one after the other.
    let out = scratch.0.join("run");
    let run = first_stage(out.clone(), 6);
    autoencoder::train(&run, Device::Cpu, &|| false).unwrap();
    let straight = state(&out);
    std::fs::remove_dir_all(&out).unwrap();
    autoencoder::train(&run, Device::Cpu, &after(3)).unwrap();
    assert!(out.join("checkpoint-3.safetensors").is_file() && !out.join("vae").exists());
    autoencoder::train(&run, Device::Cpu, &|| false).unwrap();
    for (a, b) in straight.iter().zip(state(&out)) {
        assert_eq!((a - b).abs().max().double_value(&[]), 0.);
    }
    let other = AutoencoderRun { kl_weight: 1e-3, ..run };
    let error = autoencoder::train(&other, Device::Cpu, &|| false).unwrap_err().to_string();
    assert!(error.contains("another configuration"), "{error}");
}

#[test]
fn an_autoencoder_grows_from_one_of_a_level_less() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("grow");
    let (small, large) = (scratch.0.join("small"), scratch.0.join("large"));
    autoencoder::train(&first_stage(small.clone(), 2), Device::Cpu, &|| false).unwrap();
    let mut run = AutoencoderRun { grow_from: Some(small.clone()), ..first_stage(large.clone(), 1) };
    run.vae.block_out_channels = vec![8, 8, 8];
    run.vae.latent_channels = 6;
    run.train.learning_rate = 1e-12;
    autoencoder::train(&run, Device::Cpu, &|| false).unwrap();
    let open = |out: &Path| Checkpoint::open(&out.join("vae"), "diffusion_pytorch_model").unwrap();
    let (from, to) = (open(&small), open(&large));
    for (was, is) in [
        ("encoder.down_blocks.1.resnets.0.conv1.weight", "encoder.down_blocks.1.resnets.0.conv1.weight"),
        ("decoder.up_blocks.0.resnets.1.conv2.weight", "decoder.up_blocks.1.resnets.1.conv2.weight"),
        ("decoder.conv_out.bias", "decoder.conv_out.bias"),
    ] {
        let difference = (from.tensor(was).to_kind(Kind::Float) - to.tensor(is).to_kind(Kind::Float)).abs().max();
        assert!(difference.double_value(&[]) < 1e-6, "{is}");
    }
    let nothing = AutoencoderRun { grow_from: Some(scratch.0.clone()), ..run };
    let nothing = AutoencoderRun { train: settings(scratch.0.join("third"), 1), ..nothing };
    assert!(autoencoder::train(&nothing, Device::Cpu, &|| false).is_err());
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("workers");
    let (first, out) = (scratch.0.join("first"), scratch.0.join("run"));
    autoencoder::train(&first_stage(first.clone(), 2), Device::Cpu, &|| false).unwrap();
    let run = DiffusionRun { parts: 4, min_snr_gamma: Some(5.), ..denoiser(out.clone(), first, 3) };
    let mut trained = Vec::new();
    // Two workers first: that also leaves libtorch one thread for both runs.
    for workers in [2, 1] {
        diffusion::train(&run, Device::Cpu, workers, &|| false).unwrap();
        trained.push(Checkpoint::open_files([out.join("checkpoint-3.safetensors")]).unwrap().tensor("parameters").copy());
        std::fs::remove_dir_all(&out).unwrap();
    }
    assert_eq!((&trained[0] - &trained[1]).abs().max().double_value(&[]), 0.);
}

#[test]
fn the_shipped_configurations_are_read_and_wrong_ones_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/train");
    AutoencoderRun::read(&dir.join("autoencoder.toml")).unwrap();
    DiffusionRun::read(&dir.join("diffusion.toml")).unwrap();
    let scratch = Scratch::new("config");
    let text = std::fs::read_to_string(dir.join("autoencoder.toml")).unwrap();
    for (from, to, named) in
        [("crop = 32", "crop = 30", "crop"), ("steps = ", "stepz = ", "stepz"), ("clip = 1.0", "clip = 0.0", "clip")]
    {
        let path = scratch.0.join("wrong.toml");
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = format!("{:#}", AutoencoderRun::read(&path).unwrap_err());
        assert!(error.contains(named), "{error}");
    }
}
