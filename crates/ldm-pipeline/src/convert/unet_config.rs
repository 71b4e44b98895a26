//! `unet/config.json` of a denoiser, for either of diffusers' classes.

use ldm_nn::unet::{Attention, Labels, Level, Resample, UNet2DConditionConfig, UNet2DModelConfig};
use ldm_nn::{Architecture, ConfigError};
use serde::Serialize;
use serde_json::{Value, json};

use super::compare::plain;
use super::configs::{DIFFUSERS, with};

/// One number when all are the same, as older files have it.
fn same<T: PartialEq + Serialize>(values: &[T]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => json!(first),
        values => json!(values),
    }
}

/// `unet/config.json`, and the class. With `text_time` a vector beside the timestep is SDXL's. The error says what has no form.
pub(super) fn unet(architecture: &Architecture, text_time: bool) -> Result<(Value, &'static str), String> {
    let read = |config: Result<Architecture, ConfigError>| config.map_err(|error| error.to_string());
    let parse = |error: serde_json::Error| error.to_string();
    let (value, class, again) = if architecture.cross_attention_dim > 0 {
        let value = conditioned(architecture, text_time)?;
        let config: UNet2DConditionConfig = serde_json::from_value(value.clone()).map_err(parse)?;
        (value, "UNet2DConditionModel", read(config.architecture())?)
    } else {
        let value = plain_unet(architecture)?;
        let config: UNet2DModelConfig = serde_json::from_value(value.clone()).map_err(parse)?;
        (value, "UNet2DModel", read(config.architecture())?)
    };
    let (wanted, again) = (plain(architecture), plain(&again));
    if wanted != again {
        return Err(format!("{class} would make {again:?} of {wanted:?}"));
    }
    Ok((value, class))
}

/// What both classes have.
fn common(architecture: &Architecture, class: &str) -> Result<Value, String> {
    let levels = &architecture.levels;
    let resnets = levels[0].resnets;
    if levels.iter().any(|level| level.resnets != resnets) {
        return Err("its levels have different numbers of residual blocks, and diffusers knows one".into());
    }
    Ok(json!({
        "_class_name": class,
        "_diffusers_version": DIFFUSERS,
        "sample_size": architecture.sample_size,
        "in_channels": architecture.in_channels,
        "out_channels": architecture.out_channels,
        "block_out_channels": levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
        "layers_per_block": resnets,
        "norm_num_groups": architecture.groups,
        "norm_eps": architecture.eps,
        "act_fn": "silu",
        "center_input_sample": false,
        "flip_sin_to_cos": architecture.flip_sin_to_cos,
        "freq_shift": if architecture.freq_shift == 0. { json!(0) } else { json!(architecture.freq_shift) },
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "resnet_time_scale_shift": if architecture.scale_shift { "scale_shift" } else { "default" },
    }))
}

/// Types of blocks, those of the way up in the order in which they run.
fn types(levels: &[Level], of: impl Fn(&Level, bool) -> Result<&'static str, String>) -> Result<[Vec<&'static str>; 2], String> {
    let down: Result<_, _> = levels.iter().map(|level| of(level, true)).collect();
    let up: Result<_, _> = levels.iter().rev().map(|level| of(level, false)).collect();
    Ok([down?, up?])
}

/// Of `UNet2DConditionModel`.
fn conditioned(architecture: &Architecture, text_time: bool) -> Result<Value, String> {
    let levels = &architecture.levels;
    let last = levels.last().ok_or("it has no levels")?;
    let Attention::Transformer { heads: middle, depth, .. } = architecture.middle else {
        return Err("its middle has no spatial transformer".into());
    };
    let attention = |level: &Level| match level.down.attention {
        Attention::Transformer { heads, depth, self_attention } => Some((heads, depth, self_attention)),
        _ => None,
    };
    // Levels without attention take part in neither; they get what goes with the others.
    let even = levels.iter().filter_map(attention).all(|(heads, ..)| heads == middle);
    let width = last.channels / middle.max(1);
    let heads_without = |level: &Level| if even || level.channels % width != 0 { middle } else { level.channels / width };
    let heads: Vec<i64> = levels.iter().map(|level| attention(level).map_or(heads_without(level), |(heads, ..)| heads)).collect();
    let depths: Vec<i64> = levels.iter().map(|level| attention(level).map_or(depth, |(_, depth, _)| depth)).collect();
    let context_alone: Vec<bool> = levels.iter().map(|level| attention(level).is_some_and(|(.., own)| !own)).collect();
    let [down, up] = types(levels, |level, down| {
        let way = if down { &level.down } else { &level.up };
        match (way.attention, way.resample, down) {
            (Attention::Transformer { .. }, None | Some(Resample::Conv), true) => Ok("CrossAttnDownBlock2D"),
            (Attention::Transformer { .. }, None | Some(Resample::Conv), false) => Ok("CrossAttnUpBlock2D"),
            (Attention::None, None | Some(Resample::Conv), true) => Ok("DownBlock2D"),
            (Attention::None, None | Some(Resample::Conv), false) => Ok("UpBlock2D"),
            (attention, resample, _) => Err(format!("UNet2DConditionModel has no level with {attention:?} and {resample:?}")),
        }
    })?;
    let value = with(common(architecture, "UNet2DConditionModel")?, labels(architecture, text_time)?);
    let own = json!({
        "down_block_types": down,
        "up_block_types": up,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": architecture.cross_attention_dim,
        "attention_head_dim": same(&heads),
        "transformer_layers_per_block": same(&depths),
        "only_cross_attention": same(&context_alone),
        "use_linear_projection": architecture.linear_projection,
        "time_cond_proj_dim": architecture.guidance,
        "dual_cross_attention": false,
    });
    Ok(with(value, own))
}

/// What is embedded beside the timestep.
fn labels(architecture: &Architecture, text_time: bool) -> Result<Value, String> {
    let (mut classes, mut kind, mut width, mut added, mut sinusoids) = (None, None, None, None, None);
    match (architecture.labels, architecture.added) {
        (Labels::None, None) => {}
        (Labels::None, Some(vector)) => {
            (added, width, sinusoids) = (Some("text_time"), Some(vector.width), Some(vector.sinusoids));
        }
        (Labels::Table(count), None) => classes = Some(count),
        (Labels::Sinusoids, None) => kind = Some("timestep"),
        (Labels::Identity, None) => kind = Some("identity"),
        (Labels::Linear(vector), None) => (kind, width) = (Some("simple_projection"), Some(vector)),
        (Labels::Vector(vector), None) if text_time => {
            (added, width, sinusoids) = (Some("text_time"), Some(vector), Some(256));
        }
        (Labels::Vector(vector), None) => (kind, width) = (Some("projection"), Some(vector)),
        (labels, Some(_)) => return Err(format!("{labels:?} beside a vector")),
    }
    Ok(json!({
        "num_class_embeds": classes,
        "class_embed_type": kind,
        "projection_class_embeddings_input_dim": width,
        "addition_embed_type": added,
        "addition_time_embed_dim": sinusoids,
    }))
}

/// Of `UNet2DModel`, whose heads all have one width.
fn plain_unet(architecture: &Architecture) -> Result<Value, String> {
    let levels = &architecture.levels;
    let last = levels.last().ok_or("it has no levels")?;
    let widths = levels.iter().map(|level| (level.down.attention, level.channels)).chain([(architecture.middle, last.channels)]);
    let widths: Vec<i64> = widths
        .filter_map(|(attention, channels)| match attention {
            Attention::Block { heads, .. } => Some(channels / heads.max(1)),
            _ => None,
        })
        .collect();
    let one = widths.first().copied();
    if widths.iter().any(|width| Some(*width) != one) {
        return Err(format!(
            "its attention has heads of the widths {widths:?}, and UNet2DModel's `attention_head_dim` is one number"
        ));
    }
    let resnet = levels.iter().any(|level| level.down.resample == Some(Resample::Resnet));
    let [down, up] = types(levels, |level, down| {
        let way = if down { &level.down } else { &level.up };
        match (way.attention, way.resample, down) {
            (Attention::Block { .. }, _, true) => Ok("AttnDownBlock2D"),
            (Attention::Block { .. }, _, false) => Ok("AttnUpBlock2D"),
            (Attention::None, Some(Resample::Resnet), true) => Ok("ResnetDownsampleBlock2D"),
            (Attention::None, Some(Resample::Resnet), false) => Ok("ResnetUpsampleBlock2D"),
            (Attention::None, _, true) => Ok("DownBlock2D"),
            (Attention::None, _, false) => Ok("UpBlock2D"),
            (attention, ..) => Err(format!("UNet2DModel has no {attention:?}")),
        }
    })?;
    let ends = if resnet { "resnet" } else { "conv" };
    let groups = match architecture.middle {
        Attention::Block { groups, .. } => groups,
        _ => None,
    };
    let labels = match architecture.labels {
        Labels::None => json!({}),
        Labels::Table(count) => json!({ "num_class_embeds": count }),
        other => return Err(format!("UNet2DModel has no {other:?}")),
    };
    let own = json!({
        "down_block_types": down,
        "up_block_types": up,
        "mid_block_type": "UNetMidBlock2D",
        "add_attention": architecture.middle != Attention::None,
        "attention_head_dim": one,
        "attn_norm_num_groups": groups.filter(|_| architecture.scale_shift),
        "downsample_type": ends,
        "upsample_type": ends,
    });
    Ok(with(with(common(architecture, "UNet2DModel")?, own), labels))
}
