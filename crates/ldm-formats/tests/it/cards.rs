//! Cards and sidecars: every card is read, says what its sidecar says, and describes networks of the size that was measured.

use std::collections::BTreeSet;
use std::path::Path;

use ldm_formats::card::{
    BUILTIN, Card, CardError, ConditioningKey, Ema, Model, Parameterization, Rounding, Scale, Sidecar, Task, builtin, builtins,
    differences,
};
use ldm_formats::expect;

use super::golden;

#[test]
fn every_card_is_registered_and_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/models");
    let files: BTreeSet<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let registered: BTreeSet<String> = BUILTIN.iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(files, registered);
    for (card, (name, _)) in builtins().unwrap().iter().zip(BUILTIN) {
        assert_eq!(card.name, *name);
        assert!(!card.serving.tasks.is_empty(), "{name}");
    }
}

#[test]
fn cards_say_what_published_sidecars_say() {
    let mut compared = 0;
    for card in builtins().unwrap() {
        let path = golden("sidecars").join(format!("{}.yaml", card.name));
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let lowered = Card::from_yaml(&card.name, &text).unwrap_or_else(|error| panic!("{}: {error}", card.name));
        assert_eq!(differences(&card.model, &lowered.model), [], "{}", card.name);
        assert_eq!(card.model, lowered.model, "{}", card.name);
        // What follows from a sidecar alone may be more (the refiner is for img2img only) or less, never something else.
        assert!(card.serving.tasks.iter().any(|task| lowered.serving.tasks.contains(task)), "{}", card.name);
        compared += 1;
    }
    let sidecars = std::fs::read_dir(golden("sidecars")).unwrap().count();
    assert_eq!((compared, sidecars), (33, 33), "every sidecar has a card");
}

/// Numbers and tensors of the denoiser, as measured on the original classes (docs, table of models).
const DENOISERS: [(&str, f64, usize); 20] = [
    ("celeba256", 274.056, 368),
    ("lsun_churches256", 294.967, 520),
    ("cin256", 394.984, 626),
    ("cin256-v2", 400.921, 688),
    ("text2img256", 403.624, 688),
    ("text2img-large", 872.300, 686),
    ("bsr_sr", 113.623, 306),
    ("inpainting_big", 387.246, 416),
    ("layout2img-openimages256", 246.277, 1328),
    ("semantic_synthesis256", 215.229, 216),
    ("rdm768", 1335.480, 688),
    ("sd-v1", 859.521, 686),
    ("sd-v1-inpainting", 859.535, 686),
    ("sd-v2-base", 865.911, 686),
    ("sd-v2-inpainting", 865.925, 686),
    ("sd-v2-depth", 865.914, 686),
    ("sd-v21-unclip-h", 870.173, 690),
    ("sd-x4-upscaler", 473.398, 687),
    ("sdxl-base", 2567.464, 1680),
    ("sdxl-refiner", 2259.527, 1220),
];

const FIRST_STAGES: [(&str, f64, usize); 10] = [
    ("kl-f4", 55.312, 204),
    ("kl-f8", 83.654, 248),
    ("kl-f16", 69.611, 342),
    ("kl-f32", 103.880, 436),
    ("vq-f4", 55.323, 205),
    ("vq-f4-noattn", 53.219, 185),
    ("vq-f8", 67.717, 299),
    ("vq-f8-n256", 67.653, 299),
    ("vq-f16", 69.593, 343),
    ("taesd", 2.445, 134),
];

fn counted(expected: &expect::Expected) -> (u64, usize) {
    (expected.iter().map(|(_, shape)| shape.iter().product::<u64>()).sum(), expected.len())
}

#[test]
fn networks_have_the_measured_sizes() {
    let near = |found: (u64, usize), millions: f64, keys: usize, name: &str| {
        assert_eq!(found.1, keys, "{name}");
        assert!((found.0 as f64 / 1e6 - millions).abs() < 6e-4, "{name}: {} numbers, not {millions} M", found.0);
    };
    for (name, millions, keys) in DENOISERS {
        let card = builtin(name).unwrap();
        near(counted(&expect::unet(&card.model.diffusion().unwrap().unet)), millions, keys, name);
    }
    for (name, millions, keys) in FIRST_STAGES {
        near(counted(&expect::first_stage(builtin(name).unwrap().model.first_stage())), millions, keys, name);
    }
    let lcm = builtin("lcm-sd15").unwrap();
    near(counted(&expect::unet(&lcm.model.diffusion().unwrap().unet)), 859.603, 687, "lcm-sd15");
}

/// How many, and FNV-1a of the lines `name [shape]` in order of names, as `tools/goldens/formats.py` has it.
fn fingerprint(expected: &[(String, Vec<u64>)]) -> serde_json::Value {
    let lines: BTreeSet<(&String, &Vec<u64>)> = expected.iter().map(|(name, shape)| (name, shape)).collect();
    let bytes = lines.iter().flat_map(|(name, shape)| format!("{name} {shape:?}\n").into_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    serde_json::json!({ "tensors": expected.len(), "hash": format!("{hash:016x}") })
}

#[test]
fn names_and_shapes_are_those_of_the_original_classes() {
    let text = std::fs::read_to_string(golden("names.json")).unwrap();
    let golden: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 33);
    for (name, parts) in golden {
        let card = builtin(&name).unwrap();
        let mut coders = expect::first_stage(card.model.first_stage());
        coders.retain(|(name, _)| name.starts_with("encoder.") || name.starts_with("decoder."));
        assert_eq!(fingerprint(&coders), parts["coders"], "{name}");
        if let Some(model) = card.model.diffusion() {
            assert_eq!(fingerprint(&expect::unet(&model.unet)), parts["unet"], "{name}");
        }
    }
}

#[test]
fn no_two_parameters_share_an_averaged_name() {
    for card in builtins().unwrap() {
        let Some(model) = card.model.diffusion() else { continue };
        let names = expect::unet(&model.unet);
        let averaged: BTreeSet<String> = names.iter().map(|(name, _)| expect::ema_name(name)).collect();
        assert_eq!(averaged.len(), names.len(), "{}", card.name);
    }
    assert_eq!(expect::ema_name("input_blocks.0.0.weight"), "model_ema.diffusion_modelinput_blocks00weight");
}

#[test]
fn what_shapes_cannot_say_stands_in_the_cards() {
    let diffusion = |name: &str| *match builtin(name).unwrap().model {
        Model::Diffusion(diffusion) => diffusion,
        Model::FirstStage(_) => panic!("{name}"),
    };
    assert_eq!(diffusion("lsun_churches256").scale, Scale::Checkpoint);
    assert_eq!(diffusion("rdm768").scale, Scale::Fixed(0.22765929));
    assert_eq!(diffusion("cin256-v2").unet.num_heads, Some(1));
    assert_eq!(diffusion("celeba256").conditioning_key, ConditioningKey::None);
    assert_eq!(diffusion("bsr_sr").conditioning_key, ConditioningKey::Concat);
    assert_eq!(diffusion("inpainting_big").concat, ["masked_image", "mask"]);
    assert_eq!(diffusion("sd-v1-inpainting").concat, ["mask", "masked_image"]);
    assert_eq!(diffusion("sd-v2-768-v").parameterization, Parameterization::V);
    assert_eq!(diffusion("sd-v2-base").parameterization, Parameterization::Eps);
    assert_eq!((diffusion("cin256").ema, diffusion("cin256-v2").ema), (Ema::Averaged, Ema::Plain));
    let cin = builtin("cin256-v2").unwrap().serving;
    assert_eq!((cin.unconditional_class, cin.tasks, cin.rounding), (Some(1000), vec![Task::Class], Rounding::Truncate));
    assert_eq!(diffusion("inpainting_big").size_multiple(), 32);
    assert_eq!(diffusion("lsun_churches256").size_multiple(), 128);
}

fn changed(name: &str, from: &str, to: &str) -> CardError {
    let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name).unwrap();
    assert!(text.contains(from), "{from}");
    Card::from_toml(&text.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn keys_that_are_not_known_name_the_nearest() {
    let cases = [
        ("num_head_channels = 32", "num_head_chanels = 32", "card.unet.num_heads: exactly one"),
        ("num_res_blocks = 2\nchannel_mult", "num_res_block = 2\nchannel_mult", "card.unet.num_res_blocks is missing"),
        (
            "[unet]\n",
            "[unet]\nuse_scale_shift = true\n",
            "card.unet.use_scale_shift is not known; did you mean use_scale_shift_norm?",
        ),
        ("[unet]\n", "[unet]\nfrobnicate = true\n", "card.unet.frobnicate is not known"),
        ("tasks =", "task =", "card.tasks is missing"),
        (
            "rounding = \"truncate\"",
            "rounding = \"truncate\"\nroundings = 1",
            "card.roundings is not known; did you mean rounding?",
        ),
        (
            "ddconfig]\n",
            "ddconfig]\nattn_typ = \"none\"\n",
            "card.first_stage.ddconfig.attn_typ is not known; did you mean attn_type?",
        ),
        ("[schedule]\n", "[schedule]\nlinear_stop = 1\n", "card.schedule.linear_stop is not known; did you mean linear_start?"),
        ("n_classes", "classes", "card.conditioner[0].n_classes is missing"),
        ("embed_dim = 512", "embed_dim = 512\nembed = 1", "card.conditioner[0].embed is not known; did you mean embed_dim?"),
    ];
    for (from, to, expected) in cases {
        let error = changed("cin256", from, to).to_string();
        assert!(error.starts_with(expected), "{error}\nis not {expected}");
    }
    let error = builtin("cin256v2").unwrap_err().to_string();
    assert_eq!(error, "models.cin256v2 is not known; did you mean cin256-v2?");
}

#[test]
fn values_that_cannot_be_are_named() {
    let cases = [
        (
            "num_head_channels = 32",
            "num_head_channels = 48",
            "card.unet.num_head_channels: 48 does not divide the 256 channels of level 0",
        ),
        ("channel_mult = [1, 2, 4]", "channel_mult = []", "card.unet.channel_mult: [] is not a list of 1 to 8 numbers"),
        ("model_channels = 256", "model_channels = 4294967295", "card.unet.model_channels: 4294967295 is not 1 to 1048576"),
        ("model_channels = 256", "model_channels = \"wide\"", "card.unet.model_channels: \"wide\": invalid type"),
        ("context_dim = 512", "", "card.unet.context_dim: a context and use_spatial_transformer go together"),
        ("channels = 4", "channels = 3", "card.channels: 3, but the first stage has 4 and the UNet gives 4"),
        ("in_channels = 4", "in_channels = 7", "card.concat: [] does not go with 7 channels"),
        ("scale_factor = 1.0", "scale_factor = \"much\"", "card.scale_factor: it is a number, or \"checkpoint\""),
        ("scale_factor = 1.0", "scale_factor = -1.0", "card.scale_factor: -1 is not positive"),
        ("linear_end = 0.0195", "linear_end = 0.0001", "card.schedule: Schedule {"),
        ("double_z = false", "double_z = true", "card.first_stage.ddconfig.double_z: true in a vq first stage"),
        ("size_multiple = 32", "size_multiple = 8", "card.size_multiple: 8 is no multiple of 32"),
        ("width = 256", "width = 250", "card.defaults: 250×256"),
        ("kind = \"class\"", "kind = \"clas\"", "card.conditioner[0].kind: \"clas\" is no kind of conditioner"),
        ("parameterization = \"eps\"", "parameterization = \"epsilon\"", "card.parameterization: \"epsilon\": unknown variant"),
    ];
    for (from, to, expected) in cases {
        let error = changed("cin256", from, to).to_string();
        assert!(error.starts_with(expected), "{error}\nis not {expected}");
    }
    assert!(matches!(Card::from_toml("name = "), Err(CardError::Syntax(_))));
}

/// A sidecar as people write them: comments, flow style, anchors, capitals, exponents.
const WRITTEN: &str = r#"
model: &model   # the model
  base_learning_rate: 1.e-4
  target: "ldm.models.diffusion.ddpm.LatentDiffusion"
  params:
    linear_start: 15e-4
    linear_end: .0195
    timesteps: 1000
    cond_stage_key: class_label
    image_size: 64
    channels: 3
    conditioning_key: crossattn
    use_ema: False
    scheduler_config: {target: x, params: {warm_up_steps: [ 10000 ], f_start: [ 1.e-6 ]}}
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: { image_size: 64, in_channels: 3, out_channels: 3, model_channels: 192, attention_resolutions: [8, 4, 2],
                num_res_blocks: 2, channel_mult: [1, 2, 3, 5], num_heads: 1, num_head_channels: -1, use_spatial_transformer: True,
                transformer_depth: 1, context_dim: 512, legacy: False }
    first_stage_config:
      target: ldm.models.autoencoder.VQModelInterface
      params:
        embed_dim: 3
        n_embed: 8192
        ckpt_path: null
        ddconfig: { double_z: no, z_channels: 3, resolution: 256, in_channels: 3, out_ch: 3, ch: 128, ch_mult: [1, 2, 4],
                    num_res_blocks: 2, attn_resolutions: [ ], dropout: 0.0 }
        lossconfig: {target: torch.nn.Identity}
    cond_stage_config:
      target: ldm.modules.encoders.modules.ClassEmbedder
      params: {n_classes: 1001, embed_dim: 512, key: class_label}
data: {anything: [*model]}
"#;

#[test]
fn sidecars_are_read_as_people_write_them() {
    let yaml = WRITTEN.replace("double_z: no", "double_z: false");
    let card = Card::from_yaml("mine", &yaml).unwrap();
    assert_eq!(card.model, builtin("cin256-v2").unwrap().model);
    assert_eq!(card.serving.tasks, [Task::Class]);
    assert_eq!(card.serving.defaults.unwrap().width, 256);
    let sidecar = Sidecar::from_yaml(&yaml).unwrap();
    assert_eq!(sidecar.model.params["unet_config"]["params"]["context_dim"], 512);
}

#[test]
fn sidecars_that_are_not_understood_say_where() {
    let yaml = WRITTEN.replace("double_z: no", "double_z: false");
    let of = |from: &str, to: &str| {
        assert!(yaml.contains(from), "{from}");
        Card::from_yaml("mine", &yaml.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let cases = [
        ("linear_start", "linear_strat", "model.params.linear_strat is not known; did you mean linear_start?"),
        ("use_ema", "use_emma", "model.params.use_emma is not known; did you mean use_ema?"),
        (
            "LatentDiffusion\"",
            "LatentDiffusionXL\"",
            "model.target: the class ldm.models.diffusion.ddpm.LatentDiffusionXL is not known",
        ),
        ("modules.ClassEmbedder", "modules.FrozenT5Embedder", "model.params.cond_stage_config.target: the class ldm"),
        ("UNetModel", "EncoderUNetModel", "model.params.unet_config.target: the class"),
        ("num_heads: 1", "num_heads: 7", "model.params.unet_config.params.num_heads: 7 does not divide the 384 channels"),
        (
            "legacy: False",
            "legacy: False, num_attention_blocks: [1]",
            "model.params.unet_config.params.num_attention_blocks is not known",
        ),
        ("crossattn", "attention", "model.params.conditioning_key: \"attention\": unknown variant"),
        ("channels: 3\n", "channels: 4\n", "model.params.channels: 4, but the first stage has 3"),
        ("data:", "dta:", "sidecar.dta is not known; did you mean data?"),
        ("model: &model", "modell: &model", "sidecar.model is missing"),
    ];
    for (from, to, expected) in cases {
        let error = of(from, to);
        assert!(error.starts_with(expected), "{error}\nis not {expected}");
    }
    assert!(matches!(Card::from_yaml("mine", "a: [1"), Err(CardError::Syntax(_))));
    assert!(matches!(Card::from_yaml("mine", &" ".repeat(2 << 20)), Err(CardError::Syntax(_))));
    // Billion laughs by aliases.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{inner}]\n");
    }
    let start = std::time::Instant::now();
    assert!(matches!(Card::from_yaml("mine", &bomb), Err(CardError::Syntax(_))));
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}
