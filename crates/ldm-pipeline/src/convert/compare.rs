//! Whether two descriptions are of one model, whichever layout each was read from.

use ldm_nn::unet::{Labels, QkvOrder};
use ldm_nn::{Architecture, ClipTextConfig, FirstStageConfig};

use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan, TextPart};

/// The denoiser without what a layout alone knows: the size of training, the order of rows in joint projections, and what the
/// vector beside the timestep is called.
pub(super) fn plain(architecture: &Architecture) -> Architecture {
    let labels = architecture.added.map_or(architecture.labels, |added| Labels::Vector(added.width));
    Architecture { sample_size: None, qkv: QkvOrder::Heads, labels, added: None, ..architecture.clone() }
}

/// The first stage without what does not change its numbers, and with what is there when nothing is said.
pub(super) fn plain_stage(config: &FirstStageConfig) -> FirstStageConfig {
    let named = |types: &[String], plain: &str, levels: usize| match types {
        [] => vec![plain.to_owned(); levels],
        types => types.to_vec(),
    };
    let mut config = config.clone();
    match &mut config {
        FirstStageConfig::Kl(config) => {
            let levels = config.block_out_channels.len();
            config.down_block_types = named(&config.down_block_types, ldm_nn::blocks::DOWN[0], levels);
            config.up_block_types = named(&config.up_block_types, ldm_nn::blocks::UP[0], levels);
            (config.sample_size, config.force_upcast, config.shift_factor) = (0, true, None);
            config.act_fn = "silu".into();
        }
        FirstStageConfig::Vq(config) => {
            let levels = config.block_out_channels.len();
            config.down_block_types = named(&config.down_block_types, ldm_nn::blocks::DOWN[0], levels);
            config.up_block_types = named(&config.up_block_types, ldm_nn::blocks::UP[0], levels);
            (config.sample_size, config.force_upcast) = (0, true);
            config.vq_embed_dim = Some(config.embed_dim());
            config.act_fn = "silu".into();
        }
        FirstStageConfig::Tiny(config) => (config.force_upcast, config.shift_factor) = (true, None),
    }
    config
}

/// A text encoder without how its class is called. The mark of the end is looked for by its number, or as the largest: the same
/// where it is the last of the vocabulary.
fn plain_text(config: &ClipTextConfig) -> ClipTextConfig {
    let projects = config.has_projection();
    let last = config.vocab_size - 1;
    ClipTextConfig {
        eos_token_id: config.eos_token_id.filter(|&id| id != 2 && id != last && projects),
        projection_dim: config.projection_dim.filter(|_| projects),
        architectures: projects.then(|| config.architectures.clone()).flatten(),
        ..config.clone()
    }
}

/// The first thing that two models differ in.
pub(super) fn difference(a: &Blueprint, b: &Blueprint) -> Option<String> {
    let told = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| Some(format!("{what}: {a:?} would be {b:?}"));
    let (one, other) = (plain(&a.unet.config), plain(&b.unet.config));
    if one != other {
        return told("the denoiser", &one, &other);
    }
    let (one, other) = (plain_stage(&a.stage.config), plain_stage(&b.stage.config));
    if one != other {
        return told("the first stage", &one, &other);
    }
    let (one, other) = (&a.scheduler.config, &b.scheduler.config);
    if (&one.schedule, one.prediction) != (&other.schedule, other.prediction) {
        return told("the schedule", &(&one.schedule, one.prediction), &(&other.schedule, other.prediction));
    }
    if let Some(difference) = concat(&a.concat, &b.concat) {
        return Some(difference);
    }
    conditioner(&a.conditioner, &b.conditioner)
}

fn concat(a: &ConcatPlan, b: &ConcatPlan) -> Option<String> {
    match (a, b) {
        (ConcatPlan::NoisedLowResolution(a), ConcatPlan::NoisedLowResolution(b)) => {
            let near = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
            (!near).then(|| "the schedule of the small picture's noise".to_owned())
        }
        _ if std::mem::discriminant(a) == std::mem::discriminant(b) => None,
        _ => Some("what lies beside the latent".to_owned()),
    }
}

fn conditioner(a: &ConditionerPlan, b: &ConditionerPlan) -> Option<String> {
    use ConditionerPlan::{Bert, Class, Layout, Neighbors, None as Nothing, Text, TextPair};
    match (a, b) {
        (Text(a), Text(b)) => text(a, b),
        (
            TextPair { first, second, numbers, zeros_for_empty },
            TextPair { first: other, second: second_b, numbers: numbers_b, zeros_for_empty: zeros_b },
        ) => {
            if (numbers, zeros_for_empty) != (numbers_b, zeros_b) {
                let said = |numbers, zeros| format!("{numbers:?} numbers, zeros for an empty prompt: {zeros}");
                return Some(format!("{} would be {}", said(numbers, zeros_for_empty), said(numbers_b, zeros_b)));
            }
            match (first, other) {
                (Some(a), Some(b)) => text(a, b),
                (None, None) => None,
                _ => Some("the number of text encoders".to_owned()),
            }
            .or_else(|| text(second, second_b))
        }
        (Bert { network: a, .. }, Bert { network: b, .. }) => {
            (a.config != b.config).then(|| format!("the text encoder: {:?} would be {:?}", a.config, b.config))
        }
        (Nothing, Nothing)
        | (Class { .. }, Class { .. })
        | (Layout { .. }, Layout { .. })
        | (Neighbors { .. }, Neighbors { .. }) => None,
        _ => Some("the conditioner".to_owned()),
    }
}

fn text(a: &TextPart, b: &TextPart) -> Option<String> {
    let said = |part: &TextPart| (plain_text(&part.network.config), part.readout, part.tokenizer.marks());
    let (a, b) = (said(a), said(b));
    (a != b).then(|| format!("the text encoder: {a:?} would be {b:?}"))
}
