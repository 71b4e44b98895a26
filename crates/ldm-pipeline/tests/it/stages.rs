//! Tiny decoders for previews, and first stages in place of a model's own.

use std::path::{Path, PathBuf};

use ldm_core::{Draft, Raster};
use ldm_engine::{Decoding, Executor};
use ldm_formats::card::FirstStage as CardStage;
use ldm_nn::formats::first_stage::canonical_tiny;
use ldm_nn::{AutoencoderTiny, AutoencoderTinyConfig, Checkpoint, FirstStage, FirstStageConfig, Layout, Weights};
use ldm_pipeline::{DeviceExecutor, ModelSource, inspect_source};
use tch::{Device, Kind, Tensor};

use crate::convert::write_weights;
use crate::rig::{Finished, directory, draft, evaluate, levels, options, scratch, solo};
use crate::systems::{cases, made_in, request};

fn load(source: &ModelSource) -> DeviceExecutor {
    DeviceExecutor::load(std::slice::from_ref(source), &options()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(source: &ModelSource) -> String {
    DeviceExecutor::load(std::slice::from_ref(source), &options()).err().expect("it is refused").to_string()
}

fn tiny_sd() -> ModelSource {
    ModelSource::new("tiny", directory().join("tiny-sd"))
}

/// A small AutoencoderTiny for latents of 4 channels at a fourth of the size, as a directory of diffusers; its factor can be another.
fn tiny_directory(name: &str, stages: usize, latent_channels: i64) -> (PathBuf, AutoencoderTinyConfig) {
    let config = AutoencoderTinyConfig {
        encoder_block_out_channels: vec![8; stages],
        decoder_block_out_channels: vec![8; stages],
        num_encoder_blocks: vec![1; stages],
        num_decoder_blocks: vec![1; stages],
        latent_channels,
        ..AutoencoderTinyConfig::default()
    };
    let dir = scratch(name);
    let json = serde_json::json!({
        "_class_name": "AutoencoderTiny", "latent_channels": latent_channels,
        "encoder_block_out_channels": vec![8; stages], "decoder_block_out_channels": vec![8; stages],
        "num_encoder_blocks": vec![1; stages], "num_decoder_blocks": vec![1; stages],
    });
    std::fs::write(dir.join("config.json"), json.to_string()).expect("it is written");
    let wanted = Weights::shapes();
    AutoencoderTiny::new(&wanted, &config);
    let shapes: Vec<(String, Vec<u64>)> =
        wanted.into_shapes().into_iter().map(|(name, shape)| (name, shape.iter().map(|&side| side as u64).collect())).collect();
    write_weights(&dir.join("diffusion_pytorch_model.safetensors"), &shapes);
    (dir, config)
}

/// TAESD itself in its own names, of random numbers.
fn taesd(file: &Path) -> Checkpoint {
    write_weights(file, &ldm_formats::expect::first_stage(&CardStage::Tiny { latent_channels: 4 }));
    Checkpoint::open_files([file.to_owned()]).expect("a checkpoint")
}

/// The tensors of one half under the names of its own file: places alone.
fn half(whole: &Checkpoint, part: &str, file: &Path) {
    let names = whole.names().filter_map(|name| name.strip_prefix(part));
    let tensors: Vec<(&str, Tensor)> = names.map(|name| (name, whole.tensor(&format!("{part}{name}")))).collect();
    Tensor::write_safetensors(&tensors, file).expect("it is written");
}

fn network(checkpoint: Checkpoint, config: &AutoencoderTinyConfig) -> AutoencoderTiny {
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
    let network = AutoencoderTiny::new(&weights, config);
    weights.finish().expect("it fits");
    network
}

/// What the numbers in about [−1, 1] are as bytes.
fn raster(picture: &Tensor) -> Raster {
    let (_, _, height, width) = picture.size4().expect("a picture");
    let levels = ((picture * 0.5 + 0.5).clamp(0., 1.) * 255.).round().squeeze_dim(0).permute([1, 2, 0]).contiguous();
    let bytes: Vec<u8> = Vec::<f32>::try_from(levels.flatten(0, -1)).expect("numbers").iter().map(|&x| x as u8).collect();
    Raster::new(width as u32, height as u32, bytes).expect("its own size")
}

/// The preview of a job's last step, the latent at its end, and the job. At σ = 0 Euler's latent is the estimate that is shown.
fn last_preview(device: &mut DeviceExecutor, draft: Draft) -> (Raster, Tensor, Finished) {
    let euler = Draft { sampler: Some("euler".into()), schedule: Some("default".into()), preview_every: Some(1), ..draft };
    let job = request(device, euler);
    let mut run = device.prepare(&job).expect("it is prepared").run;
    while !evaluate(device, &mut [&mut run])[0] {}
    let preview = device.preview(&run).expect("a preview");
    let latent = device.latent(&run);
    let channels = 4;
    let (width, height) = (i64::from(preview.width()), i64::from(preview.height()));
    let area = latent.len() as i64 / channels;
    let rows = (area as f64 * height as f64 / width as f64).sqrt().round() as i64;
    let latent_tensor = Tensor::from_slice(&latent).view([1, channels, rows, area / rows]);
    (preview, latent_tensor, Finished { latent, picture: device.decode(&mut run, Decoding::Usual).expect("a picture") })
}

#[test]
fn previews_are_the_tiny_decoders() {
    let _no_grad = tch::no_grad_guard();
    let (dir, config) = tiny_directory("stages-preview", 3, 4);
    let source = ModelSource { preview: Some(dir.clone()), ..tiny_sd() };
    let (preview, latent, finished) = last_preview(&mut load(&source), draft("a cat"));
    let checkpoint = Checkpoint::open(&dir, "diffusion_pytorch_model").expect("a checkpoint");
    let wanted = raster(&network(checkpoint, &config).decode(&latent));
    assert!(levels(&preview, &wanted) <= 1, "{}", levels(&preview, &wanted));
    // Without it the first stage makes them; pictures are the first stage's with it and without.
    let (plain, _, without) = last_preview(&mut load(&tiny_sd()), draft("a cat"));
    assert!(finished == without);
    assert!(levels(&plain, &preview) > 1 && levels(&plain, &without.picture) <= 1);
    let part = inspect_source(&source).parts.into_iter().find(|part| part.name == "preview").expect("it is listed");
    assert!(part.problem.is_none() && part.parameters.is_some_and(|count| count > 0), "{part:?}");
}

#[test]
fn taesd_is_read_in_every_spelling() {
    let _no_grad = tch::no_grad_guard();
    let folder = scratch("stages-taesd");
    let whole = taesd(&folder.join("whole.safetensors"));
    half(&whole, "decoder.", &folder.join("taesd_decoder.safetensors"));
    let canonical = canonical_tiny(whole.clone(), None);
    let tensors: Vec<(&str, Tensor)> = canonical.names().map(|name| (name, canonical.tensor(name))).collect();
    Tensor::write_safetensors(&tensors, folder.join("diffusers.safetensors")).expect("it is written");
    let prefixed: Vec<(String, Tensor)> = whole.names().map(|name| (format!("taesd_{name}"), whole.tensor(name))).collect();
    Tensor::write_safetensors(&prefixed, folder.join("prefixed.safetensors")).expect("it is written");

    // A model whose latents are an eighth of the picture, as TAESD's.
    let model = made_in("ldm-txt2im", scratch("stages-spelling-model"));
    let case = cases().into_iter().find(|case| case.model == "ldm-txt2im").expect("a case");
    let tiny = network(canonical, &AutoencoderTinyConfig::default());
    for name in ["whole", "taesd_decoder", "diffusers", "prefixed"] {
        let file = folder.join(format!("{name}.safetensors"));
        let source = ModelSource { preview: Some(file), ..ModelSource::new("tiny", &model) };
        let (preview, latent, _) = last_preview(&mut load(&source), case.draft());
        let wanted = raster(&tiny.decode(&latent));
        assert!(levels(&preview, &wanted) <= 1, "{name}: {}", levels(&preview, &wanted));
    }
}

#[test]
fn a_first_stage_is_replaced() {
    let _no_grad = tch::no_grad_guard();
    let (dir, config) = tiny_directory("stages-first", 3, 4);
    let source = ModelSource { first_stage: Some(dir.clone()), ..tiny_sd() };
    let (mut device, mut own) = (load(&source), load(&tiny_sd()));
    let picture = crate::systems::picture(&directory().join("systems/given-64x64.png"));
    let tiny = network(Checkpoint::open(&dir, "diffusion_pytorch_model").expect("a checkpoint"), &config);
    let shown = |device: &mut DeviceExecutor, draft: Draft| {
        let job = request(device, draft);
        solo(device, &job)
    };
    let decoded = |finished: &Finished| raster(&tiny.decode(&Tensor::from_slice(&finished.latent).view([1, 4, 16, 16])));
    // Text alone: the denoiser's latent is the same, TAESD takes it at its scale.
    let (found, without) = (shown(&mut device, draft("a cat")), shown(&mut own, draft("a cat")));
    assert!(found.latent == without.latent && found.picture != without.picture);
    assert!(levels(&found.picture, &decoded(&found)) <= 1);
    // A picture at next to no strength comes back as its own reconstruction.
    let from = Draft {
        init_image: Some(picture.clone()),
        strength: Some(0.02),
        steps: Some(50),
        sampler: Some("euler".into()),
        ..draft("a cat")
    };
    let from = Draft { task: ldm_core::Task::Img2Img, ..from };
    let found = shown(&mut device, from);
    assert!(levels(&found.picture, &decoded(&found)) <= 1);
    let pixels: Vec<f32> = picture.data().iter().map(|&byte| f32::from(byte) / 127.5 - 1.).collect();
    let x = Tensor::from_slice(&pixels).view([1, 64, 64, 3]).permute([0, 3, 1, 2]);
    let latent = tiny.encode(&x).contiguous().flatten(0, -1);
    let off = (Tensor::from_slice(&found.latent) - &latent).std(true).double_value(&[]) / latent.std(true).double_value(&[]);
    assert!(off < 0.3, "the picture's latent is where it starts: {off}");
}

#[test]
fn an_autoencoder_of_another_model_takes_the_scale_of_the_denoiser() {
    let _no_grad = tch::no_grad_guard();
    // Its own autoencoder by another way changes nothing.
    let same = ModelSource { first_stage: Some(directory().join("tiny-sd/vae")), ..tiny_sd() };
    let job = |device: &mut DeviceExecutor| {
        let job = request(device, draft("a cat"));
        solo(device, &job)
    };
    let own = job(&mut load(&tiny_sd()));
    assert!(job(&mut load(&same)) == own);
    // A file of an autoencoder alone does not say a scale.
    let from = scratch("stages-alone");
    let yaml = "model:\n  target: ldm.models.autoencoder.AutoencoderKL\n  params: {embed_dim: 4, ddconfig: {double_z: true, z_channels: 4, \
                resolution: 256, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 1, 2], num_res_blocks: 1, attn_resolutions: []}}\n";
    std::fs::write(from.join("stage.yaml"), yaml).expect("it is written");
    let card = ldm_formats::card::Card::from_yaml("stage", yaml).expect("a card");
    let file = write_weights(&from.join("stage.safetensors"), &ldm_formats::expect::first_stage(card.model.first_stage()));
    let other = ModelSource { first_stage: Some(file.clone()), ..tiny_sd() };
    let found = job(&mut load(&other));
    assert!(found.latent == own.latent && found.picture != own.picture);
    let stage = kl(&file, 0.18215);
    let wanted = raster(&stage.decode(&Tensor::from_slice(&found.latent).view([1, 4, 16, 16])));
    assert!(levels(&found.picture, &wanted) <= 1, "{}", levels(&found.picture, &wanted));
}

/// An original autoencoder as it is read by hand.
fn kl(file: &Path, scale: f64) -> FirstStage {
    let params = serde_json::json!({"embed_dim": 4, "ddconfig": {"double_z": true, "z_channels": 4, "resolution": 256, "in_channels": 3,
        "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": []}});
    let params: ldm_nn::formats::first_stage::OriginalFirstStage = serde_json::from_value(params).expect("parameters");
    let config: FirstStageConfig = params.config(scale).expect("a configuration");
    let checkpoint = config.canonical(Checkpoint::open_files([file.to_owned()]).expect("a checkpoint"));
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
    let stage = FirstStage::new(&weights, &config);
    weights.finish().expect("it fits");
    stage
}

#[test]
fn networks_for_other_latents_are_refused() {
    let (wide, _) = tiny_directory("stages-wide", 3, 8);
    let (deep, _) = tiny_directory("stages-deep", 4, 4);
    let preview = |path: &Path| refusal(&ModelSource { preview: Some(path.to_owned()), ..tiny_sd() });
    let stage = |path: &Path| refusal(&ModelSource { first_stage: Some(path.to_owned()), ..tiny_sd() });
    for refused in [preview(&wide), stage(&wide)] {
        assert!(refused.contains("8 latent channels, the model's own has 4"), "{refused}");
    }
    for refused in [preview(&deep), stage(&deep)] {
        assert!(refused.contains("it has 8 pixels to a side of a latent's pixel, the model's own has 4"), "{refused}");
    }
    let vae = directory().join("tiny-sd/vae");
    assert!(preview(&vae).contains("it is no AutoencoderTiny"), "{}", preview(&vae));
    // Another scale is another model's.
    let scaled = scratch("stages-scaled");
    for entry in std::fs::read_dir(&vae).expect("a folder").flatten() {
        std::fs::copy(entry.path(), scaled.join(entry.file_name())).expect("a copy");
    }
    let text = std::fs::read_to_string(scaled.join("config.json")).expect("a file");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["scaling_factor"] = serde_json::json!(0.13025);
    std::fs::write(scaled.join("config.json"), config.to_string()).expect("it is written");
    assert!(stage(&scaled).contains("`scaling_factor` is 0.13025, the model's own is 0.18215"), "{}", stage(&scaled));
    // The decoder alone makes previews, and no first stage.
    let folder = scratch("stages-half");
    let whole = taesd(&folder.join("whole.safetensors"));
    half(&whole, "decoder.", &folder.join("decoder.safetensors"));
    let model = made_in("ldm-txt2im", scratch("stages-refused-model"));
    let source = ModelSource { first_stage: Some(folder.join("decoder.safetensors")), ..ModelSource::new("tiny", &model) };
    assert!(refusal(&source).contains("it has no encoder"), "{}", refusal(&source));
    for (name, word) in [("nothing.safetensors", "nothing.safetensors"), ("taesd.pth", "is a Python pickle")] {
        let path = folder.join(name);
        if name.ends_with("pth") {
            std::fs::write(&path, "").expect("it is written");
        }
        assert!(preview(&path).contains(word), "{name}: {}", preview(&path));
    }
}
