//! The parameters of the original classes, found from networks and checked by building them again.

use ldm_formats::card::{Ddconfig, FirstStage, NumClasses, Sequential, Unet};
use ldm_nn::unet::{Attention, Labels, Resample};
use ldm_nn::{Architecture, FirstStageConfig};

use super::compare::{plain, plain_stage};
use crate::families::original;

pub(super) fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

/// The nominal width that levels with attention are counted from. Any power of two that is large enough says the same.
const RESOLUTION: u32 = 256;

/// The parameters of a first stage's original class.
pub(super) fn stage(config: &FirstStageConfig) -> Result<FirstStage, String> {
    let made = match plain_stage(config) {
        FirstStageConfig::Tiny(config) => FirstStage::Tiny { latent_channels: number(config.latent_channels) },
        FirstStageConfig::Kl(config) => FirstStage::Kl {
            embed_dim: number(config.latent_channels),
            ddconfig: ddconfig(Coder {
                channels: &config.block_out_channels,
                latent: config.latent_channels,
                pictures: [config.in_channels, config.out_channels],
                layers: config.layers_per_block,
                types: &config.down_block_types,
                attention: config.mid_block_add_attention,
                double_z: true,
            })?,
        },
        FirstStageConfig::Vq(config) => FirstStage::Vq {
            embed_dim: number(config.embed_dim()),
            n_embed: number(config.num_vq_embeddings),
            ddconfig: ddconfig(Coder {
                channels: &config.block_out_channels,
                latent: config.latent_channels,
                pictures: [config.in_channels, config.out_channels],
                layers: config.layers_per_block,
                types: &config.down_block_types,
                attention: config.mid_block_add_attention,
                double_z: false,
            })?,
        },
    };
    let again = original::stage_config(std::path::Path::new("card"), &made, config.scaling_factor());
    let again = plain_stage(&again.map_err(|error| error.to_string())?);
    let wanted = plain_stage(config);
    if again != wanted {
        return Err(format!("the original class would make {again:?} of {wanted:?}"));
    }
    Ok(made)
}

/// What encoder and decoder are made of.
struct Coder<'a> {
    channels: &'a [i64],
    latent: i64,
    pictures: [i64; 2],
    layers: i64,
    types: &'a [String],
    attention: bool,
    double_z: bool,
}

fn ddconfig(coder: Coder<'_>) -> Result<Ddconfig, String> {
    let ch = coder.channels[0].max(1);
    if coder.channels.iter().any(|channels| channels % ch != 0) {
        return Err(format!("its channels {:?} are no multiples of the first", coder.channels));
    }
    let attends = |(level, kind): (usize, &String)| (kind == ldm_nn::blocks::DOWN[1]).then_some(RESOLUTION >> level);
    Ok(Ddconfig {
        double_z: coder.double_z,
        z_channels: number(coder.latent),
        resolution: RESOLUTION,
        in_channels: number(coder.pictures[0]),
        out_ch: number(coder.pictures[1]),
        ch: number(ch),
        ch_mult: coder.channels.iter().map(|channels| number(channels / ch)).collect(),
        num_res_blocks: number(coder.layers),
        attn_resolutions: coder.types.iter().enumerate().filter_map(attends).collect(),
        attention: coder.attention,
    })
}

/// Heads of an attention, with the channels that they share.
fn heads(attention: Attention, channels: i64) -> Option<(i64, i64)> {
    match attention {
        Attention::None => None,
        Attention::Block { heads, .. } | Attention::Transformer { heads, .. } => Some((heads, channels / heads.max(1))),
    }
}

/// The parameters of `UNetModel`.
pub(super) fn unet(architecture: &Architecture) -> Result<Unet, String> {
    let levels = &architecture.levels;
    let last = levels.last().ok_or("it has no levels")?;
    let base = levels[0].channels.max(1);
    let all = levels.iter().map(|level| heads(level.down.attention, level.channels));
    let all: Vec<(i64, i64)> = all.chain([heads(architecture.middle, last.channels)]).flatten().collect();
    let &(count, width) = all.first().ok_or("it has no attention at all")?;
    // As many everywhere, or as wide everywhere; where both hold, either says the same.
    let (num_heads, num_head_channels) = match () {
        () if all.iter().all(|(heads, _)| *heads == count) => (Some(number(count)), None),
        () if all.iter().all(|(_, wide)| *wide == width) => (None, Some(number(width))),
        () => return Err(format!("its attention has (heads, width) {all:?}, and `UNetModel` has one number of either")),
    };
    let depth = |attention: Attention| match attention {
        Attention::Transformer { depth, .. } => Some(depth),
        _ => None,
    };
    let middle_depth = depth(architecture.middle).unwrap_or(1);
    let context_alone = |attention: Attention| matches!(attention, Attention::Transformer { self_attention: false, .. });
    let (num_classes, adm_in_channels) = match plain(architecture).labels {
        Labels::None => (None, None),
        Labels::Table(count) => (Some(NumClasses::Count(number(count))), None),
        Labels::Vector(width) => (Some(NumClasses::Sequential(Sequential::Sequential)), Some(number(width))),
        other => return Err(format!("it has {other:?} beside the timestep")),
    };
    let attends = |(level, way): (usize, &ldm_nn::unet::Level)| (way.down.attention != Attention::None).then_some(1 << level);
    let made = Unet {
        in_channels: number(architecture.in_channels),
        out_channels: number(architecture.out_channels),
        model_channels: number(base),
        attention_resolutions: levels.iter().enumerate().filter_map(attends).collect(),
        num_res_blocks: number(levels[0].resnets),
        channel_mult: levels.iter().map(|level| number(level.channels / base)).collect(),
        num_heads,
        num_head_channels,
        use_scale_shift_norm: architecture.scale_shift,
        resblock_updown: levels.iter().any(|level| level.down.resample == Some(Resample::Resnet)),
        use_new_attention_order: false,
        use_spatial_transformer: architecture.cross_attention_dim > 0,
        transformer_depth: levels.iter().map(|level| number(depth(level.down.attention).unwrap_or(middle_depth))).collect(),
        context_dim: (architecture.cross_attention_dim > 0).then(|| number(architecture.cross_attention_dim)),
        use_linear_in_transformer: architecture.linear_projection,
        disable_self_attentions: levels.iter().map(|level| context_alone(level.down.attention)).collect(),
        disable_middle_self_attn: context_alone(architecture.middle),
        num_classes,
        adm_in_channels,
        time_cond_proj_dim: None,
    };
    let again = plain(&original::architecture_of(&made, Some(1)).map_err(|error| error.to_string())?);
    let wanted = plain(architecture);
    if again != wanted {
        return Err(format!("`UNetModel` would be {again:?} in place of {wanted:?}"));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use ldm_formats::card::builtins;

    use ldm_formats::card::Card;

    use super::super::{configs, unet_config};
    use super::*;

    /// Rows whose denoisers diffusers has no class for: heads of one width are wanted, and these have heads of one number.
    const UNLIKE: [&str; 2] = ["lsun_churches256", "inpainting_big"];

    #[test]
    fn every_published_denoiser_and_first_stage_goes_through_both_forms() {
        let mut refused = Vec::new();
        for card in builtins().expect("the cards") {
            let scale = 0.5;
            let stage_of =
                |stage: &FirstStage| original::stage_config(std::path::Path::new("card"), stage, scale).expect("a stage");
            let config = stage_of(card.model.first_stage());
            let again = stage(&config).unwrap_or_else(|why| panic!("{}: {why}", card.name));
            assert_eq!(plain_stage(&stage_of(&again)), plain_stage(&config), "{}", card.name);
            let text = card.to_toml();
            assert_eq!(Card::from_toml(&text).as_ref(), Ok(&card), "{}:\n{text}", card.name);
            let (value, _) = configs::stage(&config);
            let path = std::env::temp_dir().join(format!("ldm-pipeline-{}-{}.json", std::process::id(), card.name));
            std::fs::write(&path, value.to_string()).expect("it is written");
            let read = FirstStageConfig::read(&path);
            std::fs::remove_file(&path).expect("it goes");
            assert_eq!(plain_stage(&read.expect("it is read")), plain_stage(&config), "{}", card.name);

            let Some(diffusion) = card.model.diffusion() else { continue };
            let architecture = original::architecture_of(&diffusion.unet, diffusion.image_size).expect("a denoiser");
            let made = unet(&architecture).unwrap_or_else(|why| panic!("{}: {why}", card.name));
            let again = original::architecture_of(&made, Some(1)).expect("a denoiser");
            assert_eq!(plain(&again), plain(&architecture), "{}", card.name);
            // `unet` itself compares what diffusers' class would make.
            if unet_config::unet(&architecture, card.name.starts_with("sdxl")).is_err() {
                refused.push(card.name.clone());
            }
        }
        assert_eq!(refused, UNLIKE);
    }
}
