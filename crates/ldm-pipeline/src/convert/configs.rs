//! Configurations of first stages, text encoders and schedulers as diffusers and transformers write them.

use ldm_nn::conditioners::LdmBertConfig;
use ldm_nn::{ClipTextConfig, FirstStageConfig};
use ldm_sampler::{BetaSchedule, ScheduleConfig, SchedulerConfig};
use serde_json::{Value, json};

use super::compare::plain_stage;

/// The release that what is written here was tried with.
pub(super) const DIFFUSERS: &str = "0.42.1";

/// Both objects in one.
pub(super) fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(map), Value::Object(more)) = (&mut value, more) {
        map.extend(more);
    }
    value
}

/// `vae/config.json`, and the class.
pub(super) fn stage(config: &FirstStageConfig) -> (Value, &'static str) {
    let named = |class: &str, more: Value| with(json!({ "_class_name": class, "_diffusers_version": DIFFUSERS }), more);
    // With every level's type spelled out.
    match (plain_stage(config), config) {
        (FirstStageConfig::Kl(full), FirstStageConfig::Kl(own)) => {
            let value = json!({
                "in_channels": own.in_channels, "out_channels": own.out_channels, "down_block_types": full.down_block_types,
                "up_block_types": full.up_block_types, "block_out_channels": own.block_out_channels,
                "layers_per_block": own.layers_per_block, "act_fn": "silu", "latent_channels": own.latent_channels,
                "norm_num_groups": own.norm_num_groups, "sample_size": own.sample_size, "scaling_factor": own.scaling_factor,
                "force_upcast": own.force_upcast, "use_quant_conv": own.use_quant_conv,
                "use_post_quant_conv": own.use_post_quant_conv, "mid_block_add_attention": own.mid_block_add_attention,
            });
            (named("AutoencoderKL", value), "AutoencoderKL")
        }
        (FirstStageConfig::Vq(full), FirstStageConfig::Vq(own)) => {
            let value = json!({
                "in_channels": own.in_channels, "out_channels": own.out_channels, "down_block_types": full.down_block_types,
                "up_block_types": full.up_block_types, "block_out_channels": own.block_out_channels,
                "layers_per_block": own.layers_per_block, "act_fn": "silu", "latent_channels": own.latent_channels,
                "sample_size": own.sample_size, "num_vq_embeddings": own.num_vq_embeddings, "norm_num_groups": own.norm_num_groups,
                "vq_embed_dim": full.vq_embed_dim, "scaling_factor": own.scaling_factor, "norm_type": "group",
                "mid_block_add_attention": own.mid_block_add_attention, "lookup_from_codebook": false,
                "force_upcast": own.force_upcast,
            });
            (named("VQModel", value), "VQModel")
        }
        (_, FirstStageConfig::Tiny(own)) => {
            let value = json!({
                "in_channels": own.in_channels, "out_channels": own.out_channels,
                "encoder_block_out_channels": own.encoder_block_out_channels,
                "decoder_block_out_channels": own.decoder_block_out_channels, "num_encoder_blocks": own.num_encoder_blocks,
                "num_decoder_blocks": own.num_decoder_blocks, "latent_channels": own.latent_channels, "act_fn": "relu",
                "upsample_fn": "nearest", "upsampling_scaling_factor": 2, "scaling_factor": own.scaling_factor,
                "latent_magnitude": 3, "latent_shift": 0.5, "force_upcast": own.force_upcast,
            });
            (named("AutoencoderTiny", value), "AutoencoderTiny")
        }
        _ => (Value::Null, ""),
    }
}

/// `text_encoder/config.json`, and the class. Marks are the first, the last and the padding's token.
pub(super) fn clip(config: &ClipTextConfig, [begin, end, pad]: [i64; 3]) -> (Value, &'static str) {
    let class = if config.has_projection() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
    let value = json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "projection_dim": config.projection_dim.unwrap_or(config.hidden_size),
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
    });
    (value, class)
}

/// `bert/config.json`.
pub(super) fn bert(config: &LdmBertConfig) -> Value {
    json!({
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "encoder_layers": config.encoder_layers,
        "encoder_ffn_dim": config.encoder_ffn_dim,
        "encoder_attention_heads": config.encoder_attention_heads,
        "head_dim": config.head_dim,
        "d_model": config.d_model,
        "activation_function": config.activation_function,
        "scale_embedding": config.scale_embedding,
        "num_hidden_layers": config.encoder_layers,
        "pad_token_id": 0,
    })
}

fn betas(schedule: &ScheduleConfig) -> Value {
    let name = match schedule.beta_schedule {
        BetaSchedule::Linear => "linear",
        BetaSchedule::ScaledLinear => "scaled_linear",
        BetaSchedule::SquaredcosCapV2 => "squaredcos_cap_v2",
    };
    json!({
        "_diffusers_version": DIFFUSERS,
        "num_train_timesteps": schedule.num_train_timesteps,
        "beta_schedule": name,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "trained_betas": schedule.trained_betas,
    })
}

/// `scheduler/scheduler_config.json`, and the class: that of the sampler that is the model's default, where diffusers has one.
pub(super) fn scheduler(config: &SchedulerConfig, sampler: Option<&str>) -> (Value, &'static str) {
    let class = match sampler {
        Some("plms") => "PNDMScheduler",
        Some("euler") => "EulerDiscreteScheduler",
        Some("euler_a") => "EulerAncestralDiscreteScheduler",
        _ => "DDIMScheduler",
    };
    // CompVis' first timestep is 1, and the last step ends at ᾱ of timestep 0. As in Stable Diffusion 1.5's own file the spacing is
    // left to each scheduler's class, which is how an original file is sampled here by samplers that CompVis does not have.
    let more = json!({
        "_class_name": class,
        "prediction_type": config.prediction.name(),
        "steps_offset": 1,
        "set_alpha_to_one": false,
        "clip_sample": false,
    });
    let own = if class == "PNDMScheduler" { json!({ "skip_prk_steps": true }) } else { json!({}) };
    (with(with(betas(&config.schedule), more), own), class)
}

/// `low_res_scheduler/scheduler_config.json`.
pub(super) fn low_res(schedule: &ScheduleConfig) -> Value {
    let more = json!({ "_class_name": "DDPMScheduler", "prediction_type": "epsilon", "clip_sample": true });
    with(betas(schedule), more)
}
