//! Tensors of `UNetModel`, `ldm/modules/diffusionmodules/openaimodel.py`.

use super::{Expected, Names};
use crate::card::{NumClasses, Unet};

/// Its tensors, without `model.diffusion_model.`.
pub fn unet(config: &Unet) -> Expected {
    let mut names = Names::default();
    let base = u64::from(config.model_channels);
    let embedding = 4 * base;
    names.linear("time_embed.0", base, embedding);
    names.linear("time_embed.2", embedding, embedding);
    if let Some(width) = config.time_cond_proj_dim {
        names.weight("time_embed.cond_proj", u64::from(width), base);
    }
    match (config.num_classes, config.adm_in_channels) {
        (Some(NumClasses::Count(classes)), _) => names.weight("label_emb", embedding, u64::from(classes)),
        (Some(NumClasses::Sequential(_)), Some(width)) => {
            names.linear("label_emb.0.0", u64::from(width), embedding);
            names.linear("label_emb.0.2", embedding, embedding);
        }
        _ => {}
    }
    let mut parts = Parts { names, config, embedding };
    parts.names.conv("input_blocks.0.0", u64::from(config.in_channels), base, 3);
    let levels = config.channel_mult.len();
    let width = |level: usize| base * u64::from(config.channel_mult[level]);
    let mut channels = base;
    let mut skips = vec![base];
    let mut block = 1;
    for level in 0..levels {
        for _ in 0..config.num_res_blocks {
            let path = format!("input_blocks.{block}");
            parts.residual(&format!("{path}.0"), channels, width(level));
            channels = width(level);
            if config.attention_resolutions.contains(&(1 << level)) {
                parts.attention(&format!("{path}.1"), channels, level);
            }
            skips.push(channels);
            block += 1;
        }
        if level + 1 < levels {
            let path = format!("input_blocks.{block}.0");
            if config.resblock_updown {
                parts.residual(&path, channels, channels);
            } else {
                parts.names.conv(&format!("{path}.op"), channels, channels, 3);
            }
            skips.push(channels);
            block += 1;
        }
    }
    parts.residual("middle_block.0", channels, channels);
    parts.middle("middle_block.1", channels);
    parts.residual("middle_block.2", channels, channels);
    let mut block = 0;
    for level in (0..levels).rev() {
        for index in 0..=config.num_res_blocks {
            let path = format!("output_blocks.{block}");
            parts.residual(&format!("{path}.0"), channels + skips.pop().unwrap_or_default(), width(level));
            channels = width(level);
            let mut next = 1;
            if config.attention_resolutions.contains(&(1 << level)) {
                parts.attention(&format!("{path}.1"), channels, level);
                next = 2;
            }
            if level > 0 && index == config.num_res_blocks {
                let path = format!("{path}.{next}");
                if config.resblock_updown {
                    parts.residual(&path, channels, channels);
                } else {
                    parts.names.conv(&format!("{path}.conv"), channels, channels, 3);
                }
            }
            block += 1;
        }
    }
    parts.names.norm("out.0", channels);
    parts.names.conv("out.2", base, u64::from(config.out_channels), 3);
    parts.names.list
}

struct Parts<'c> {
    names: Names,
    config: &'c Unet,
    /// Width of the time embedding.
    embedding: u64,
}

impl Parts<'_> {
    fn residual(&mut self, path: &str, from: u64, to: u64) {
        let names = &mut self.names;
        names.norm(&format!("{path}.in_layers.0"), from);
        names.conv(&format!("{path}.in_layers.2"), from, to, 3);
        let doubled = if self.config.use_scale_shift_norm { 2 * to } else { to };
        names.linear(&format!("{path}.emb_layers.1"), self.embedding, doubled);
        names.norm(&format!("{path}.out_layers.0"), to);
        names.conv(&format!("{path}.out_layers.3"), to, to, 3);
        if from != to {
            names.conv(&format!("{path}.skip_connection"), from, to, 1);
        }
    }

    fn attention(&mut self, path: &str, channels: u64, level: usize) {
        let only_context = self.config.disable_self_attentions[level];
        self.block(path, channels, self.config.transformer_depth[level], only_context);
    }

    fn middle(&mut self, path: &str, channels: u64) {
        let depth = self.config.transformer_depth.last().copied().unwrap_or_default();
        self.block(path, channels, depth, self.config.disable_middle_self_attn);
    }

    fn block(&mut self, path: &str, channels: u64, depth: u32, only_context: bool) {
        let names = &mut self.names;
        let Some(context) = self.config.context_dim.map(u64::from) else {
            names.norm(&format!("{path}.norm"), channels);
            names.layer(&format!("{path}.qkv"), &[3 * channels, channels, 1]);
            names.layer(&format!("{path}.proj_out"), &[channels, channels, 1]);
            return;
        };
        let linear = self.config.use_linear_in_transformer;
        let project = |names: &mut Names, name: &str| {
            let path = format!("{path}.{name}");
            if linear { names.linear(&path, channels, channels) } else { names.conv(&path, channels, channels, 1) }
        };
        names.norm(&format!("{path}.norm"), channels);
        project(names, "proj_in");
        for index in 0..depth {
            let path = format!("{path}.transformer_blocks.{index}");
            for (name, from) in [("attn1", if only_context { context } else { channels }), ("attn2", context)] {
                names.weight(&format!("{path}.{name}.to_q"), channels, channels);
                names.weight(&format!("{path}.{name}.to_k"), from, channels);
                names.weight(&format!("{path}.{name}.to_v"), from, channels);
                names.linear(&format!("{path}.{name}.to_out.0"), channels, channels);
            }
            names.linear(&format!("{path}.ff.net.0.proj"), channels, 8 * channels);
            names.linear(&format!("{path}.ff.net.2"), 4 * channels, channels);
            for norm in 1..=3 {
                names.norm(&format!("{path}.norm{norm}"), channels);
            }
        }
        project(names, "proj_out");
    }
}
