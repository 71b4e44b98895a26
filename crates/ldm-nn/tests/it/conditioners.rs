//! Conditioners against their references (`tools/goldens/conditioners.py`), and the sizes of the published ones.

use std::path::PathBuf;
use std::sync::OnceLock;

use ldm_nn::conditioners::layout::{LayoutConfig, LayoutError, LayoutObject};
use ldm_nn::conditioners::spatial_rescaler::one_hot;
use ldm_nn::conditioners::vectors::{self, Sizes};
use ldm_nn::conditioners::{
    BertEmbedderParams, BertTokenizer, ClassEmbedder, ClassEmbedderConfig, LdmBertConfig, LdmBertModel, SpatialRescaler,
    SpatialRescalerConfig,
};
use ldm_nn::formats::{bert, clip};
use ldm_nn::unet::{guidance_sinusoids, sinusoids};
use ldm_nn::{Checkpoint, ClipTextConfig, ClipTextModel, Layout, Mapped, Readout, Weights};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::goldens::{self, scratch};

/// Absolute, in float32.
const TOLERANCE: f64 = 1e-5;

pub(crate) fn directory() -> PathBuf {
    goldens::directory().join("conditioners")
}

/// A reference tensor.
pub(crate) fn tensor(name: &str) -> Tensor {
    static FILE: OnceLock<Checkpoint> = OnceLock::new();
    let file = FILE.get_or_init(|| Checkpoint::open_files([directory().join("outputs.safetensors")]).expect("the goldens"));
    assert!(file.shape(name).is_some(), "no golden {name}");
    file.tensor(name)
}

/// Panics when the tensors differ by more than 1e-5 anywhere.
pub(crate) fn same(what: &str, found: &Tensor, golden: &str) {
    within(what, found, golden, TOLERANCE);
}

fn within(what: &str, found: &Tensor, golden: &str, tolerance: f64) {
    let reference = tensor(golden);
    assert_eq!(found.size(), reference.size(), "{what}");
    let error = (found.to_kind(Kind::Double) - reference.to_kind(Kind::Double)).abs().max().double_value(&[]);
    println!("{what}: {error:.1e}");
    assert!(error <= tolerance, "{what}: differs by {error:.2e}, more than {tolerance:.0e}");
}

fn file(name: &str) -> Checkpoint {
    Checkpoint::open_files([directory().join(name)]).expect("the file")
}

/// Loads strictly.
fn load<T>(checkpoint: Checkpoint, build: impl FnOnce(&Weights) -> T) -> T {
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
    let module = build(&weights);
    weights.finish().expect("the weights fit");
    module
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(directory().join(name)).expect("a golden")).expect("JSON")
}

#[test]
fn bert_of_diffusers_is_the_reference() {
    let config = LdmBertConfig::read(&directory().join("bert/config.json")).expect("the configuration");
    assert_eq!((config.head_dim, config.encoder_attention_heads, config.d_model), (16, 3, 24));
    let checkpoint = file("bert/model.safetensors").rename(LdmBertModel::canonical_name);
    let model = load(checkpoint, |w| LdmBertModel::new(w, &config));
    let ids = tensor("bert.ids");
    same("bert", &model.forward(&ids), "bert.output");
    same("bert of fewer tokens", &model.forward(&ids.narrow(1, 0, 4)), "bert.short");
}

#[test]
fn bert_of_an_original_checkpoint_is_the_reference() {
    let params: BertEmbedderParams = read("original-bert.json");
    assert!(!params.use_tokenizer);
    let config = LdmBertConfig::from(&params);
    config.check().expect("supported");
    let checkpoint = file("original-bert.safetensors").map_names(|name, _| bert::original(bert::PREFIX, name));
    let model = load(checkpoint, |w| LdmBertModel::new(w, &config));
    same("original bert", &model.forward(&tensor("original-bert.ids")), "original-bert.output");
}

#[test]
fn bert_configurations_are_checked_and_have_the_originals_defaults() {
    let large: BertEmbedderParams = serde_json::from_str(r#"{"n_embed": 1280, "n_layer": 32}"#).expect("params");
    assert!(large.use_tokenizer);
    assert_eq!(LdmBertConfig::from(&large), LdmBertConfig::default());
    let refused = [
        (r#"{"activation_function": "relu"}"#, "activation_function"),
        (r#"{"scale_embedding": true}"#, "scale_embedding"),
        (r#"{"encoder_layers": 0}"#, "encoder_layers"),
        (r#"{"d_model": -1}"#, "d_model"),
        (r#"{"vocab_size": 99999999999}"#, "vocab_size"),
    ];
    for (json, key) in refused {
        let config: LdmBertConfig = serde_json::from_str(json).expect("JSON");
        let message = config.check().expect_err(json).to_string();
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn names_that_bert_does_not_have_show_in_the_report() {
    let name = |name: &str| bert::original(bert::PREFIX, name);
    let kept = |name: &str| Mapped::As(name.to_owned());
    assert_eq!(
        name("cond_stage_model.transformer.attn_layers.layers.6.1.to_q.weight"),
        kept("model.layers.3.self_attn.q_proj.weight")
    );
    assert_eq!(name("cond_stage_model.transformer.attn_layers.layers.7.1.net.0.0.bias"), kept("model.layers.3.fc1.bias"));
    assert_eq!(name("cond_stage_model.transformer.attn_layers.layers.7.2.x"), kept("model.attn_layers.layers.7.2.x"));
    assert_eq!(name("cond_stage_model.transformer.to_logits.bias"), Mapped::Drop);
    assert_eq!(name("first_stage_model.transformer.norm.bias"), Mapped::Drop);
}

#[test]
fn text_encoders_are_the_reference_at_every_readout() {
    for name in ["clip-quick", "clip-gelu", "clip-projected", "clip-projected-first"] {
        let config = ClipTextConfig::read(&directory().join(name).join("config.json")).expect("the configuration");
        assert_eq!(config.has_projection(), name.contains("projected"));
        let checkpoint = file(&format!("{name}/model.safetensors")).rename(ClipTextModel::canonical_name);
        let model = load(checkpoint, |w| ClipTextModel::new(w, &config));
        let ids = tensor(&format!("{name}.ids"));
        let skipped = Readout::LAST.skipping(1);
        assert_eq!(skipped, Readout { layer: 2, normed: true });
        let readouts = [
            ("last", Readout::LAST),
            ("penultimate", Readout::PENULTIMATE),
            ("penultimate_normed", skipped),
            ("third", Readout::PENULTIMATE.skipping(1)),
        ];
        for (golden, readout) in readouts {
            config.check_readout(readout).expect("deep enough");
            let golden = format!("{name}.{golden}");
            same(&golden, &model.encode(&ids, &[], readout, Kind::Float), &golden);
            let (hidden, pooled) = model.encode_pooled(&ids, &[], readout, Kind::Float);
            same(&golden, &hidden, &golden);
            same(&format!("{name} pooled"), &pooled, &format!("{name}.pooled"));
        }
        same(name, &model.forward(&ids), &format!("{name}.last"));
        for layer in [0, -1, config.num_hidden_layers + 1, i64::MAX] {
            let message = config.check_readout(Readout { layer, normed: true }).expect_err("refused").to_string();
            assert!(message.contains("clip_skip"), "{message}");
        }
    }
}

/// The tiny tower of the goldens.
fn tiny(layers: i64) -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: 100,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: layers,
        num_attention_heads: 4,
        max_position_embeddings: 16,
        ..ClipTextConfig::vit_h14()
    }
}

#[test]
fn stable_diffusion_2_files_are_understood() {
    let config = tiny(3);
    let checkpoint = file("sd2.safetensors").map_names(|name, _| clip::open_clip(clip::SD2, &config, name));
    let model = load(checkpoint, |w| ClipTextModel::new(w, &config));
    same("sd2", &model.forward(&tensor("sd2.ids")), "sd2.output");
}

#[test]
fn sdxl_files_are_understood() {
    let config =
        ClipTextConfig { projection_dim: Some(24), architectures: ClipTextConfig::vit_bigg14().architectures, ..tiny(4) };
    let checkpoint = file("sdxl.safetensors").map_names(|name, _| clip::open_clip(clip::SDXL_G, &config, name));
    let model = load(checkpoint, |w| ClipTextModel::new(w, &config));
    let ids = tensor("sdxl.ids");
    let (hidden, pooled) = model.encode_pooled(&ids, &[], Readout::PENULTIMATE, Kind::Float);
    same("sdxl second", &hidden, "sdxl.penultimate");
    same("sdxl pooled", &pooled, "sdxl.pooled");

    let config = ClipTextConfig { hidden_act: "quick_gelu".into(), ..tiny(3) };
    let checkpoint = file("sdxl.safetensors").map_names(|name, _| clip::transformers(clip::SDXL_L, name));
    let model = load(checkpoint, |w| ClipTextModel::new(w, &config));
    same("sdxl first", &model.encode(&ids, &[], Readout::PENULTIMATE, Kind::Float), "sdxl.first");
}

#[test]
fn names_that_open_clip_does_not_have_show_in_the_report() {
    let config = tiny(3);
    let name = |name: &str| clip::open_clip("", &config, name);
    assert_eq!(name("transformer.resblocks.3.ln_1.bias"), Mapped::Drop);
    assert_eq!(
        name("transformer.resblocks.2.attn.q_norm.weight"),
        Mapped::As("text_model.encoder.layers.2.attn.q_norm.weight".into())
    );
    assert_eq!(name("transformer.resblocks.x.ln_1.bias"), Mapped::As("text_model.transformer.resblocks.x.ln_1.bias".into()));
    assert_eq!(name("cls_emb"), Mapped::As("text_model.cls_emb".into()));
    for dropped in ["logit_scale", "attn_mask", "text_projection", "text_projection.weight", "visual.proj"] {
        assert_eq!(name(dropped), Mapped::Drop);
    }
    let config = ClipTextConfig::vit_bigg14();
    let linear = Mapped::As("text_projection.weight".into());
    assert_eq!(clip::open_clip("", &config, "text_projection.weight"), linear);
}

/// Parameters of what `build` builds.
fn size(build: impl FnOnce(&Weights)) -> u64 {
    let weights = Weights::shapes();
    build(&weights);
    weights.finish().expect("shapes always fit").parameters
}

#[test]
fn published_text_encoders_have_the_published_number_of_parameters() {
    let clip = |config: ClipTextConfig| {
        config.check().expect("supported");
        size(|w| _ = ClipTextModel::new(w, &config))
    };
    assert_eq!(clip(ClipTextConfig::vit_l14()), 123_060_480);
    assert_eq!(clip(ClipTextConfig::vit_h14()), 340_387_840);
    assert_eq!(clip(ClipTextConfig::vit_bigg14()), 694_659_840);

    // As many tensors as SDXL's file has, here with little in them.
    let small = ClipTextConfig {
        vocab_size: 4,
        hidden_size: 4,
        intermediate_size: 4,
        num_attention_heads: 2,
        projection_dim: Some(4),
        ..ClipTextConfig::vit_bigg14()
    };
    let weights = Weights::fresh(Device::Cpu);
    ClipTextModel::new(&weights, &small);
    assert_eq!(weights.into_variables().iter().count(), 517);

    // Published with the output layer over the vocabulary, which is not built.
    let bert = |n_embed: i64, n_layer, vocab_size, max_seq_len| {
        let params = BertEmbedderParams { n_embed, n_layer, vocab_size, max_seq_len, use_tokenizer: true };
        size(|w| _ = LdmBertModel::new(w, &LdmBertConfig::from(&params))) + (vocab_size * (n_embed + 1)) as u64
    };
    assert_eq!(bert(1280, 32, 30522, 77), 581_994_042);
    assert_eq!(bert(640, 32, 30522, 77), 186_154_682);
    assert_eq!(bert(512, 16, 8192, 92), 58_858_496);
}

#[test]
fn classes_are_the_reference() {
    let config: ClassEmbedderConfig = serde_json::from_str(r#"{"embed_dim": 24, "n_classes": 11}"#).expect("params");
    let checkpoint = file("class.safetensors").rename(|name| name.strip_prefix("cond_stage_model.").map(str::to_owned));
    let model = load(checkpoint, |w| ClassEmbedder::new(w, &config));
    same("classes", &model.forward(&tensor("class.ids")), "class.output");
    let config: ClassEmbedderConfig = serde_json::from_str(r#"{"embed_dim": 512}"#).expect("params");
    assert_eq!(config.n_classes, 1000);
}

#[test]
fn rescaled_maps_are_the_reference() {
    let config: SpatialRescalerConfig =
        serde_json::from_str(r#"{"n_stages": 2, "in_channels": 7, "out_channels": 3}"#).expect("params");
    config.check().expect("supported");
    let checkpoint = file("rescaler.safetensors").rename(|name| name.strip_prefix("cond_stage_model.").map(str::to_owned));
    let model = load(checkpoint, |w| SpatialRescaler::new(w, &config));
    for size in ["even", "odd"] {
        let planes = one_hot(&tensor(&format!("rescaler.{size}.labels")), 7, Kind::Float);
        same(&format!("rescaler {size}"), &model.forward(&planes), &format!("rescaler.{size}.output"));
    }
    let plain = SpatialRescaler::new(&Weights::shapes(), &SpatialRescalerConfig::default());
    same("rescaler plain", &plain.forward(&tensor("rescaler.plain.x")), "rescaler.plain.output");

    for (json, key) in [
        (r#"{"method": "bicubic"}"#, "method"),
        (r#"{"n_stages": 9}"#, "n_stages"),
        (r#"{"multiplier": 0}"#, "multiplier"),
        (r#"{"out_channels": 0}"#, "out_channels"),
    ] {
        let config: SpatialRescalerConfig = serde_json::from_str(json).expect("JSON");
        assert!(config.check().expect_err(json).to_string().contains(key));
    }
}

#[test]
fn numbers_as_vectors_are_the_reference() {
    let scales = tensor("guidance.256.scales");
    // The last place of a frequency, which vector units of processors round differently, times the number of radians.
    let tolerance = |radians: &Tensor| radians.abs().max().double_value(&[]) * f64::from(f32::EPSILON);
    for width in [256, 9] {
        let golden = format!("guidance.{width}.output");
        within(&golden, &guidance_sinusoids(&scales, width), &golden, tolerance(&(&scales * 1000.)));
    }
    let numbers = tensor("sinusoids.numbers");
    let expected = sinusoids(&numbers, 256, true, 0.);
    within("sinusoids", &expected, "sinusoids.output", tolerance(&numbers));
    same("normalised", &vectors::normalised(&tensor("normalised.x")), "normalised.output");
    let none = Tensor::zeros([1, 2, 4], (Kind::Float, Device::Cpu));
    assert_eq!(vectors::normalised(&none), none);

    let sizes = Sizes { original: [1024., 768.], crop: [0., 13.], target: [1536., 640.] };
    let pooled = Tensor::from_slice(&[1f32, -2., 3., -4.]).view([2, 2]);
    for (numbers, rows) in [(sizes.base().to_vec(), vec![0, 1, 2, 3, 4, 5]), (sizes.refiner(2.5).to_vec(), vec![0, 1, 2, 3, 6])] {
        let vector = vectors::sdxl_vector(&pooled, &numbers);
        let sinusoids = expected.index_select(0, &Tensor::from_slice(&rows)).view([1, -1]).expand([2, -1], false);
        assert_eq!(vector, Tensor::cat(&[pooled.shallow_clone(), sinusoids], 1));
    }
}

#[derive(Deserialize)]
struct LayoutGolden {
    config: LayoutConfig,
    objects: Vec<LayoutObject>,
    crop: Option<[f64; 4]>,
    tokens: Vec<i64>,
}

#[test]
fn layouts_have_the_references_tokens() {
    let goldens: Vec<LayoutGolden> = read("layouts.json");
    assert_eq!(goldens.len(), 8);
    for (case, golden) in goldens.iter().enumerate() {
        let tokens = golden.config.tokens(&golden.objects, golden.crop).expect("tokens");
        assert_eq!(tokens, golden.tokens, "case {case}");
        assert_eq!(tokens.len(), golden.config.length());
    }
    let empty = LayoutConfig::openimages(352).tokens(&[], None).expect("tokens");
    assert_eq!((empty.len(), empty[0], &empty[90..]), (92, 8191, [0, 8099].as_slice()));
}

#[test]
fn layouts_beyond_the_limits_are_refused_by_name() {
    let config = LayoutConfig::openimages(352);
    let object = |bbox: [f64; 4]| LayoutObject { bbox, ..LayoutObject::default() };
    let whole = object([0., 0., 1., 1.]);
    let message = |objects: &[LayoutObject], crop| config.tokens(objects, crop).expect_err("refused").to_string();
    assert!(message(&vec![whole.clone(); 31], None).contains("31 objects, more than 30"));
    for category in [-1, 352, i64::MAX] {
        let bad = LayoutObject { category, ..whole.clone() };
        let message = message(&[whole.clone(), bad], None);
        assert!(message.contains("object 1") && message.contains(&category.to_string()) && message.contains("351"), "{message}");
    }
    for bbox in [
        [-0.1, 0., 0.5, 0.5],
        [0., 0.6, 0.5, 0.5],
        [0., 0., 0., 0.5],
        [0., 0., 0.5, -0.5],
        [1., 0., 0.1, 0.5],
        [f64::NAN, 0., 0.5, 0.5],
        [0., 0., f64::INFINITY, 0.5],
    ] {
        assert!(message(&[object(bbox)], None).contains("object 0"), "{bbox:?}");
        assert!(message(std::slice::from_ref(&whole), Some(bbox)).contains("crop"), "{bbox:?}");
    }
    // What rounding does to x + width is no mistake.
    assert!(config.tokens(&[object([0.1, 0.7, 0.9, 0.3 + 1e-9])], None).is_ok());
    let many = LayoutConfig::openimages(1000);
    let last = LayoutObject { category: 999, is_inside: true, bbox: whole.bbox, ..LayoutObject::default() };
    assert_eq!(many.tokens(&[last], None), Err(LayoutError::Token { index: 0, token: 8999, last: 8190 }));
    let key = |config: LayoutConfig| config.tokens(&[], None).expect_err("refused").to_string();
    assert!(key(LayoutConfig::openimages(0)).contains("no_object_classes"));
    assert!(key(LayoutConfig { no_tokens: 8, ..config.clone() }).contains("no_tokens"));
    assert!(key(LayoutConfig { no_max_objects: 10_001, ..config.clone() }).contains("no_max_objects"));
}

#[derive(Deserialize)]
struct TokensGolden {
    text: String,
    ids: Vec<i64>,
    cut: usize,
}

#[test]
fn bert_tokens_are_the_reference() {
    let goldens: Vec<TokensGolden> = read("bert-tokens.json");
    let mut wrong = Vec::new();
    for dir in ["bert-tokenizer", "bert-tokenizer-json"] {
        let tokenizer = BertTokenizer::read(&directory().join(dir), 77).expect("the tokenizer");
        assert_eq!(tokenizer.length(), 77);
        for golden in &goldens {
            let tokens = tokenizer.encode(&golden.text).expect("every text has tokens");
            if tokens.ids != golden.ids || tokens.cut != golden.cut {
                wrong.push(format!("{dir} {:?}:\n  found {:?}\n  not   {:?}", golden.text, tokens.ids, golden.ids));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bert_tokenizers_that_cannot_be_read_are_named() {
    let message = |dir: PathBuf, positions| BertTokenizer::read(&dir, positions).expect_err("refused").to_string();
    let dir = scratch("bert-empty");
    assert!(message(dir.clone(), 77).contains("vocab.txt"));
    std::fs::write(dir.join("tokenizer.json"), "{}").expect("a file");
    assert!(message(dir.clone(), 77).contains("tokenizer.json"));
    std::fs::write(dir.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\ncat\n").expect("a file");
    assert!(message(dir.clone(), 77).contains("[SEP]"));
    std::fs::write(dir.join("vocab.txt"), b"[PAD]\n\xff\n").expect("a file");
    assert!(message(dir.clone(), 77).contains("vocab.txt"));
    assert!(message(directory().join("bert-tokenizer"), 2).contains("2 tokens"));
}
