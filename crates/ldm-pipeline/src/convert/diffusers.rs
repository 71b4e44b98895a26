//! A single file of the original repositories as a directory of diffusers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_formats::card::{Card, ConditionerKind, Model};
use ldm_formats::convert::Progress;
use ldm_formats::header;
use ldm_formats::recognise::part_of;
use ldm_nn::conditioners::LdmBertModel;
use ldm_nn::formats::{first_stage, unet as unet_names};
use ldm_nn::{Architecture, Checkpoint, ClipTextModel, FirstStage, FirstStageConfig, Mapped, UNet, Weights};
use ldm_sampler::{BetaSchedule, ScheduleConfig};
use serde_json::{Map, Value, json};

use super::compare::difference;
use super::output::{Item, Output};
use super::{ConvertError, ConvertOptions, Converted, configs, names, tokenizer, unet_config};
use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan, Part, TextPart};
use crate::card;
use crate::conditioner::Numbers;
use crate::families::ModelError;
use crate::families::directory;
use crate::families::original::{self, Original};
use crate::options::ModelSource;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn no_form(part: &str, why: impl Into<String>) -> ConvertError {
    ConvertError::NoForm { part: part.to_owned(), layout: "diffusers", why: why.into() }
}

/// Writes everything into `folder`, and reads it again.
pub(super) fn write(
    file: Original<'_>,
    source: &ModelSource,
    folder: &Path,
    options: ConvertOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Converted, ConvertError> {
    let (card, evidence) = original::describe(file, source.config.as_deref())?;
    if let Model::FirstStage(_) = &card.model {
        let part = original::read_stage(file, source.config.as_deref())?;
        let output = stage_alone(&part)?;
        let (tensors, bytes) = output.write(folder, options.cast, progress)?;
        directory::read_stage(folder)?;
        let used = |name: &str| !name.starts_with("loss.") && !name.starts_with("model_ema.");
        return Ok(Converted { tensors, bytes, beside: vec![], left_out: left_out(file, used)? });
    }
    let blueprint = original::blueprint(file, &card, evidence, source.ema)?;
    let output = pipeline(file, &card, &blueprint)?;
    let (tensors, bytes) = output.write(folder, options.cast, progress)?;
    let again = directory::read(folder).map_err(|mut errors| errors.swap_remove(0))?;
    if let Some(difference) = difference(&blueprint, &again) {
        return Err(ConvertError::Changed(difference));
    }
    let used = used(&blueprint);
    Ok(Converted { tensors, bytes, beside: vec![], left_out: left_out(file, used)? })
}

/// Names of the file that are not `used`, by part.
fn left_out(file: Original<'_>, used: impl Fn(&str) -> bool) -> Result<Vec<(String, usize)>, ConvertError> {
    let invalid = |error: header::HeaderError| ModelError::Invalid { path: file.file.to_owned(), message: error.to_string() };
    let header = header::open(file.weights).map_err(invalid)?;
    let mut parts = BTreeMap::new();
    for tensor in header.tensors.iter().filter(|tensor| !used(&tensor.name)) {
        *parts.entry(part_of(&tensor.name)).or_insert(0) += 1;
    }
    Ok(parts.into_iter().map(|(part, count)| (part.to_string(), count)).collect())
}

/// Whether a name of the original file is of something that the directory has.
fn used(blueprint: &Blueprint) -> impl Fn(&str) -> bool + '_ {
    // Blueprints of files were read by these very names.
    let denoiser: BTreeSet<String> = unet_names::names(&blueprint.unet.config)
        .unwrap_or_default()
        .into_keys()
        .map(|name| match blueprint.ema {
            true => unet_names::ema_name(&name),
            false => format!("{}{name}", unet_names::PREFIX),
        })
        .collect();
    let texts = names::texts(&blueprint.conditioner);
    let is_bert = matches!(blueprint.conditioner, ConditionerPlan::Bert { .. });
    move |name| {
        let stage = name.strip_prefix(first_stage::PREFIX).is_some_and(|own| !own.starts_with("loss."));
        let text = texts.iter().any(|text| text.forward(name) != Mapped::Drop);
        let bert = is_bert && names::bert_forward(name) != Mapped::Drop;
        stage || text || bert || name == "scale_factor" || denoiser.contains(name)
    }
}

fn stage_alone(part: &Part<FirstStageConfig>) -> Result<Output, ConvertError> {
    let mut output = Output::default();
    output.json("config.json", &configs::stage(&part.config).0);
    output.weights.push((WEIGHTS.into(), stage_items(part)?));
    Ok(output)
}

fn stage_items(part: &Part<FirstStageConfig>) -> Result<Vec<Item>, ConvertError> {
    let wanted = Weights::shapes();
    FirstStage::new(&wanted, &part.config);
    items(part.name, &part.checkpoint, wanted.into_shapes(), &[])
}

/// The tensors that a network of diffusers asks for, with what `more` names besides. Everything must be there, and nothing else.
fn items(
    part: &str,
    checkpoint: &Checkpoint,
    mut wanted: BTreeMap<String, Vec<i64>>,
    more: &[&str],
) -> Result<Vec<Item>, ConvertError> {
    wanted.extend(more.iter().filter_map(|name| Some(((*name).to_owned(), checkpoint.shape(name)?))));
    let unfit = |what: String| ConvertError::Model(ModelError::Mismatch(format!("{part}: {what}")));
    if let Some(name) = checkpoint.names().find(|name| !wanted.contains_key(*name)) {
        return Err(unfit(format!("`{name}` is not expected")));
    }
    let item = |(name, shape): (String, Vec<i64>)| {
        let found = checkpoint.shape(&name).ok_or_else(|| unfit(format!("`{name}` is missing")))?;
        let sides = |shape: &[i64]| shape.iter().copied().filter(|&side| side != 1).collect::<Vec<_>>();
        if sides(&found) != sides(&shape) {
            return Err(unfit(format!("`{name}` is {found:?}, not {shape:?}")));
        }
        Ok(Item { made: Mapped::As(name.clone()), name, shape, checkpoint: checkpoint.clone() })
    };
    wanted.into_iter().map(item).collect()
}

/// The pipeline's class.
fn class_of(blueprint: &Blueprint) -> Result<&'static str, ConvertError> {
    let concat = match &blueprint.concat {
        ConcatPlan::MaskedMask => return Err(no_form("the latent of the masked picture beside the latent", NO_PIPELINE)),
        ConcatPlan::Semantic(part) => return Err(no_form(&format!("{} ({})", part.name, part.class), NO_PIPELINE)),
        concat => concat,
    };
    let by_part = |part: &str| Err(no_form(part, NO_PIPELINE));
    match (&blueprint.conditioner, concat) {
        (ConditionerPlan::Text(_), ConcatPlan::None) => Ok("StableDiffusionPipeline"),
        (ConditionerPlan::Text(_), ConcatPlan::MaskMasked) => Ok("StableDiffusionInpaintPipeline"),
        (ConditionerPlan::Text(_), ConcatPlan::Depth) => Ok("StableDiffusionDepth2ImgPipeline"),
        (ConditionerPlan::Text(_), ConcatPlan::NoisedLowResolution(_)) => Ok("StableDiffusionUpscalePipeline"),
        (ConditionerPlan::TextPair { first: Some(_), .. }, ConcatPlan::None) => Ok("StableDiffusionXLPipeline"),
        (ConditionerPlan::TextPair { first: Some(_), .. }, ConcatPlan::MaskMasked) => Ok("StableDiffusionXLInpaintPipeline"),
        (ConditionerPlan::TextPair { first: None, .. }, ConcatPlan::None) => Ok("StableDiffusionXLImg2ImgPipeline"),
        (ConditionerPlan::Bert { .. }, ConcatPlan::None) => Ok("LDMTextToImagePipeline"),
        (ConditionerPlan::None, ConcatPlan::None) => Ok("LDMPipeline"),
        (ConditionerPlan::None, ConcatPlan::LowResolution) => Ok("LDMSuperResolutionPipeline"),
        (ConditionerPlan::Class { .. }, _) => by_part("cond_stage_model (ClassEmbedder)"),
        (ConditionerPlan::Layout { .. }, _) => by_part("cond_stage_model (BERTEmbedder over boxes)"),
        (ConditionerPlan::Neighbors { .. }, _) => by_part("conditioning on embeddings of neighbours"),
        _ => by_part("this conditioner with what lies beside the latent"),
    }
}

const NO_PIPELINE: &str = "no pipeline of diffusers has it";

/// What is written: `model_index.json` grows as parts are added.
struct Pipeline {
    output: Output,
    index: Map<String, Value>,
}

impl Pipeline {
    fn part(&mut self, name: &str, library: &str, class: &str) {
        self.index.insert(name.into(), json!([library, class]));
    }

    /// Parts that diffusers' class asks for and the model has not.
    fn without(&mut self, names: &[&str]) {
        for name in names {
            self.index.insert((*name).into(), json!([null, null]));
        }
    }

    fn network(&mut self, name: &str, config: &Value, file: &str, items: Vec<Item>) {
        self.output.json(format!("{name}/config.json"), config);
        self.output.weights.push((format!("{name}/{file}"), items));
    }

    fn text(&mut self, part: &TextPart, name: &str, tokenizer: &str) -> Result<(), ConvertError> {
        let TextPart { tokenizer: words, vocabulary, network, .. } = part;
        let wanted = Weights::shapes();
        ClipTextModel::new(&wanted, &network.config);
        let items = items(network.name, &network.checkpoint, wanted.into_shapes(), &[])?;
        let marks = words.marks();
        // OpenCLIP's pooled vector is read at the largest number, which 2 stands for in transformers.
        let (config, class) = configs::clip(&network.config, [marks.begin, network.config.eos_token_id.unwrap_or(2), marks.pad]);
        self.network(name, &config, "model.safetensors", items);
        self.part(name, "transformers", class);
        self.part(tokenizer, "transformers", "CLIPTokenizer");
        tokenizer::clip(&mut self.output, vocabulary, tokenizer, words)
    }
}

fn pipeline(file: Original<'_>, card: &Card, blueprint: &Blueprint) -> Result<Output, ConvertError> {
    let class = class_of(blueprint)?;
    let mut made = Pipeline { output: Output::default(), index: Map::new() };
    made.index.insert("_class_name".into(), json!(class));
    made.index.insert("_diffusers_version".into(), json!(configs::DIFFUSERS));
    conditioner(&mut made, file, &blueprint.conditioner)?;
    let side = sample_size(blueprint);
    denoiser(&mut made, blueprint, side)?;
    let name = if class.starts_with("LDM") { "vqvae" } else { "vae" };
    let (config, stage_class) = configs::stage(&blueprint.stage.config);
    made.network(name, &config, WEIGHTS, stage_items(&blueprint.stage)?);
    made.part(name, "diffusers", stage_class);
    let (config, scheduler) = configs::scheduler(&blueprint.scheduler.config, blueprint.habits.sampler.as_deref());
    made.output.json("scheduler/scheduler_config.json", &config);
    made.part("scheduler", "diffusers", scheduler);
    match class {
        "StableDiffusionPipeline" | "StableDiffusionInpaintPipeline" => {
            made.without(&["safety_checker", "feature_extractor", "image_encoder"]);
            made.index.insert("requires_safety_checker".into(), json!(false));
        }
        "StableDiffusionDepth2ImgPipeline" => made.without(&["depth_estimator", "feature_extractor"]),
        "StableDiffusionUpscalePipeline" => {
            made.without(&["safety_checker", "feature_extractor", "watermarker"]);
            low_res(&mut made, file, card)?;
        }
        "StableDiffusionXLPipeline" => made.without(&["feature_extractor", "image_encoder"]),
        "StableDiffusionXLInpaintPipeline" | "StableDiffusionXLImg2ImgPipeline" => {
            made.without(&["feature_extractor", "image_encoder"]);
            let refiner = class == "StableDiffusionXLImg2ImgPipeline";
            made.index.insert("requires_aesthetics_score".into(), json!(refiner));
        }
        _ => {}
    }
    let Pipeline { mut output, index } = made;
    output.json("model_index.json", &Value::Object(index));
    output.texts.push(("card.toml".into(), card::text(&blueprint.habits)));
    Ok(output)
}

/// Height and width of the latents of training, or of the default picture.
fn sample_size(blueprint: &Blueprint) -> Option<i64> {
    let by_default = blueprint.habits.size.map(|(width, _)| i64::from(width) / blueprint.stage.config.factor());
    blueprint.unet.config.sample_size.or(by_default)
}

fn denoiser(made: &mut Pipeline, blueprint: &Blueprint, sample_size: Option<i64>) -> Result<(), ConvertError> {
    let part = &blueprint.unet;
    let text_time = matches!(blueprint.conditioner, ConditionerPlan::TextPair { .. });
    let architecture = Architecture { sample_size, ..part.config.clone() };
    let (config, class) = unet_config::unet(&architecture, text_time).map_err(|why| no_form(part.name, why))?;
    let wanted = Weights::shapes();
    UNet::build(&wanted, &part.config);
    let mut items = items(part.name, &part.checkpoint, wanted.into_shapes(), &[])?;
    if text_time {
        // The original has one place for both kinds of a vector.
        for item in &mut items {
            if let Some(leaf) = item.name.strip_prefix("class_embedding.") {
                item.name = format!("add_embedding.{leaf}");
            }
        }
    }
    made.network("unet", &config, WEIGHTS, items);
    made.part("unet", "diffusers", class);
    Ok(())
}

fn conditioner(made: &mut Pipeline, file: Original<'_>, plan: &ConditionerPlan) -> Result<(), ConvertError> {
    match plan {
        ConditionerPlan::Text(text) => made.text(text, "text_encoder", "tokenizer"),
        ConditionerPlan::TextPair { first, second, numbers, zeros_for_empty } => {
            match first {
                Some(first) => made.text(first, "text_encoder", "tokenizer")?,
                None => made.without(&["text_encoder", "tokenizer"]),
            }
            made.index.insert("force_zeros_for_empty_prompt".into(), json!(zeros_for_empty));
            if *numbers == Numbers::Refiner {
                made.index.insert("requires_aesthetics_score".into(), json!(true));
            }
            made.text(second, "text_encoder_2", "tokenizer_2")
        }
        ConditionerPlan::Bert { tokenizer, vocabulary, network } => {
            let wanted = Weights::shapes();
            LdmBertModel::new(&wanted, &network.config);
            // With its output layer, which loading leaves out and diffusers' class wants.
            let checkpoint = original::open(file.weights)?.map_names(|name, _| names::bert_forward(name));
            let items = items(network.name, &checkpoint, wanted.into_shapes(), &["to_logits.weight", "to_logits.bias"])?;
            made.network("bert", &configs::bert(&network.config), "model.safetensors", items);
            made.part("bert", "latent_diffusion", "LDMBertModel");
            made.part("tokenizer", "transformers", "BertTokenizer");
            tokenizer::bert(&mut made.output, vocabulary, "tokenizer", tokenizer.length())
        }
        _ => Ok(()),
    }
}

/// The schedule of the noise on the small picture.
fn low_res(made: &mut Pipeline, file: Original<'_>, card: &Card) -> Result<(), ConvertError> {
    let kinds = card.model.diffusion().into_iter().flat_map(|diffusion| &diffusion.conditioners);
    let mut found = kinds.filter_map(|conditioner| match conditioner.kind {
        ConditionerKind::LowScale { max_noise_level, timesteps, linear_start, linear_end } => {
            let schedule = ScheduleConfig {
                beta_schedule: BetaSchedule::ScaledLinear,
                beta_start: linear_start,
                beta_end: linear_end,
                num_train_timesteps: timesteps as usize,
                ..ScheduleConfig::default()
            };
            Some((schedule, max_noise_level))
        }
        _ => None,
    });
    let missing = || ModelError::Invalid { path: file.file.to_owned(), message: "no schedule for the small picture".into() };
    let (schedule, most) = found.next().ok_or_else(missing)?;
    made.output.json("low_res_scheduler/scheduler_config.json", &configs::low_res(&schedule));
    made.part("low_res_scheduler", "diffusers", "DDPMScheduler");
    made.index.insert("max_noise_level".into(), json!(most));
    Ok(())
}
