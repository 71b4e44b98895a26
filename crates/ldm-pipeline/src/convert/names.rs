//! Which original names the parts of a model have: forward as loading reads them, backward as they are written.

use std::collections::BTreeMap;

use ldm_nn::conditioners::LdmBertConfig;
use ldm_nn::formats::first_stage;
use ldm_nn::formats::inverse::{Originals, originals};
use ldm_nn::formats::{bert, clip, unet};
use ldm_nn::{Architecture, Checkpoint, ClipTextConfig, FirstStageConfig, Mapped};

use super::output::Item;
use crate::blueprint::{ConditionerPlan, TextPart};

/// A text encoder in an original file.
pub(super) struct TextNames<'a> {
    pub(super) prefix: &'static str,
    pub(super) part: &'a TextPart,
    /// OpenCLIP's names, else those of transformers.
    pub(super) open_clip: bool,
}

/// Whether an encoder is one of OpenCLIP's: those have the exact GELU, OpenAI's the quick one.
pub(super) fn is_open_clip(config: &ClipTextConfig) -> bool {
    config.hidden_act == "gelu"
}

/// The text encoders of a model, in the order of original files.
pub(super) fn texts(plan: &ConditionerPlan) -> Vec<TextNames<'_>> {
    let names = |part, prefix, open_clip| TextNames { prefix, part, open_clip };
    match plan {
        ConditionerPlan::Text(part) if is_open_clip(&part.network.config) => vec![names(part, clip::SD2, true)],
        ConditionerPlan::Text(part) => vec![names(part, clip::SD1, false)],
        ConditionerPlan::TextPair { first: Some(first), second, .. } => {
            vec![names(first, clip::SDXL_L, false), names(second, clip::SDXL_G, true)]
        }
        ConditionerPlan::TextPair { first: None, second, .. } => vec![names(second, clip::REFINER, true)],
        _ => vec![],
    }
}

impl TextNames<'_> {
    /// What becomes of a name of the file.
    pub(super) fn forward(&self, name: &str) -> Mapped {
        match self.open_clip {
            true => clip::open_clip(self.prefix, &self.part.network.config, name),
            false => clip::transformers(self.prefix, name),
        }
    }

    /// The names of the file, and what each is made of.
    pub(super) fn originals(&self) -> Originals {
        let checkpoint = &self.part.network.checkpoint;
        let bare: Vec<String> = match self.open_clip {
            true => clip::open_clip_candidates(self.part.network.config.num_hidden_layers).collect(),
            false => checkpoint.names().map(str::to_owned).collect(),
        };
        let named = bare.into_iter().map(|name| format!("{}{name}", self.prefix));
        originals(named, |name| self.forward(name), checkpoint)
    }
}

/// What becomes of a name of the paper's text encoder: as loading has it, and with the output layer, which diffusers' class has.
pub(super) fn bert_forward(name: &str) -> Mapped {
    let bare = name.strip_prefix(bert::PREFIX).unwrap_or_default();
    match bare.strip_prefix(bert::LOGITS) {
        Some(leaf) => Mapped::As(format!("to_logits.{leaf}")),
        None => bert::original(bert::PREFIX, name),
    }
}

/// Original names of the paper's text encoder.
pub(super) fn bert_originals(config: &LdmBertConfig, checkpoint: &Checkpoint) -> Originals {
    let logits = ["weight", "bias"].map(|leaf| format!("{}{leaf}", bert::LOGITS));
    let bare = bert::candidates(config.encoder_layers).chain(logits);
    originals(bare.map(|name| format!("{}{name}", bert::PREFIX)), bert_forward, checkpoint)
}

/// Original names of a first stage behind `prefix`; `shapes` are all that it has.
pub(super) fn stage_originals(
    prefix: &str,
    config: &FirstStageConfig,
    shapes: &[(String, Vec<u64>)],
    checkpoint: &Checkpoint,
) -> Originals {
    let levels = levels(config);
    let forward = |name: &str| first_stage::original(name.strip_prefix(prefix).unwrap_or(name), levels);
    originals(shapes.iter().map(|(name, _)| format!("{prefix}{name}")), forward, checkpoint)
}

/// Levels of a first stage, which its names are counted by; none for TAESD.
fn levels(config: &FirstStageConfig) -> Option<usize> {
    match config {
        FirstStageConfig::Kl(config) => Some(config.block_out_channels.len()),
        FirstStageConfig::Vq(config) => Some(config.block_out_channels.len()),
        FirstStageConfig::Tiny(_) => None,
    }
}

/// Original names of the denoiser.
pub(super) fn unet_originals(architecture: &Architecture) -> Result<Originals, unet::FormatError> {
    let names = unet::names(architecture)?;
    Ok(names.into_iter().map(|(name, mapped)| (format!("{}{name}", unet::PREFIX), mapped)).collect())
}

/// Tensors to write under original names, in the shapes of `shapes` where those say one: original files have 1×1 convolutions
/// where diffusers has linear layers.
pub(super) fn items(originals: Originals, prefix: &str, shapes: &[(String, Vec<u64>)], checkpoint: &Checkpoint) -> Vec<Item> {
    let wanted: BTreeMap<&str, &[u64]> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let item = |(name, made): (String, Mapped)| {
        let bare = name.strip_prefix(prefix).unwrap_or(&name);
        let shape = match wanted.get(bare) {
            Some(shape) => shape.iter().map(|&side| side as i64).collect(),
            None => natural(checkpoint, &made),
        };
        Item { name, shape, checkpoint: checkpoint.clone(), made }
    };
    originals.into_iter().map(item).collect()
}

/// The shape that comes of joining or turning.
fn natural(checkpoint: &Checkpoint, made: &Mapped) -> Vec<i64> {
    let parts = ldm_nn::formats::inverse::parts(made);
    let mut shape = parts.first().and_then(|name| checkpoint.shape(name)).unwrap_or_default();
    match made {
        Mapped::Transposed(_) => shape.reverse(),
        Mapped::Rows(_) | Mapped::Heads { .. } => shape.iter_mut().take(1).for_each(|rows| *rows *= parts.len() as i64),
        Mapped::As(_) | Mapped::Drop => {}
    }
    shape
}
