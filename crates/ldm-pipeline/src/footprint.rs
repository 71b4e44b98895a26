//! How much memory a model takes, from its files' headers.
//!
//! An estimate: parameters in the dtype that they are served in; packed weights are as large as they were. The mapped file behind
//! them is the page cache's, which the system takes back when it needs to.

use ldm_nn::Checkpoint;
use ldm_nn::unet::Attention;
use tch::Kind;

use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan};
use crate::options::LoadOptions;

/// The checkpoints of all networks but the first stage.
fn checkpoints(blueprint: &Blueprint) -> Vec<&Checkpoint> {
    let mut all = vec![&blueprint.unet.checkpoint];
    match &blueprint.conditioner {
        ConditionerPlan::None | ConditionerPlan::Neighbors { .. } => {}
        ConditionerPlan::Text(text) => all.push(&text.network.checkpoint),
        ConditionerPlan::TextPair { first, second, .. } => {
            all.extend(first.iter().chain([second]).map(|text| &text.network.checkpoint));
        }
        ConditionerPlan::Bert { network, .. } | ConditionerPlan::Layout { network, .. } => all.push(&network.checkpoint),
        ConditionerPlan::Class { network, .. } => all.push(&network.checkpoint),
    }
    if let ConcatPlan::Semantic(part) = &blueprint.concat {
        all.push(&part.checkpoint);
    }
    all.extend(blueprint.preview.as_ref().map(|part| &part.checkpoint));
    all
}

/// Numbers stored, all networks together.
pub(crate) fn parameters(blueprint: &Blueprint) -> u64 {
    let others: u64 = checkpoints(blueprint).into_iter().map(Checkpoint::parameters).sum();
    others + blueprint.stage.checkpoint.parameters()
}

/// Bytes of the model when it is loaded.
pub(crate) fn bytes(blueprint: &Blueprint, options: &LoadOptions) -> u64 {
    let kind = options.dtype.kind();
    let stage = if kind == Kind::Half && blueprint.stage.config.force_upcast() { Kind::Float } else { kind };
    let others: u64 = checkpoints(blueprint).into_iter().map(Checkpoint::parameters).sum();
    let bytes = |numbers: u64, kind: Kind| numbers * kind.elt_size_in_bytes() as u64;
    bytes(others, kind) + bytes(blueprint.stage.checkpoint.parameters(), stage)
}

/// What a picture needs beside the weights, for each pixel of its latent and for each of its own: about.
///
/// The denoiser holds what its way down hands to its way up, and what its largest block is at work on; the first stage's decoder what
/// its last level is at work on. Counted in numbers of one channel, from the networks' shapes; attention needs no square of its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Working {
    /// Bytes of a row of a network call, per pixel of the latent.
    row: f64,
    /// Bytes of decoding, per pixel of the picture.
    decode: f64,
    /// Pixels that are decoded at once, at most.
    tile: f64,
}

/// Tensors of a level's channels that are alive at the most: in a residual block on the way up the joined input, normalised, convolved,
/// and the shortcut.
const BLOCK: f64 = 6.;
/// In a spatial transformer the input, its normalisation, and the two halves of the feed-forward layer of four times the width, multiplied.
const TRANSFORMER: f64 = 14.;
/// In the last level of a decoder, whose upsampled input has up to twice its channels.
const DECODER: f64 = 6.;

impl Working {
    pub(crate) fn of(blueprint: &Blueprint, options: &LoadOptions) -> Self {
        let kind = options.dtype.kind();
        let size = kind.elt_size_in_bytes() as f64;
        let (mut skips, mut most) = (0., 0_f64);
        for (depth, level) in blueprint.unet.config.levels.iter().enumerate() {
            let pixels = 0.25_f64.powi(depth as i32);
            let channels = level.channels as f64 * pixels;
            skips += channels * (level.resnets + 1) as f64;
            let attends = level.up.attentions > 0 && matches!(level.up.attention, Attention::Transformer { .. });
            most = most.max(channels * if attends { TRANSFORMER } else { BLOCK });
        }
        let stage = if kind == Kind::Half && blueprint.stage.config.force_upcast() { Kind::Float } else { kind };
        let decode = DECODER * blueprint.stage.config.last_channels() as f64 * stage.elt_size_in_bytes() as f64;
        Self { row: (skips + most) * size, decode, tile: f64::from(options.tile_from).powi(2) }
    }

    /// Bytes that a picture needs at the most: `rows` rows of a latent of so many pixels, then the picture of so many.
    pub(crate) fn bytes(&self, rows: u32, latent: f64, pixels: f64) -> u64 {
        (self.row * f64::from(rows) * latent).max(self.decode * pixels.min(self.tile)) as u64
    }
}
