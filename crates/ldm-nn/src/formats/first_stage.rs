//! First stages of original checkpoints: their `ddconfig` and their parameters' names (autoencoder.py, model.py, taesd.py).

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::autoencoder_kl::AutoencoderKlConfig;
use crate::blocks::{DOWN, UP};
use crate::config::ConfigError;
use crate::first_stage::FirstStageConfig;
use crate::vq_model::VqModelConfig;
use crate::weights::{Checkpoint, Mapped};

/// What a first stage's names start with in the checkpoint of a whole model.
pub const PREFIX: &str = "first_stage_model.";

/// What is left out: the discriminator and the perceptual loss, and averages of training.
const LEFT_OUT: [&str; 2] = ["loss.", "model_ema."];

/// Groups of every normalisation (model.py `Normalize`).
const GROUPS: i64 = 32;

/// `first_stage_config.params` of an original configuration, or `model.params` of a first stage's own. Reads from JSON, YAML or
/// any other format of serde; settings of training are passed over.
#[derive(Clone, Debug, Deserialize)]
pub struct OriginalFirstStage {
    /// The encoder and the decoder.
    pub ddconfig: DdConfig,
    /// Channels of latents.
    pub embed_dim: i64,
    /// Vectors of the codebook; only a model with vector quantisation has one.
    #[serde(default)]
    pub n_embed: Option<i64>,
    /// A file of used indices; not supported unless null.
    #[serde(default)]
    pub remap: Option<IgnoredAny>,
}

/// `ddconfig` of an original first stage, with the defaults of model.py.
#[derive(Clone, Debug, Deserialize)]
pub struct DdConfig {
    /// Whether the encoder gives means and log-variances.
    #[serde(default = "yes")]
    pub double_z: bool,
    /// Channels between the encoder and the latent.
    pub z_channels: i64,
    /// Width of pictures by which `attn_resolutions` are counted, whatever pictures are given.
    pub resolution: i64,
    /// Channels of pictures.
    pub in_channels: i64,
    /// Channels of decoded pictures.
    pub out_ch: i64,
    /// Channels that `ch_mult` multiplies.
    pub ch: i64,
    /// One factor for each level, highest resolution first.
    pub ch_mult: Vec<i64>,
    /// Residual blocks of each level of the encoder.
    pub num_res_blocks: i64,
    /// Levels with attention, by their width in pixels.
    pub attn_resolutions: Vec<i64>,
    /// `vanilla` or `none`.
    #[serde(default = "vanilla")]
    pub attn_type: String,
    /// Whether attention is linear; not supported.
    #[serde(default)]
    pub use_linear_attn: bool,
    /// Whether resolutions change by convolutions; nothing else is supported.
    #[serde(default = "yes")]
    pub resamp_with_conv: bool,
    /// Whether the picture goes through tanh; not supported.
    #[serde(default)]
    pub tanh_out: bool,
    /// Whether the decoder ends before its last layer; not supported.
    #[serde(default)]
    pub give_pre_end: bool,
}

fn yes() -> bool {
    true
}

fn vanilla() -> String {
    "vanilla".into()
}

impl OriginalFirstStage {
    /// The same in diffusers' terms, checked. `scaling_factor` stands elsewhere in original configurations: it is `scale_factor`
    /// of the model around it, 1 unless given.
    pub fn config(&self, scaling_factor: f64) -> Result<FirstStageConfig, ConfigError> {
        let fail = |key, value: &dyn std::fmt::Debug, why| Err(ConfigError::unsupported(key, value, why));
        let dd = &self.ddconfig;
        if !matches!(dd.attn_type.as_str(), "vanilla" | "vanilla-xformers" | "none") {
            return fail("attn_type", &dd.attn_type, "vanilla or none");
        }
        let unusual = [
            ("use_linear_attn", dd.use_linear_attn, false, "false"),
            ("resamp_with_conv", dd.resamp_with_conv, true, "true"),
            ("tanh_out", dd.tanh_out, false, "false"),
            ("give_pre_end", dd.give_pre_end, false, "false"),
        ];
        if let Some((key, value, _, why)) = unusual.into_iter().find(|(_, value, wanted, _)| value != wanted) {
            return fail(key, &value, why);
        }
        if self.remap.is_some() {
            return fail("remap", &"a file", "null");
        }
        if dd.ch_mult.is_empty() || dd.ch_mult.len() > 10 {
            return fail("ch_mult", &dd.ch_mult, "1 to 10 levels");
        }
        if dd.resolution < 1 {
            return fail("resolution", &dd.resolution, "at least 1");
        }
        let (down_block_types, up_block_types) = dd.levels();
        let block_out_channels = dd.ch_mult.iter().map(|mult| dd.ch.saturating_mul(*mult)).collect();
        let mid_block_add_attention = dd.has_attention();
        match (dd.double_z, self.n_embed) {
            (true, None) if self.embed_dim == dd.z_channels => {
                let config = AutoencoderKlConfig {
                    in_channels: dd.in_channels,
                    out_channels: dd.out_ch,
                    block_out_channels,
                    layers_per_block: dd.num_res_blocks,
                    latent_channels: self.embed_dim,
                    norm_num_groups: GROUPS,
                    scaling_factor,
                    sample_size: dd.resolution,
                    mid_block_add_attention,
                    down_block_types,
                    up_block_types,
                    ..AutoencoderKlConfig::default()
                };
                config.check()?;
                Ok(FirstStageConfig::Kl(config))
            }
            (true, None) => fail("embed_dim", &self.embed_dim, "as large as z_channels"),
            (false, Some(n_embed)) => {
                let config = VqModelConfig {
                    in_channels: dd.in_channels,
                    out_channels: dd.out_ch,
                    block_out_channels,
                    layers_per_block: dd.num_res_blocks,
                    latent_channels: dd.z_channels,
                    num_vq_embeddings: n_embed,
                    vq_embed_dim: Some(self.embed_dim),
                    norm_num_groups: GROUPS,
                    scaling_factor,
                    sample_size: dd.resolution,
                    mid_block_add_attention,
                    down_block_types,
                    up_block_types,
                    ..VqModelConfig::default()
                };
                config.check()?;
                Ok(FirstStageConfig::Vq(config))
            }
            (double_z, _) => fail("double_z", &double_z, "true without n_embed, or false with it"),
        }
    }
}

impl DdConfig {
    fn has_attention(&self) -> bool {
        self.attn_type != "none"
    }

    /// Diffusers' names of the encoder's and the decoder's levels, each in the order in which they run. The decoder counts widths
    /// from its own lowest one upwards.
    fn levels(&self) -> (Vec<String>, Vec<String>) {
        let name = |names: [&str; 2], width: i64| {
            let attention = self.has_attention() && self.attn_resolutions.contains(&width);
            names[usize::from(attention)].to_owned()
        };
        let levels = self.ch_mult.len();
        let lowest = self.resolution >> (levels - 1);
        let down = (0..levels).map(|level| name(DOWN, self.resolution >> level));
        let up = (0..levels).map(|level| name(UP, lowest.saturating_mul(1 << level)));
        (down.collect(), up.collect())
    }
}

/// The first stage's tensors under diffusers' names, from any of the three spellings: original, diffusers', and diffusers' before
/// 0.13. Of a whole model's checkpoint the rest is left out.
pub fn canonical(checkpoint: Checkpoint, levels: usize) -> Checkpoint {
    let whole = checkpoint.names().any(|name| name.starts_with(PREFIX));
    checkpoint.map_names(|name, _| {
        let own = name.strip_prefix(PREFIX);
        if whole && own.is_none() {
            return Mapped::Drop;
        }
        let own = own.unwrap_or(name);
        if LEFT_OUT.iter().any(|prefix| own.starts_with(prefix)) {
            return Mapped::Drop;
        }
        Mapped::As(original_name(own, levels).unwrap_or_else(|| diffusers_name(own)))
    })
}

/// Today's diffusers name for one of before 0.13, whose attention had other words.
pub(crate) fn diffusers_name(name: &str) -> String {
    if !name.contains(".attentions.") {
        return name.to_owned();
    }
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")]
        .iter()
        .fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

/// What becomes of an original parameter of a first stage with so many levels, without a prefix; of TAESD when there are none.
pub fn original(name: &str, levels: Option<usize>) -> Mapped {
    let named = match levels {
        Some(levels) => original_name(name, levels),
        None => tiny_name(name, None),
    };
    Mapped::As(named.unwrap_or_else(|| name.to_owned()))
}

/// Diffusers' name for an original one of a first stage with so many levels; `None` for what is no such name.
fn original_name(name: &str, levels: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let (side, rest) = parts.split_first()?;
    let place = match (*side, rest) {
        ("encoder" | "decoder", ["norm_out", leaf]) => format!("conv_norm_out.{leaf}"),
        ("encoder" | "decoder", ["mid", "block_1", rest @ ..]) => format!("mid_block.resnets.0.{}", resnet(rest)?),
        ("encoder" | "decoder", ["mid", "block_2", rest @ ..]) => format!("mid_block.resnets.1.{}", resnet(rest)?),
        ("encoder" | "decoder", ["mid", "attn_1", rest @ ..]) => format!("mid_block.attentions.0.{}", attention(rest)?),
        ("encoder", ["down", level, rest @ ..]) => format!("down_blocks.{level}.{}", in_level(rest)?),
        ("decoder", ["up", level, rest @ ..]) => {
            // Original checkpoints count levels from the highest resolution, diffusers in the order in which they run.
            let level = levels.checked_sub(level.parse::<usize>().ok()?.checked_add(1)?)?;
            format!("up_blocks.{level}.{}", in_level(rest)?)
        }
        _ => return None,
    };
    Some(format!("{side}.{place}"))
}

fn in_level(parts: &[&str]) -> Option<String> {
    Some(match parts {
        ["block", layer, rest @ ..] => format!("resnets.{layer}.{}", resnet(rest)?),
        ["attn", layer, rest @ ..] => format!("attentions.{layer}.{}", attention(rest)?),
        ["downsample", "conv", leaf] => format!("downsamplers.0.conv.{leaf}"),
        ["upsample", "conv", leaf] => format!("upsamplers.0.conv.{leaf}"),
        _ => return None,
    })
}

fn resnet(parts: &[&str]) -> Option<String> {
    let [layer, leaf] = parts else { return None };
    Some(format!("{}.{leaf}", if *layer == "nin_shortcut" { "conv_shortcut" } else { layer }))
}

fn attention(parts: &[&str]) -> Option<String> {
    let [layer, leaf] = parts else { return None };
    let layer = match *layer {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        _ => return None,
    };
    Some(format!("{layer}.{leaf}"))
}

/// The buffer `scale_factor` of a whole model's checkpoint, which only models trained with `scale_by_std` have.
pub fn scale_factor(checkpoint: &Checkpoint) -> Option<f64> {
    let one = checkpoint.shape("scale_factor")?.iter().product::<i64>() == 1;
    one.then(|| checkpoint.tensor("scale_factor").view([1]).double_value(&[0]))
}

/// Which half of TAESD a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyHalf {
    /// `taesd_encoder`.
    Encoder,
    /// `taesd_decoder`.
    Decoder,
}

impl TinyHalf {
    /// The diffusers name of the `index`-th layer. The original decoder's first layer is the clamp, which diffusers does not
    /// count.
    fn layer(self, index: &str, rest: &str) -> Option<String> {
        let index: usize = index.parse().ok()?;
        Some(match self {
            Self::Encoder => format!("encoder.layers.{index}.{rest}"),
            Self::Decoder => format!("decoder.layers.{}.{rest}", index.checked_sub(1)?),
        })
    }
}

/// TAESD's tensors under diffusers' names, from diffusers' own or the original ones with the prefixes `encoder.` and `decoder.`,
/// or `taesd_encoder.` and `taesd_decoder.`. Files of one half, whose names start with a number, need its name; join two with
/// [`Checkpoint::joined`] afterwards.
pub fn canonical_tiny(checkpoint: Checkpoint, half: Option<TinyHalf>) -> Checkpoint {
    checkpoint.map_names(|name, _| Mapped::As(tiny_name(name, half).unwrap_or_else(|| name.to_owned())))
}

fn tiny_name(name: &str, half: Option<TinyHalf>) -> Option<String> {
    let (first, rest) = name.split_once('.')?;
    let named = match first {
        "encoder" | "taesd_encoder" => TinyHalf::Encoder,
        "decoder" | "taesd_decoder" => TinyHalf::Decoder,
        index => return half?.layer(index, rest),
    };
    let (index, rest) = rest.split_once('.')?;
    named.layer(index, rest)
}
