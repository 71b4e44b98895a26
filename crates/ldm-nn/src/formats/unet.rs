//! The denoiser in original checkpoints (`model.diffusion_model.`, `model_ema.`): names go forward, from an [`Architecture`] to every
//! name that its original has, because neither averaged weights nor places in `input_blocks` can be told from a name alone.

use std::collections::BTreeMap;

use crate::unet::{Architecture, Attention, Labels, QkvOrder, Resample, Way};
use crate::weights::{Checkpoint, Mapped};

/// Where the denoiser is in a whole model's file.
pub const PREFIX: &str = "model.diffusion_model.";

/// Where averaged weights are, and the name of the denoiser there.
const EMA_PREFIX: &str = "model_ema.";
const EMA_MODULE: &str = "diffusion_model";

/// Whether to read averaged weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ema {
    /// When the file has them: what original scripts sample with, unless a yaml file says `use_ema: False`.
    #[default]
    Auto,
    /// Always; it is an error when the file has none.
    On,
    /// Never.
    Off,
}

/// A file that cannot be read as an original denoiser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No weights of a denoiser are there.
    #[error("the file has neither `{PREFIX}input_blocks.0.0.weight` nor `input_blocks.0.0.weight`: it is no original denoiser")]
    Absent,
    /// Averaged weights are asked for and not there.
    #[error("the file has no averaged weights (`{0}`)")]
    NoEma(String),
    /// Original networks have no such part.
    #[error("a network with `{0}` has no original names")]
    NoName(&'static str),
}

/// Every parameter of `architecture` by its original name, without a prefix, and what it is made into.
pub fn names(architecture: &Architecture) -> Result<BTreeMap<String, Mapped>, FormatError> {
    let mut names = Names(BTreeMap::new());
    if architecture.guidance.is_some() {
        return Err(FormatError::NoName("time_cond_proj_dim"));
    }
    names.mlp("time_embed.0", "time_embed.2", "time_embedding");
    match architecture.labels {
        Labels::None => {}
        Labels::Table(_) => names.one("label_emb.weight", "class_embedding.weight"),
        Labels::Linear(1) => names.layer("label_emb", "class_embedding"),
        Labels::Sinusoids => names.mlp("label_emb.1.0", "label_emb.1.2", "class_embedding"),
        Labels::Vector(_) => names.mlp("label_emb.0.0", "label_emb.0.2", "class_embedding"),
        Labels::Linear(_) => return Err(FormatError::NoName("simple_projection")),
        Labels::Identity => return Err(FormatError::NoName("identity")),
    }
    match (architecture.added, architecture.labels) {
        (None, _) => {}
        (Some(_), Labels::None) => names.mlp("label_emb.0.0", "label_emb.0.2", "add_embedding"),
        (Some(_), _) => return Err(FormatError::NoName("addition_embed_type")),
    }

    let mut block = 0;
    let mut input = architecture.sinusoids();
    let mut skips = vec![input];
    names.layer("input_blocks.0.0", "conv_in");
    for (i, level) in architecture.levels.iter().enumerate() {
        let canonical = format!("down_blocks.{i}");
        for layer in 0..level.resnets {
            block += 1;
            let original = format!("input_blocks.{block}");
            names.resnet(&format!("{original}.0"), &format!("{canonical}.resnets.{layer}"), input != level.channels);
            names.attention(&format!("{original}.1"), &canonical, architecture, &level.down, layer);
            input = level.channels;
            skips.push(input);
        }
        if let Some(resample) = level.down.resample {
            block += 1;
            let (original, canonical) = (format!("input_blocks.{block}.0"), format!("{canonical}.downsamplers.0"));
            match resample {
                Resample::Conv => names.layer(&format!("{original}.op"), &format!("{canonical}.conv")),
                Resample::Plain => {}
                Resample::Resnet => names.resnet(&original, &canonical, false),
            }
            skips.push(input);
        }
    }

    names.resnet("middle_block.0", "mid_block.resnets.0", false);
    let middle = Way { attention: architecture.middle, attentions: 1, resample: None };
    names.attention("middle_block.1", "mid_block", architecture, &middle, 0);
    names.resnet("middle_block.2", "mid_block.resnets.1", false);

    let mut block = 0;
    for (i, level) in architecture.levels.iter().rev().enumerate() {
        let canonical = format!("up_blocks.{i}");
        for layer in 0..=level.resnets {
            let original = format!("output_blocks.{block}");
            let skip = skips.pop().expect("a skip for every residual block on the way up");
            names.resnet(&format!("{original}.0"), &format!("{canonical}.resnets.{layer}"), input + skip != level.channels);
            let attends = names.attention(&format!("{original}.1"), &canonical, architecture, &level.up, layer);
            input = level.channels;
            if layer == level.resnets
                && let Some(resample) = level.up.resample
            {
                // Behind the attention, where there is one.
                let original = format!("{original}.{}", if attends { 2 } else { 1 });
                let canonical = format!("{canonical}.upsamplers.0");
                match resample {
                    Resample::Conv => names.layer(&format!("{original}.conv"), &format!("{canonical}.conv")),
                    Resample::Plain => {}
                    Resample::Resnet => names.resnet(&original, &canonical, false),
                }
            }
            block += 1;
        }
    }
    names.layer("out.0", "conv_norm_out");
    names.layer("out.2", "conv_out");
    Ok(names.0)
}

/// Whether the file has a denoiser under original names.
pub fn is_original(checkpoint: &Checkpoint) -> bool {
    prefix(checkpoint).is_some()
}

/// The name of averaged weights for an original name without a prefix.
pub fn ema_name(name: &str) -> String {
    format!("{EMA_PREFIX}{EMA_MODULE}{}", name.replace('.', ""))
}

/// Whether the file has averaged weights of a denoiser.
pub fn has_ema(checkpoint: &Checkpoint) -> bool {
    checkpoint.shape(&ema_name("input_blocks.0.0.weight")).is_some()
}

/// The denoiser of an original file, a whole model's or its own, under canonical names. What else the file has is left out, except
/// what stands under the denoiser's prefix and is not known, which keeps its name for the strict report.
pub fn canonical(checkpoint: Checkpoint, architecture: &Architecture, ema: Ema) -> Result<Checkpoint, FormatError> {
    let names = names(architecture)?;
    let averaged = has_ema(&checkpoint);
    if match ema {
        Ema::Auto => averaged,
        Ema::On => true,
        Ema::Off => false,
    } {
        let first = ema_name("input_blocks.0.0.weight");
        if !averaged {
            return Err(FormatError::NoEma(first));
        }
        let names: BTreeMap<String, Mapped> = names.into_iter().map(|(name, mapped)| (ema_name(&name), mapped)).collect();
        // Averages of the denoiser alone begin like this; the two counters beside them do not.
        let known = format!("{EMA_PREFIX}{EMA_MODULE}");
        return Ok(checkpoint.map_names(|name, _| match names.get(name) {
            Some(mapped) => mapped.clone(),
            None if name.starts_with(&known) => Mapped::As(name.to_owned()),
            None => Mapped::Drop,
        }));
    }
    let prefix = prefix(&checkpoint).ok_or(FormatError::Absent)?;
    Ok(checkpoint.map_names(|name, _| match name.strip_prefix(prefix) {
        Some(bare) => names.get(bare).cloned().unwrap_or_else(|| Mapped::As(name.to_owned())),
        None => Mapped::Drop,
    }))
}

/// What stands before the names of the denoiser.
fn prefix(checkpoint: &Checkpoint) -> Option<&'static str> {
    [PREFIX, ""].into_iter().find(|prefix| checkpoint.shape(&format!("{prefix}input_blocks.0.0.weight")).is_some())
}

/// The names that were found so far.
struct Names(BTreeMap<String, Mapped>);

impl Names {
    fn one(&mut self, original: &str, canonical: &str) {
        self.0.insert(original.to_owned(), Mapped::As(canonical.to_owned()));
    }

    fn layer(&mut self, original: &str, canonical: &str) {
        for part in ["weight", "bias"] {
            self.one(&format!("{original}.{part}"), &format!("{canonical}.{part}"));
        }
    }

    fn mlp(&mut self, first: &str, second: &str, canonical: &str) {
        self.layer(first, &format!("{canonical}.linear_1"));
        self.layer(second, &format!("{canonical}.linear_2"));
    }

    fn resnet(&mut self, original: &str, canonical: &str, shortcut: bool) {
        const PARTS: [(&str, &str); 5] = [
            ("in_layers.0", "norm1"),
            ("in_layers.2", "conv1"),
            ("emb_layers.1", "time_emb_proj"),
            ("out_layers.0", "norm2"),
            ("out_layers.3", "conv2"),
        ];
        let shortcut = shortcut.then_some(("skip_connection", "conv_shortcut"));
        for (from, to) in PARTS.into_iter().chain(shortcut) {
            self.layer(&format!("{original}.{from}"), &format!("{canonical}.{to}"));
        }
    }

    /// The attention after residual block `layer` of `way`, if there is one; says whether.
    fn attention(&mut self, original: &str, level: &str, architecture: &Architecture, way: &Way, layer: i64) -> bool {
        let canonical = format!("{level}.attentions.{layer}");
        match way.attention {
            _ if layer >= way.attentions => return false,
            Attention::None => return false,
            Attention::Block { heads, groups } => {
                if groups.is_some() {
                    self.layer(&format!("{original}.norm"), &format!("{canonical}.group_norm"));
                }
                for part in ["weight", "bias"] {
                    let names = ["to_q", "to_k", "to_v"].map(|name| format!("{canonical}.{name}.{part}"));
                    let mapped = match architecture.qkv {
                        QkvOrder::Heads => Mapped::Heads { names, heads },
                        QkvOrder::Thirds => Mapped::Rows(names.into()),
                    };
                    self.0.insert(format!("{original}.qkv.{part}"), mapped);
                }
                self.layer(&format!("{original}.proj_out"), &format!("{canonical}.to_out.0"));
            }
            Attention::Transformer { depth, .. } => {
                let layer = |names: &mut Self, part: &str| {
                    names.layer(&format!("{original}.{part}"), &format!("{canonical}.{part}"));
                };
                for part in ["norm", "proj_in", "proj_out"] {
                    layer(self, part);
                }
                for block in 0..depth {
                    let block = format!("transformer_blocks.{block}");
                    for part in ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2", "attn1.to_out.0", "attn2.to_out.0"] {
                        layer(self, &format!("{block}.{part}"));
                    }
                    for attention in ["attn1", "attn2"] {
                        for part in ["to_q", "to_k", "to_v"] {
                            let name = format!("{block}.{attention}.{part}.weight");
                            self.one(&format!("{original}.{name}"), &format!("{canonical}.{name}"));
                        }
                    }
                }
            }
        }
        true
    }
}
