//! First stages against the original classes and diffusers' (`tools/goldens/first_stages.py`), under every spelling of names.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ldm_nn::formats::first_stage::{OriginalFirstStage, TinyHalf, canonical, canonical_tiny, scale_factor};
use ldm_nn::weights::save;
use ldm_nn::{
    AutoencoderTiny, AutoencoderTinyConfig, Checkpoint, FirstStage, FirstStageConfig, Layout, TinyDecoder, VqModel,
    VqModelConfig, Weights,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::goldens::{LAYOUTS, directory, scratch};

/// Absolute, on outputs of about 1; the references differ among themselves by up to 9e-6. A wrong ε changes outputs by 1e-4 and
/// more.
const TOLERANCE: f64 = 1e-5;

const KL: [&str; 4] = ["kl-f4", "kl-f8", "kl-f16", "kl-f32"];
const VQ: [&str; 4] = ["vq-f4", "vq-f4-noattn", "vq-f8", "vq-f16"];

/// Who wrote a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spelling {
    /// A first stage's own original checkpoint, with the discriminator.
    Original,
    /// An original checkpoint of a whole model.
    Whole,
    /// Diffusers.
    Diffusers,
    /// Diffusers before 0.13.
    Old,
}

const SPELLINGS: [Spelling; 4] = [Spelling::Original, Spelling::Whole, Spelling::Diffusers, Spelling::Old];

fn json_file(name: &str) -> Value {
    let path = directory().join("first_stages").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn case(name: &str) -> &'static Value {
    static CASES: OnceLock<Value> = OnceLock::new();
    &CASES.get_or_init(|| json_file("cases.json"))[name]
}

/// A reference tensor.
pub(crate) fn golden(name: &str) -> Tensor {
    let file = directory().join("first_stages/first_stages.safetensors");
    Checkpoint::open_files([file]).expect("the goldens").tensor(name)
}

pub(crate) fn near(what: &str, found: &Tensor, reference: &Tensor) {
    assert_eq!(found.size(), reference.size(), "{what}");
    let error = (found.to_kind(Kind::Double) - reference.to_kind(Kind::Double)).abs().max().double_value(&[]);
    println!("{what}: {error:.1e}");
    assert!(error <= TOLERANCE, "{what}: {error:.2e}");
}

/// The formula of `weight` in `first_stages.py`.
fn weight(name: &str, shape: &[i64], mean: f64, scale: f64) -> Tensor {
    let seed = name.bytes().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let value = |place: u32| {
        let mut x = place.wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        (mean + scale / 4096. * (f64::from(x) / 2f64.powi(31) - 1.)) as f32
    };
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = (0..u32::try_from(count).expect("a small tensor")).map(value).collect();
    Tensor::from_slice(&values).view(shape)
}

fn shape(value: &Value) -> Vec<i64> {
    serde_json::from_value(value.clone()).expect("a shape")
}

/// The tensors of a case, as `spelling` has them.
fn tensors(name: &str, spelling: Spelling) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for row in case(name)["tensors"].as_array().expect("rows") {
        let text = |i: usize| row[i].as_str().expect("a name").to_owned();
        let number = |i: usize| row[i].as_f64().expect("a number");
        let tensor = weight(&text(0), &shape(&row[1]), number(2), number(3));
        let diffusers = tensor.view(shape(&row[5]).as_slice());
        match spelling {
            Spelling::Original => _ = tensors.insert(text(0), tensor),
            Spelling::Whole => _ = tensors.insert(format!("first_stage_model.{}", text(0)), tensor),
            Spelling::Diffusers => _ = tensors.insert(text(4), diffusers),
            Spelling::Old => {
                let words = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
                let old = words.iter().fold(text(4), |name, (new, old)| name.replace(new, old));
                tensors.insert(old, diffusers);
            }
        }
    }
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    match spelling {
        Spelling::Original => _ = tensors.insert("loss.discriminator.main.0.weight".into(), one()),
        Spelling::Whole => {
            for name in [
                "model.diffusion_model.out.2.bias",
                "cond_stage_model.embedding.weight",
                "betas",
                "first_stage_model.loss.logvar",
            ] {
                tensors.insert(name.into(), one());
            }
            tensors.insert("scale_factor".into(), Tensor::from(0.75f32));
        }
        Spelling::Diffusers | Spelling::Old => {}
    }
    tensors
}

fn checkpoint(tensors: &BTreeMap<String, Tensor>, scratch_name: &str) -> Checkpoint {
    let path = scratch(scratch_name).join("model.safetensors");
    save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Float, &path).expect("saved");
    let checkpoint = Checkpoint::open_files([path.clone()]).expect("the file");
    // It stays mapped; the disk need not keep it.
    std::fs::remove_file(path).expect("removed");
    checkpoint
}

fn original_config(params: &Value, scaling_factor: f64) -> FirstStageConfig {
    let original: OriginalFirstStage = serde_json::from_value(params.clone()).expect("parameters");
    original.config(scaling_factor).expect("a configuration")
}

/// The configuration that would lie beside a checkpoint of that spelling.
fn config(name: &str, spelling: Spelling) -> FirstStageConfig {
    if matches!(spelling, Spelling::Original | Spelling::Whole) && !case(name)["params"].is_null() {
        return original_config(&case(name)["params"], if name.starts_with("kl") { 0.5 } else { 1. });
    }
    let path = scratch(&format!("config-{name}-{spelling:?}")).join("config.json");
    std::fs::write(&path, case(name)["config"].to_string()).expect("a file");
    FirstStageConfig::read(&path).expect("a configuration")
}

fn build(config: &FirstStageConfig, checkpoint: Checkpoint, kind: Kind, layout: Layout) -> FirstStage {
    let weights = Weights::from_checkpoint(config.canonical(checkpoint), kind, Device::Cpu, layout);
    let stage = FirstStage::new(&weights, config);
    weights.finish().expect("the weights fit");
    stage
}

pub(crate) fn stage(name: &str, spelling: Spelling, kind: Kind, layout: Layout, test: &str) -> FirstStage {
    let checkpoint = checkpoint(&tensors(name, spelling), &format!("stage-{test}-{name}-{spelling:?}"));
    build(&config(name, spelling), checkpoint, kind, layout)
}

#[test]
fn kl_is_the_reference() {
    for name in KL {
        let golden = |part: &str| golden(&format!("{name}.{part}"));
        let moments = golden("moments").chunk(2, 1);
        for (i, spelling) in SPELLINGS.into_iter().enumerate() {
            let stage = stage(name, spelling, Kind::Float, LAYOUTS[i % 2], "kl");
            let what = |part| format!("{name} {spelling:?} {part}");
            let FirstStage::Kl(kl) = &stage else { panic!("{name} is a {stage:?}") };
            let posterior = kl.encode(&golden("x"));
            near(&what("mean"), &posterior.mode(), &moments[0]);
            near(&what("std"), &posterior.std(), &(&moments[1] * 0.5).exp());
            near(&what("decode"), &kl.decode(&golden("z")), &golden("output"));
            // The same through the scale of the denoiser.
            assert_eq!(stage.scaling_factor(), 0.5);
            near(&what("scaled decode"), &stage.decode(&(golden("z") * 0.5)), &golden("output"));
            let encoded = stage.encode(&golden("x"));
            near(&what("scaled mode"), &encoded.mode(), &(&moments[0] * 0.5));
            let noise = golden("z");
            let sample = encoded.sample(|shape| {
                assert_eq!(shape, noise.size());
                noise.shallow_clone()
            });
            near(&what("sample"), &sample, &((&moments[0] + (&moments[1] * 0.5).exp() * &noise) * 0.5));
        }
    }
}

#[test]
fn vq_is_the_reference() {
    for name in VQ {
        let golden = |part: &str| golden(&format!("{name}.{part}"));
        for (i, spelling) in SPELLINGS.into_iter().enumerate() {
            let stage = stage(name, spelling, Kind::Float, LAYOUTS[i % 2], "vq");
            let what = |part| format!("{name} {spelling:?} {part}");
            let FirstStage::Vq(vq) = &stage else { panic!("{name} is a {stage:?}") };
            near(&what("latent"), &vq.encode(&golden("x")), &golden("latent"));
            assert_eq!(vq.indices(&golden("latent")), golden("indices"), "{}", what("indices"));
            assert_eq!(vq.indices(&vq.encode(&golden("x"))), golden("indices"), "{}", what("indices of its own latent"));
            near(&what("decode"), &vq.decode(&golden("latent")), &golden("output"));
            near(&what("unquantised"), &vq.decode_unquantised(&golden("latent")), &golden("unquantised"));
            near(&what("vectors"), &vq.decode_unquantised(&vq.vectors(&golden("indices"))), &golden("output"));
            assert_eq!(stage.scaling_factor(), 1.);
            near(&what("stage decode"), &stage.decode(&golden("latent")), &golden("output"));
            let encoded = stage.encode(&golden("x"));
            near(&what("stage encode"), &encoded.mode(), &golden("latent"));
            near(&what("sample"), &encoded.sample(|_| panic!("there is nothing to draw")), &golden("latent"));
        }
    }
}

#[test]
fn taesd_is_the_reference() {
    for (i, spelling) in [Spelling::Original, Spelling::Diffusers].into_iter().enumerate() {
        let mut tensors = tensors("taesd", spelling);
        tensors.remove("loss.discriminator.main.0.weight");
        let config = config("taesd", Spelling::Diffusers);
        let stage = build(&config, checkpoint(&tensors, &format!("taesd-{i}")), Kind::Float, LAYOUTS[i]);
        assert_eq!((stage.factor(), stage.latent_channels(), stage.scaling_factor()), (8, 4, 1.));
        let golden = |part: &str| golden(&format!("taesd.{part}"));
        near(&format!("{spelling:?} encode"), &stage.encode(&golden("x")).mode(), &golden("latent"));
        near(&format!("{spelling:?} decode"), &stage.decode(&golden("z")), &golden("output"));
    }
}

#[test]
fn taesd_in_two_flat_files_is_the_reference() {
    let all = tensors("taesd", Spelling::Original);
    let half = |prefix: &str, half: TinyHalf| {
        let own = all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.shallow_clone())));
        canonical_tiny(checkpoint(&own.collect(), &format!("taesd-flat-{half:?}")), Some(half))
    };
    let config = AutoencoderTinyConfig::default();
    let load = |checkpoint| Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
    let weights = load(half("encoder.", TinyHalf::Encoder).joined(half("decoder.", TinyHalf::Decoder)));
    let tiny = AutoencoderTiny::new(&weights, &config);
    let report = weights.finish().expect("the weights fit");
    assert_eq!((report.parameters, report.tensors), (2_445_063, 134));
    near("encode", &tiny.encode(&golden("taesd.x")), &golden("taesd.latent"));

    let weights = load(half("decoder.", TinyHalf::Decoder));
    let decoder = TinyDecoder::new(&weights, &config);
    weights.finish().expect("the decoder is enough");
    near("decode", &decoder.decode(&golden("taesd.z")), &golden("taesd.output"));
}

#[test]
fn half_precision_stays_near_and_keeps_its_kind() {
    for (name, latent) in [("kl-f4", "z"), ("vq-f4", "latent")] {
        let stage = stage(name, Spelling::Diffusers, Kind::BFloat16, Layout::ChannelsLast, "half");
        let z = golden(&format!("{name}.{latent}")).to_kind(Kind::BFloat16) * stage.scaling_factor();
        let output = stage.decode(&z);
        assert_eq!((output.kind(), stage.kind(), stage.device()), (Kind::BFloat16, Kind::BFloat16, Device::Cpu));
        let reference = golden(&format!("{name}.output"));
        let error = (output.to_kind(Kind::Float) - &reference).abs().mean(Kind::Float) / reference.abs().mean(Kind::Float);
        assert!(error.double_value(&[]) < 0.05, "{name}: {error:?}");
        let encoded = stage.encode(&golden(&format!("{name}.x")).to_kind(Kind::BFloat16));
        assert_eq!((encoded.mode().kind(), encoded.to_kind(Kind::Float).mode().kind()), (Kind::BFloat16, Kind::Float));
    }
}

#[test]
fn published_first_stages_have_the_published_size() {
    let zoo = json_file("zoo.json");
    let factors = [("f4", 4), ("f8", 8), ("f16", 16), ("f32", 32)];
    assert_eq!(zoo.as_object().expect("rows").len(), 9);
    for (name, row) in zoo.as_object().expect("rows") {
        let config = original_config(&row["params"], 1.);
        assert_eq!(matches!(config, FirstStageConfig::Vq(_)), name.starts_with("vq"));
        let factor = factors.iter().find(|(part, _)| name.split('-').any(|word| word == *part)).expect("a factor").1;
        assert_eq!(config.factor(), factor, "{name}");
        assert_eq!(json!(config.latent_channels()), row["params"]["embed_dim"], "{name}");
        let weights = Weights::shapes();
        FirstStage::new(&weights, &config);
        let report = weights.finish().expect("shapes always fit");
        assert_eq!(
            (json!(report.parameters), json!(report.tensors)),
            (row["parameters"].clone(), row["tensors"].clone()),
            "{name}"
        );
    }
    // 55.312 M, 67.717 M, 103.880 M: spec/models.md, 1.1.
    assert_eq!(zoo["kl-f4"]["parameters"], 55_312_063);
    assert_eq!(zoo["vq-f8"]["parameters"], 67_717_295);
    assert_eq!(zoo["kl-f32"]["parameters"], 103_880_131);
}

#[test]
fn attention_levels_are_counted_from_the_nominal_resolution() {
    let params = |resolution: i64| {
        json!({"embed_dim": 4, "ddconfig": {"z_channels": 4, "resolution": resolution, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [64, 32]}})
    };
    let levels = |resolution| match original_config(&params(resolution), 1.) {
        FirstStageConfig::Kl(config) => {
            let attention = |names: &[String]| names.iter().map(|name| name.starts_with("Attn")).collect::<Vec<_>>();
            (attention(&config.down_block_types), attention(&config.up_block_types))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(levels(256), (vec![false, false, true, true], vec![true, true, false, false]));
    assert_eq!(levels(512), (vec![false, false, false, true], vec![true, false, false, false]));
    assert_eq!(levels(64), (vec![true, true, false, false], vec![false, false, true, true]));
    // Where halving loses a pixel, the decoder counts from below: 257, 128, 64, 32 and back to 256.
    assert_eq!(levels(257), (vec![false, false, true, true], vec![true, true, false, false]));
    assert_eq!(levels(66), (vec![false, false, false, false], vec![false, false, true, true]));
}

#[test]
fn original_configurations_that_are_not_supported_are_refused_by_name() {
    let params = case("vq-f4")["params"].clone();
    let refused = [
        ("ddconfig", "attn_type", json!("linear")),
        ("ddconfig", "use_linear_attn", json!(true)),
        ("ddconfig", "resamp_with_conv", json!(false)),
        ("ddconfig", "tanh_out", json!(true)),
        ("ddconfig", "give_pre_end", json!(true)),
        ("ddconfig", "ch_mult", json!([])),
        ("ddconfig", "ch_mult", json!(vec![1; 40])),
        ("ddconfig", "resolution", json!(0)),
        ("ddconfig", "double_z", json!(true)),
        ("ddconfig", "ch", json!(33)),
        ("ddconfig", "ch", json!(i64::MAX)),
        ("ddconfig", "num_res_blocks", json!(0)),
        ("ddconfig", "num_res_blocks", json!(1_000_000_000)),
        ("ddconfig", "z_channels", json!(0)),
        ("", "n_embed", json!(null)),
        ("", "n_embed", json!(0)),
        ("", "n_embed", json!(i64::MAX)),
        ("", "embed_dim", json!(0)),
        ("", "remap", json!("used.npy")),
    ];
    // What diffusers calls it, or where both have a part in it.
    let other_name = |key: &str| {
        match key {
            "ch" => "block_out_channels",
            "num_res_blocks" => "layers_per_block",
            "z_channels" => "latent_channels",
            "n_embed" => "num_vq_embeddings",
            "embed_dim" => "vq_embed_dim",
            _ => "double_z",
        }
        .to_owned()
    };
    for (place, key, value) in refused {
        let mut params = params.clone();
        if place.is_empty() {
            params[key] = value.clone()
        } else {
            params[place][key] = value.clone()
        }
        let original: OriginalFirstStage = serde_json::from_value(params).expect("it can be read");
        let message = original.config(1.).expect_err(key).to_string();
        assert!(
            message.contains(key) || message.contains(&other_name(key)) || message.contains("n_embed"),
            "{key} = {value}: {message}"
        );
    }
    let mut kl = case("kl-f4")["params"].clone();
    kl["embed_dim"] = json!(4);
    let original: OriginalFirstStage = serde_json::from_value(kl).expect("it can be read");
    assert!(original.config(1.).expect_err("refused").to_string().contains("`embed_dim` = 4"));
    let original: OriginalFirstStage = serde_json::from_value(params).expect("it can be read");
    assert!(original.config(0.).expect_err("refused").to_string().contains("`scaling_factor` = 0"));
}

#[test]
fn diffusers_configurations_that_are_not_supported_are_refused_by_name() {
    let refused = [
        ("vq-f4", "_class_name", json!("AsymmetricAutoencoderKL")),
        ("vq-f4", "norm_type", json!("spatial")),
        ("vq-f4", "lookup_from_codebook", json!(true)),
        ("vq-f4", "act_fn", json!("relu")),
        ("vq-f4", "num_vq_embeddings", json!(0)),
        ("vq-f4", "vq_embed_dim", json!(-1)),
        ("vq-f4", "scaling_factor", json!(-1)),
        ("vq-f4", "block_out_channels", json!([])),
        ("vq-f4", "down_block_types", json!(["DownEncoderBlock2D"])),
        ("taesd", "encoder_block_out_channels", json!([32, 64, 64, 64])),
        ("taesd", "decoder_block_out_channels", json!([64, 64, 64])),
        ("taesd", "num_encoder_blocks", json!([])),
        ("taesd", "num_decoder_blocks", json!([3, 3, 1])),
        ("taesd", "num_decoder_blocks", json!([3, 3, 3, -1])),
        ("taesd", "latent_channels", json!(0)),
        ("taesd", "act_fn", json!("gelu")),
        ("taesd", "upsample_fn", json!("bilinear")),
        ("taesd", "upsampling_scaling_factor", json!(4)),
        ("taesd", "shift_factor", json!(0.1)),
        ("taesd", "scaling_factor", json!(0)),
    ];
    for (name, key, value) in refused {
        let mut config = case(name)["config"].clone();
        config[key] = value.clone();
        let path = scratch(&format!("refused-{name}-{key}")).join("config.json");
        std::fs::write(&path, config.to_string()).expect("a file");
        let message = FirstStageConfig::read(&path).expect_err(key).to_string();
        assert!(message.contains(&format!("`{key}`")), "{key} = {value}: {message}");
    }
}

#[test]
fn a_vq_model_without_a_scale_has_that_of_the_paper() {
    let mut config = case("vq-f4")["config"].clone();
    config.as_object_mut().expect("an object").remove("scaling_factor");
    let config: VqModelConfig = serde_json::from_value(config).expect("a configuration");
    assert_eq!(config.scaling_factor, 1.);
    let path = scratch("scale-of-class").join("config.json");
    std::fs::write(&path, r#"{"_class_name": "AutoencoderKL"}"#).expect("a file");
    let mut config = FirstStageConfig::read(&path).expect("a configuration");
    assert_eq!((config.scaling_factor(), config.force_upcast()), (0.18215, true));
    config.set_scaling_factor(0.5);
    assert_eq!(config.scaling_factor(), 0.5);
}

#[test]
fn the_scale_of_a_checkpoint_is_found() {
    let whole = checkpoint(&tensors("vq-f4", Spelling::Whole), "scale-whole");
    assert_eq!(scale_factor(&whole), Some(0.75));
    assert_eq!(scale_factor(&checkpoint(&tensors("vq-f4", Spelling::Diffusers), "scale-diffusers")), None);
}

#[test]
fn names_that_no_first_stage_has_are_reported() {
    let mut tensors = tensors("kl-f4", Spelling::Original);
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    let strays =
        ["decoder.up.3.block.0.conv1.weight", "decoder.up.x.block.0.conv1.weight", "encoder.mid.attn_1.gate.weight", "stray"];
    for name in strays {
        tensors.insert(name.into(), one());
    }
    tensors.remove("decoder.up.2.block.0.conv1.bias");
    let checkpoint = canonical(checkpoint(&tensors, "strays"), 3);
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
    FirstStage::new(&weights, &config("kl-f4", Spelling::Original));
    let report = weights.finish().expect_err("it does not fit").0;
    assert_eq!(report.unexpected, strays);
    assert_eq!(report.missing, ["decoder.up_blocks.0.resnets.0.conv1.bias"]);
}

#[test]
fn a_large_codebook_is_searched_in_parts() {
    // 2^20 vectors: eight pixels at a time.
    let config = VqModelConfig {
        block_out_channels: vec![32],
        latent_channels: 1,
        num_vq_embeddings: 1 << 20,
        ..VqModelConfig::default()
    };
    config.check().expect("a configuration");
    let weights = Weights::fresh(Device::Cpu);
    let vq = VqModel::new(&weights, &config);
    let variables = weights.into_variables();
    let codebook = variables.iter().find(|(name, _)| *name == "quantize.embedding.weight").expect("the codebook").1;
    let few = Tensor::arange(64, (Kind::Float, Device::Cpu));
    let _guard = tch::no_grad_guard();
    codebook.shallow_clone().fill_(1000.).narrow(0, 0, 64).copy_(&few.view([64, 1]));
    let wanted = (Tensor::arange(2 * 5 * 7, (Kind::Int64, Device::Cpu)) * 37).remainder(64).view([2, 5, 7]);
    let z = wanted.to_kind(Kind::Float).unsqueeze(1) + 0.25;
    assert_eq!(vq.indices(&z), wanted);
    // Of two that are as near, the first.
    let between = Tensor::full([1, 1, 3, 3], 6.5, (Kind::Float, Device::Cpu));
    assert_eq!(vq.indices(&between), Tensor::full([1, 3, 3], 6, (Kind::Int64, Device::Cpu)));
}
