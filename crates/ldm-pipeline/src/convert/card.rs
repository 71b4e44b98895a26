//! A model as a card describes one.

use ldm_formats::card::{
    self, Card, Conditioner, ConditionerKind, ConditioningKey, Defaults, Diffusion, Ema, Layer, Model, Parameterization, Scale,
    Schedule, Serving,
};
use ldm_nn::{FirstStageConfig, Readout};
use ldm_sampler::{BetaSchedule, Prediction, ScheduleConfig};

use super::parameters::{number, stage, unet};
use super::{ConvertError, names};
use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan, TextPart};
use crate::conditioner::Numbers;

pub(super) fn no_form(part: &str, why: impl Into<String>) -> ConvertError {
    ConvertError::NoForm { part: part.to_owned(), layout: "original", why: why.into() }
}

/// The schedule.
fn schedule(config: &ScheduleConfig) -> Result<Schedule, ConvertError> {
    let wrong = |why: String| Err(no_form("scheduler", why));
    if config.trained_betas.is_some() || config.rescale_betas_zero_snr {
        return wrong("original classes have neither `trained_betas` nor `rescale_betas_zero_snr`".into());
    }
    // The other way round than one thinks: see `scheduler` of the families.
    let beta_schedule = match config.beta_schedule {
        BetaSchedule::ScaledLinear => "linear",
        BetaSchedule::Linear => "sqrt_linear",
        other => return wrong(format!("original classes have no {other:?}")),
    };
    Ok(Schedule {
        beta_schedule: beta_schedule.into(),
        linear_start: config.beta_start,
        linear_end: config.beta_end,
        timesteps: config.num_train_timesteps as u32,
    })
}

fn input(name: &str, kind: ConditionerKind) -> Conditioner {
    Conditioner { input: name.to_owned(), kind }
}

/// A text encoder by its original class.
fn text(part: &TextPart, pair: bool) -> Result<ConditionerKind, ConvertError> {
    let config = &part.network.config;
    let max_length = config.max_position_embeddings as u32;
    let wrong = |why: String| Err(no_form(part.network.name, why));
    let open_clip = names::is_open_clip(config);
    let wanted = if pair { Readout::PENULTIMATE } else { Readout::LAST };
    if part.readout != wanted {
        return wrong(format!("it is read at {:?}", part.readout));
    }
    Ok(match (open_clip, pair) {
        (false, false) => ConditionerKind::Clip { version: CLIP.into(), layer: Layer::Last, layer_idx: None, max_length },
        (false, true) => ConditionerKind::Clip { version: CLIP.into(), layer: Layer::Hidden, layer_idx: Some(11), max_length },
        (true, _) => ConditionerKind::OpenClip {
            arch: if pair { "ViT-bigG-14" } else { "ViT-H-14" }.into(),
            layer: Layer::Penultimate,
            max_length,
            final_norm: !pair,
            pooled: pair,
        },
    })
}

const CLIP: &str = "openai/clip-vit-large-patch14";

fn conditioners(blueprint: &Blueprint, low_scale: Option<ConditionerKind>) -> Result<Vec<Conditioner>, ConvertError> {
    let mut all = Vec::new();
    match &blueprint.conditioner {
        ConditionerPlan::None => {}
        ConditionerPlan::Text(part) => all.push(input("txt", text(part, false)?)),
        ConditionerPlan::TextPair { first, second, numbers, .. } => {
            for part in first.iter().chain([second]) {
                all.push(input("txt", text(part, true)?));
            }
            let third = match numbers {
                Numbers::Base => "target_size_as_tuple",
                Numbers::Refiner => "aesthetic_score",
            };
            for name in ["original_size_as_tuple", "crop_coords_top_left", third] {
                all.push(input(name, ConditionerKind::Sinusoids { outdim: 256 }));
            }
        }
        ConditionerPlan::Bert { network, .. } => {
            let config = &network.config;
            let [n_embed, n_layer] = [config.d_model, config.encoder_layers].map(number);
            let [vocab_size, max_seq_len] = [config.vocab_size, config.max_position_embeddings].map(number);
            all.push(input("caption", ConditionerKind::Bert { n_embed, n_layer, vocab_size, max_seq_len, use_tokenizer: true }));
        }
        _ => return Err(no_form("the conditioner", "no directory of diffusers has it")),
    }
    match &blueprint.concat {
        ConcatPlan::Depth => all.push(input("midas_in", ConditionerKind::Midas { model_type: "dpt_hybrid".into() })),
        ConcatPlan::LowResolution => all.push(input("LR_image", ConditionerKind::Identity)),
        ConcatPlan::NoisedLowResolution(_) => all.extend(low_scale.map(|kind| input("lr", kind))),
        _ => {}
    }
    Ok(all)
}

/// What lies beside the latent, and how conditioning enters.
fn keys(blueprint: &Blueprint) -> (Vec<String>, ConditioningKey) {
    let concat: &[&str] = match &blueprint.concat {
        ConcatPlan::MaskMasked | ConcatPlan::MaskedMask => &["mask", "masked_image"],
        ConcatPlan::Depth => &["midas_in"],
        ConcatPlan::LowResolution => &["LR_image"],
        ConcatPlan::NoisedLowResolution(_) => &["lr"],
        ConcatPlan::None | ConcatPlan::Semantic(_) => &[],
    };
    let key = match (&blueprint.conditioner, &blueprint.concat) {
        (ConditionerPlan::None, ConcatPlan::None) => ConditioningKey::None,
        (ConditionerPlan::None, _) => ConditioningKey::Concat,
        (ConditionerPlan::TextPair { .. }, _) => ConditioningKey::CrossattnAdm,
        (_, ConcatPlan::NoisedLowResolution(_)) => ConditioningKey::HybridAdm,
        (_, ConcatPlan::None) => ConditioningKey::Crossattn,
        _ => ConditioningKey::Hybrid,
    };
    (concat.iter().map(|name| (*name).to_owned()).collect(), key)
}

/// The card of a model, called `name`. `low_scale` is what is known of the noise on a small picture.
pub(super) fn card(blueprint: &Blueprint, name: &str, low_scale: Option<ConditionerKind>) -> Result<Card, ConvertError> {
    let first_stage = stage(&blueprint.stage.config).map_err(|why| no_form(blueprint.stage.name, why))?;
    let unet = unet(&blueprint.unet.config).map_err(|why| no_form(blueprint.unet.name, why))?;
    let (concat, conditioning_key) = keys(blueprint);
    let model = Model::Diffusion(Box::new(Diffusion {
        channels: first_stage.channels(),
        first_stage,
        scale: Scale::Fixed(blueprint.stage.config.scaling_factor()),
        conditioners: conditioners(blueprint, low_scale)?,
        concat,
        conditioning_key,
        schedule: schedule(&blueprint.scheduler.config.schedule)?,
        parameterization: match blueprint.scheduler.config.prediction {
            Prediction::Epsilon => Parameterization::Eps,
            Prediction::V => Parameterization::V,
            Prediction::Sample => Parameterization::X0,
        },
        ema: Ema::Plain,
        image_size: blueprint.unet.config.sample_size.map(number),
        unet,
    }));
    let serving = serving(blueprint, &model);
    let source = format!("latentd convert, of a directory of {}", blueprint.family);
    Ok(Card { name: name.to_owned(), title: name.to_owned(), source, model, serving })
}

/// The card of a first stage alone.
pub(super) fn stage_card(config: &FirstStageConfig, name: &str) -> Result<Card, ConvertError> {
    let model = Model::FirstStage(stage(config).map_err(|why| no_form("autoencoder", why))?);
    let serving = Serving::of(&model);
    let source = "latentd convert, of an autoencoder of diffusers".to_owned();
    Ok(Card { name: name.to_owned(), title: name.to_owned(), source, model, serving })
}

/// How it is served: as the directory says, else as follows from the model.
fn serving(blueprint: &Blueprint, model: &Model) -> Serving {
    let mut serving = Serving::of(model);
    let habits = &blueprint.habits;
    serving.rounding = match habits.rounding {
        ldm_core::Rounding::Truncate => card::Rounding::Truncate,
        ldm_core::Rounding::Round => card::Rounding::Round,
    };
    let multiple = serving.size_multiple;
    let fits = |side: u32| side > 0 && side.is_multiple_of(multiple);
    if let Some(Defaults { sampler, steps, guidance, eta, width, height }) = &mut serving.defaults {
        let preferred = blueprint.scheduler.preferred.map(|sampler| sampler.entry().name.to_owned());
        if let Some(name) = habits.sampler.clone().or(preferred) {
            *sampler = name;
        }
        *steps = habits.steps.unwrap_or(*steps);
        *guidance = habits.guidance.unwrap_or(if blueprint.conditions.guidance { 7.5 } else { 1. });
        *eta = habits.eta.unwrap_or(*eta);
        if let Some((wide, high)) = habits.size.filter(|&(wide, high)| fits(wide) && fits(high)) {
            (*width, *height) = (wide, high);
        }
    }
    serving
}
