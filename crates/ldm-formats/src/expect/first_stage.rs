//! Tensors of first stages: `ldm/modules/diffusionmodules/model.py`, `ldm/models/autoencoder.py`, taesd.py.

use super::{Expected, Names};
use crate::card::{Ddconfig, FirstStage};

/// Its tensors, without `first_stage_model.`. A tiny one has two files; their tensors are told apart by `encoder.` and `decoder.`.
pub fn first_stage(config: &FirstStage) -> Expected {
    let mut names = Names::default();
    match config {
        FirstStage::Kl { embed_dim, ddconfig } => {
            coders(&mut names, ddconfig);
            let (z, e) = (u64::from(ddconfig.z_channels), u64::from(*embed_dim));
            names.conv("quant_conv", 2 * z, 2 * e, 1);
            names.conv("post_quant_conv", e, z, 1);
        }
        FirstStage::Vq { embed_dim, n_embed, ddconfig } => {
            coders(&mut names, ddconfig);
            let (z, e) = (u64::from(ddconfig.z_channels), u64::from(*embed_dim));
            names.tensor("quantize.embedding.weight".to_owned(), &[u64::from(*n_embed), e]);
            names.conv("quant_conv", z, e, 1);
            names.conv("post_quant_conv", e, z, 1);
        }
        FirstStage::Tiny { latent_channels } => tiny(&mut names, u64::from(*latent_channels)),
    }
    names.list
}

fn coders(names: &mut Names, config: &Ddconfig) {
    let (ch, z) = (u64::from(config.ch), u64::from(config.z_channels));
    let levels = config.ch_mult.len();
    let width = |level: usize| ch * u64::from(config.ch_mult[level]);
    // Levels are counted from the nominal resolution, whatever the picture.
    let attends = |level: usize| config.attn_resolutions.contains(&(config.resolution >> level));
    let last = width(levels - 1);

    names.conv("encoder.conv_in", u64::from(config.in_channels), ch, 3);
    let mut channels = ch;
    for level in 0..levels {
        for block in 0..config.num_res_blocks {
            residual(names, &format!("encoder.down.{level}.block.{block}"), channels, width(level));
            channels = width(level);
            if attends(level) && config.attention {
                attention(names, &format!("encoder.down.{level}.attn.{block}"), channels);
            }
        }
        if level + 1 < levels {
            names.conv(&format!("encoder.down.{level}.downsample.conv"), channels, channels, 3);
        }
    }
    middle(names, "encoder.mid", last, config.attention);
    names.norm("encoder.norm_out", last);
    names.conv("encoder.conv_out", last, if config.double_z { 2 * z } else { z }, 3);

    names.conv("decoder.conv_in", z, last, 3);
    middle(names, "decoder.mid", last, config.attention);
    let mut channels = last;
    for level in (0..levels).rev() {
        for block in 0..=config.num_res_blocks {
            residual(names, &format!("decoder.up.{level}.block.{block}"), channels, width(level));
            channels = width(level);
            if attends(level) && config.attention {
                attention(names, &format!("decoder.up.{level}.attn.{block}"), channels);
            }
        }
        if level > 0 {
            names.conv(&format!("decoder.up.{level}.upsample.conv"), channels, channels, 3);
        }
    }
    names.norm("decoder.norm_out", channels);
    names.conv("decoder.conv_out", channels, u64::from(config.out_ch), 3);
}

fn middle(names: &mut Names, path: &str, channels: u64, attends: bool) {
    residual(names, &format!("{path}.block_1"), channels, channels);
    if attends {
        attention(names, &format!("{path}.attn_1"), channels);
    }
    residual(names, &format!("{path}.block_2"), channels, channels);
}

fn residual(names: &mut Names, path: &str, from: u64, to: u64) {
    names.norm(&format!("{path}.norm1"), from);
    names.conv(&format!("{path}.conv1"), from, to, 3);
    names.norm(&format!("{path}.norm2"), to);
    names.conv(&format!("{path}.conv2"), to, to, 3);
    if from != to {
        names.conv(&format!("{path}.nin_shortcut"), from, to, 1);
    }
}

fn attention(names: &mut Names, path: &str, channels: u64) {
    names.norm(&format!("{path}.norm"), channels);
    for name in ["q", "k", "v", "proj_out"] {
        names.conv(&format!("{path}.{name}"), channels, channels, 1);
    }
}

/// What stands at an index of TAESD's sequences.
enum Tiny {
    Block,
    /// A convolution without bias, beside a change of the resolution.
    Resize,
}

fn tiny(names: &mut Names, latent: u64) {
    use Tiny::{Block, Resize};
    const WIDTH: u64 = 64;
    let sequence = |names: &mut Names, part: &str, from: usize, items: &[Option<Tiny>]| {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{part}.{}", from + index);
            match item {
                Some(Block) => {
                    for conv in [0, 2, 4] {
                        names.conv(&format!("{path}.conv.{conv}"), WIDTH, WIDTH, 3);
                    }
                }
                Some(Resize) => names.tensor(format!("{path}.weight"), &[WIDTH, WIDTH, 3, 3]),
                None => {}
            }
        }
    };
    let halving = || [Some(Resize), Some(Block), Some(Block), Some(Block)];
    names.conv("encoder.0", 3, WIDTH, 3);
    sequence(names, "encoder", 1, &[Some(Block)]);
    for at in [2, 6, 10] {
        sequence(names, "encoder", at, &halving());
    }
    names.conv("encoder.14", WIDTH, latent, 3);
    // Clamp, convolution, ReLU; then blocks, nearest neighbours, convolution.
    names.conv("decoder.1", latent, WIDTH, 3);
    for at in [3, 8, 13] {
        sequence(names, "decoder", at, &[Some(Block), Some(Block), Some(Block), None, Some(Resize)]);
    }
    sequence(names, "decoder", 18, &[Some(Block)]);
    names.conv("decoder.19", WIDTH, 3, 3);
}
