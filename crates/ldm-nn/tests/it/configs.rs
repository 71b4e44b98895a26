//! Configurations: what is not supported is refused by name, and published ones have the published number of parameters.

use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, ClipTextConfig, ClipTextModel, ConfigError, UNet2DCondition, UNet2DConditionConfig,
    Weights,
};
use serde_json::{Value, json};

use crate::goldens::{directory, scratch};

/// What reading the tiny model's configuration says once `key` is `value`.
fn with(module: &str, key: &str, value: &Value) -> Result<(), ConfigError> {
    let source = directory().join("tiny-sd").join(module).join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(source).expect("a file")).expect("JSON");
    config[key] = value.clone();
    let path = scratch(&format!("config-{module}-{key}")).join("config.json");
    std::fs::write(&path, config.to_string()).expect("a file");
    match module {
        "unet" => UNet2DConditionConfig::read(&path).map(drop),
        "vae" => AutoencoderKlConfig::read(&path).map(drop),
        _ => ClipTextConfig::read(&path).map(drop),
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = [
        ("unet", "down_block_types", json!(["SimpleCrossAttnDownBlock2D", "DownBlock2D"])),
        ("unet", "down_block_types", json!(["DownBlock2D"])),
        ("unet", "up_block_types", json!(["UpBlock2D", "SkipUpBlock2D"])),
        ("unet", "only_cross_attention", json!([true])),
        ("unet", "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("unet", "mid_block_type", json!(null)),
        ("unet", "block_out_channels", json!([32, 44])),
        ("unet", "norm_num_groups", json!(0)),
        ("unet", "attention_head_dim", json!([4, 4, 4])),
        ("unet", "num_attention_heads", json!([4])),
        ("unet", "transformer_layers_per_block", json!([1, 1, 1])),
        ("unet", "act_fn", json!("mish")),
        ("unet", "center_input_sample", json!(true)),
        ("unet", "dual_cross_attention", json!(true)),
        ("unet", "mid_block_only_cross_attention", json!(true)),
        ("unet", "class_embed_type", json!("learned")),
        ("unet", "addition_embed_type", json!("text_time")),
        ("unet", "addition_embed_type", json!("text")),
        ("unet", "encoder_hid_dim", json!(1024)),
        ("unet", "encoder_hid_dim_type", json!("text_proj")),
        ("unet", "time_embedding_type", json!("fourier")),
        ("unet", "time_embedding_dim", json!(512)),
        ("unet", "time_embedding_act_fn", json!("gelu")),
        ("unet", "timestep_post_act", json!("silu")),
        ("unet", "resnet_time_scale_shift", json!("ada_group")),
        ("unet", "resnet_skip_time_act", json!(true)),
        ("unet", "resnet_out_scale_factor", json!(1.4)),
        ("unet", "cross_attention_norm", json!("group_norm")),
        ("unet", "attention_type", json!("gated")),
        ("unet", "reverse_transformer_layers_per_block", json!([1, 2])),
        ("unet", "mid_block_scale_factor", json!(1.4)),
        ("unet", "downsample_padding", json!(0)),
        ("unet", "conv_in_kernel", json!(1)),
        ("unet", "conv_out_kernel", json!(5)),
        ("vae", "block_out_channels", json!([])),
        ("vae", "block_out_channels", json!([16, 30, 32])),
        ("vae", "down_block_types", json!(["DownEncoderBlock2D", "SkipDownBlock2D", "DownEncoderBlock2D"])),
        ("vae", "up_block_types", json!(["UpDecoderBlock2D", "AttnDownEncoderBlock2D", "UpDecoderBlock2D"])),
        ("vae", "down_block_types", json!(["DownEncoderBlock2D"])),
        ("vae", "up_block_types", json!(["UpDecoderBlock2D", "UpDecoderBlock2D"])),
        ("vae", "layers_per_block", json!(0)),
        ("vae", "latent_channels", json!(-4)),
        ("vae", "latent_channels", json!(i64::MAX)),
        ("vae", "in_channels", json!(0)),
        ("vae", "latents_mean", json!([0.1, 0., 0., 0.])),
        ("vae", "latents_std", json!([1., 1., 1., 1.])),
        ("vae", "act_fn", json!("gelu")),
        ("vae", "shift_factor", json!(0.1)),
        ("vae", "scaling_factor", json!(0)),
        ("text_encoder", "hidden_act", json!("relu")),
        ("text_encoder", "num_attention_heads", json!(5)),
        ("text_encoder", "num_attention_heads", json!(0)),
        ("text_encoder", "max_position_embeddings", json!(2)),
    ];
    let mut wrong = Vec::new();
    for (module, key, value) in refused {
        match with(module, key, &value) {
            Ok(()) => wrong.push(format!("{module} {key} = {value}: taken")),
            Err(error) => {
                // The number of groups is judged by the widths that it must divide.
                let name = if key == "norm_num_groups" { "norm_num_groups" } else { &format!("`{key}`") };
                if !error.to_string().contains(name) {
                    wrong.push(format!("{module} {key} = {value}: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_means_nothing_to_inference_is_taken() {
    let taken = [
        ("unet", "dropout", json!(0.1)),
        ("unet", "upcast_attention", json!(true)),
        ("unet", "act_fn", json!("swish")),
        ("unet", "sample_size", json!(null)),
        ("unet", "num_attention_heads", json!(null)),
        ("unet", "attention_head_dim", json!([4, 4])),
        ("unet", "up_block_types", json!(["UpBlock2D", "AttnUpBlock2D"])),
        ("unet", "only_cross_attention", json!([true, false])),
        ("unet", "class_embed_type", json!("timestep")),
        ("unet", "num_class_embeds", json!(1000)),
        ("unet", "time_cond_proj_dim", json!(256)),
        ("unet", "resnet_time_scale_shift", json!("scale_shift")),
        ("unet", "resnet_out_scale_factor", json!(1)),
        ("unet", "timestep_post_act", json!(null)),
        ("unet", "time_embedding_type", json!("positional")),
        ("unet", "_name_or_path", json!("somewhere")),
        ("vae", "down_block_types", json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"])),
        ("vae", "up_block_types", json!(["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"])),
        ("vae", "shift_factor", json!(null)),
        ("vae", "shift_factor", json!(0.0)),
        ("vae", "latents_mean", json!(null)),
        ("text_encoder", "attention_dropout", json!(0.1)),
    ];
    for (module, key, value) in taken {
        if let Err(error) = with(module, key, &value) {
            panic!("{module} {key} = {value}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let message = |module: &str, key: &str, value: Value| with(module, key, &value).expect_err("refused").to_string();
    // A list where the network takes one number: the place is told.
    assert!(message("unet", "cross_attention_dim", json!([32, 32])).contains("config-unet-cross_attention_dim"));
    assert!(message("unet", "layers_per_block", json!([2, 2])).contains("line"));
    let absent = directory().join("tiny-sd/nowhere/config.json");
    let error = UNet2DConditionConfig::read(&absent).expect_err("refused");
    assert!(matches!(&error, ConfigError::Read { .. }) && error.to_string().contains("nowhere"));
}

#[test]
fn published_models_have_the_published_number_of_parameters() {
    // Counted by diffusers and transformers, and again here so that a change of the files cannot go unnoticed.
    let published = [("sd15", 859_520_964, 123_060_480), ("sd21", 865_910_724, 340_387_840)];
    for (model, denoiser, text_encoder) in published {
        let dir = directory().join(model);
        let counts: Value = serde_json::from_slice(&std::fs::read(dir.join("parameters.json")).expect("a file")).expect("JSON");
        assert_eq!(counts, json!({"unet": denoiser, "vae": 83_653_863, "text_encoder": text_encoder}));

        let weights = Weights::shapes();
        UNet2DCondition::new(&weights, &UNet2DConditionConfig::read(&dir.join("unet.json")).expect("a configuration"));
        assert_eq!(weights.finish().expect("shapes always fit").parameters, denoiser);

        let weights = Weights::shapes();
        AutoencoderKl::new(&weights, &AutoencoderKlConfig::read(&dir.join("vae.json")).expect("a configuration"));
        assert_eq!(weights.finish().expect("shapes always fit").parameters, 83_653_863);

        let weights = Weights::shapes();
        ClipTextModel::new(&weights, &ClipTextConfig::read(&dir.join("text_encoder.json")).expect("a configuration"));
        assert_eq!(weights.finish().expect("shapes always fit").parameters, text_encoder);
    }
}
