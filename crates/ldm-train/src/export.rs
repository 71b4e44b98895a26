//! A trained model as a diffusers directory, float16 safetensors.

use std::path::Path;

use anyhow::Result;
use ldm_nn::{AutoencoderKlConfig, ClipTextConfig, UNet2DConditionConfig};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::config::{DiffusionRun, Prediction};

/// The version of diffusers whose format this is.
const DIFFUSERS: &str = "0.42.1";

type Named = [(String, Tensor)];

fn write(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

fn module(dir: &Path, file: &str, config: &Value, tensors: &Named) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    write(&dir.join("config.json"), config)?;
    ldm_nn::weights::save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Half, &dir.join(file))?;
    Ok(())
}

/// Writes `out/vae`.
pub(crate) fn vae(out: &Path, config: &AutoencoderKlConfig, tensors: &Named) -> Result<()> {
    let value = json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": DIFFUSERS,
        "in_channels": config.in_channels, "out_channels": config.out_channels,
        "down_block_types": config.down_block_types, "up_block_types": config.up_block_types,
        "block_out_channels": config.block_out_channels, "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels, "norm_num_groups": config.norm_num_groups, "act_fn": config.act_fn,
        "sample_size": config.sample_size, "scaling_factor": config.scaling_factor,
        "mid_block_add_attention": config.mid_block_add_attention, "force_upcast": config.force_upcast,
    });
    module(&out.join("vae"), "diffusion_pytorch_model.safetensors", &value, tensors)
}

/// Writes `out/unet`.
pub(crate) fn unet(out: &Path, config: &UNet2DConditionConfig, heads: i64, tensors: &Named) -> Result<()> {
    let value = json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": DIFFUSERS,
        "sample_size": config.sample_size, "in_channels": config.in_channels, "out_channels": config.out_channels,
        "block_out_channels": config.block_out_channels, "layers_per_block": config.layers_per_block,
        "down_block_types": config.down_block_types, "up_block_types": config.up_block_types,
        "mid_block_type": config.mid_block_type, "cross_attention_dim": config.cross_attention_dim,
        "attention_head_dim": heads, "norm_num_groups": config.norm_num_groups, "norm_eps": config.norm_eps,
        "act_fn": config.act_fn, "flip_sin_to_cos": config.flip_sin_to_cos, "freq_shift": config.freq_shift as i64,
        "downsample_padding": config.downsample_padding, "mid_block_scale_factor": config.mid_block_scale_factor as i64,
        "use_linear_projection": config.use_linear_projection,
    });
    module(&out.join("unet"), "diffusion_pytorch_model.safetensors", &value, tensors)
}

/// Writes `out/text_encoder`.
pub(crate) fn text_encoder(out: &Path, config: &ClipTextConfig, tensors: &Named) -> Result<()> {
    let value = json!({
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads,
        "max_position_embeddings": config.max_position_embeddings, "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps, "projection_dim": config.hidden_size,
        "bos_token_id": config.vocab_size - 2, "eos_token_id": config.vocab_size - 1, "pad_token_id": config.vocab_size - 1,
    });
    module(&out.join("text_encoder"), "model.safetensors", &value, tensors)
}

/// Writes what stands around the networks: the scheduler's configuration, the index and the card.
pub(crate) fn index(out: &Path, run: &DiffusionRun, size: usize, factor: i64) -> Result<()> {
    std::fs::create_dir_all(out.join("scheduler"))?;
    let prediction = match run.prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::VPrediction => "v_prediction",
    };
    let scheduler = json!({
        "_class_name": "DDIMScheduler", "_diffusers_version": DIFFUSERS, "num_train_timesteps": 1000,
        "beta_schedule": run.beta_schedule, "beta_start": run.beta_start, "beta_end": run.beta_end,
        "prediction_type": prediction, "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
    });
    write(&out.join("scheduler").join("scheduler_config.json"), &scheduler)?;
    let index = json!({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": DIFFUSERS,
        "feature_extractor": [null, null], "image_encoder": [null, null], "requires_safety_checker": false,
        "safety_checker": [null, null], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    });
    write(&out.join("model_index.json"), &index)?;
    // Sides that are multiples of this keep every level of the denoiser even.
    let multiple = factor << (run.unet.block_out_channels.len() - 1);
    let card = format!(
        "# What servers need to know of this model beyond the networks' own configurations.\n\
         [defaults]\nsampler = \"{}\"\nsteps = {}\nguidance = {:?}\nstrength = 0.6\n\n\
         [sizes]\ndefault = [{size}, {size}]\nmin = {}\nmax = {}\nmultiple = {multiple}\n",
        run.card.sampler,
        run.card.steps,
        run.card.guidance,
        size / 2,
        size * 4,
    );
    std::fs::write(out.join("card.toml"), card)?;
    Ok(())
}
