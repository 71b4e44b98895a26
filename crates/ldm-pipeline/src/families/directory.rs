//! Directories as diffusers writes them: `model_index.json` and one folder for each part.

use std::path::Path;

use ldm_core::{Conditions, Task};
use ldm_nn::conditioners::{BertTokenizer, LdmBertConfig, LdmBertModel};
use ldm_nn::{Architecture, Checkpoint, ClipTextConfig, ClipTextModel, ClipTokenizer, ConfigError, FirstStageConfig, Readout};
use serde_json::Value;

use super::{ModelError, Problems, largest_side, read_json};
use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan, Habits, Part, TextPart};
use crate::card::Card;
use crate::conditioner::Numbers;
use crate::scheduler;

/// How the parts of a pipeline class go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One CLIP text encoder.
    Text,
    /// SDXL's text encoders.
    TextPair,
    /// The paper's text encoder.
    Bert,
    /// Nothing.
    Unconditional,
    /// The small picture beside the latent.
    SuperResolution,
}

struct Class {
    name: &'static str,
    family: &'static str,
    kind: Kind,
}

const fn class(name: &'static str, family: &'static str, kind: Kind) -> Class {
    Class { name, family, kind }
}

/// `_class_name`s that are known.
const CLASSES: &[Class] = &[
    class("StableDiffusionPipeline", "stable-diffusion", Kind::Text),
    class("StableDiffusionImg2ImgPipeline", "stable-diffusion", Kind::Text),
    class("StableDiffusionInpaintPipeline", "stable-diffusion", Kind::Text),
    class("StableDiffusionDepth2ImgPipeline", "stable-diffusion", Kind::Text),
    class("StableDiffusionUpscalePipeline", "stable-diffusion", Kind::Text),
    class("LatentConsistencyModelPipeline", "stable-diffusion", Kind::Text),
    class("LatentConsistencyModelImg2ImgPipeline", "stable-diffusion", Kind::Text),
    class("StableDiffusionXLPipeline", "stable-diffusion-xl", Kind::TextPair),
    class("StableDiffusionXLImg2ImgPipeline", "stable-diffusion-xl", Kind::TextPair),
    class("StableDiffusionXLInpaintPipeline", "stable-diffusion-xl", Kind::TextPair),
    class("LDMTextToImagePipeline", "latent-diffusion", Kind::Bert),
    class("LDMPipeline", "latent-diffusion", Kind::Unconditional),
    class("LDMSuperResolutionPipeline", "latent-diffusion", Kind::SuperResolution),
];

/// Pipelines that take any scheduler's `steps_offset` for an outdated file's, and make it 1.
const OFFSET_IS_ONE: [&str; 3] = ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"];

/// Folder and stem of the denoiser's and the autoencoder's weights.
const WEIGHTS: &str = "diffusion_pytorch_model";

fn class_of(dir: &Path, index: &Value) -> Result<&'static Class, ModelError> {
    let name = index["_class_name"].as_str().unwrap_or_default();
    CLASSES.iter().find(|class| class.name == name).ok_or_else(|| ModelError::UnknownFamily {
        dir: dir.to_owned(),
        class: name.to_owned(),
        known: CLASSES.iter().map(|class| class.name).collect::<Vec<_>>().join(", "),
    })
}

/// The family that `model_index.json` names, if it names a known one.
pub(super) fn family(dir: &Path) -> Option<String> {
    let index: Value = read_json(&dir.join("model_index.json")).ok()?;
    Some(class_of(dir, &index).ok()?.family.to_owned())
}

/// A part whose files are in `dir/name`.
struct Folder<'a> {
    dir: &'a Path,
    name: &'static str,
}

impl Folder<'_> {
    fn config<C>(&self, read: impl FnOnce(&Path) -> Result<C, ConfigError>) -> Result<C, ModelError> {
        let path = self.dir.join(self.name).join("config.json");
        read(&path).map_err(|source| ModelError::Config { part: self.name, source })
    }

    fn checkpoint(&self, stem: &str) -> Result<Checkpoint, ModelError> {
        Checkpoint::open(&self.dir.join(self.name), stem).map_err(|source| ModelError::Checkpoint { part: self.name, source })
    }
}

fn text(dir: &Path, tokenizer: &'static str, name: &'static str, readout: Readout) -> Result<TextPart, Vec<ModelError>> {
    let folder = Folder { dir, name };
    let config = folder.config(ClipTextConfig::read);
    let checkpoint = folder.checkpoint("model");
    // Without the encoder's configuration the tokenizer is still looked at.
    let positions = config.as_ref().map_or(77, |config| config.max_position_embeddings as usize);
    let vocabulary = dir.join(tokenizer);
    let tokenizer = ClipTokenizer::read(&vocabulary, positions).map_err(ModelError::from);
    let mut problems = Problems::default();
    match (problems.keep(tokenizer), problems.keep(config), problems.keep(checkpoint)) {
        (Some(tokenizer), Some(config), Some(checkpoint)) => {
            let class = if config.has_projection() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
            let checkpoint = checkpoint.rename(ClipTextModel::canonical_name);
            Ok(TextPart { tokenizer, vocabulary, network: Part { name, class, config, checkpoint }, readout })
        }
        _ => Err(problems.0),
    }
}

fn bert(dir: &Path) -> Result<ConditionerPlan, Vec<ModelError>> {
    let folder = Folder { dir, name: "bert" };
    let config = folder.config(LdmBertConfig::read);
    let checkpoint = Checkpoint::open(&dir.join("bert"), "model")
        .or_else(|_| Checkpoint::open(&dir.join("bert"), "pytorch_model"))
        .map_err(|source| ModelError::Checkpoint { part: "bert", source });
    let positions = config.as_ref().map_or(77, |config| config.max_position_embeddings as usize);
    let vocabulary = dir.join("tokenizer");
    let tokenizer = BertTokenizer::read(&vocabulary, positions).map_err(ModelError::from);
    let mut problems = Problems::default();
    match (problems.keep(tokenizer), problems.keep(config), problems.keep(checkpoint)) {
        (Some(tokenizer), Some(config), Some(checkpoint)) => {
            let checkpoint = checkpoint.rename(LdmBertModel::canonical_name);
            let network = Part { name: "bert", class: "LDMBertModel", config, checkpoint };
            Ok(ConditionerPlan::Bert { tokenizer, vocabulary, network })
        }
        _ => Err(problems.0),
    }
}

fn unet(dir: &Path) -> Result<Part<Architecture>, Vec<ModelError>> {
    let folder = Folder { dir, name: "unet" };
    let mut problems = Problems::default();
    match (problems.keep(folder.config(Architecture::read)), problems.keep(folder.checkpoint(WEIGHTS))) {
        (Some(config), Some(checkpoint)) => {
            let class = if config.cross_attention_dim > 0 { "UNet2DConditionModel" } else { "UNet2DModel" };
            Ok(Part { name: "unet", class, config, checkpoint })
        }
        _ => Err(problems.0),
    }
}

/// The autoencoder of a pipeline's directory, or of its own.
pub(crate) fn read_stage(dir: &Path) -> Result<Part<FirstStageConfig>, ModelError> {
    if dir.join("config.json").is_file() {
        let wrong = |source| ModelError::Config { part: "config.json", source };
        let config = FirstStageConfig::read(&dir.join("config.json")).map_err(wrong)?;
        let checkpoint =
            Checkpoint::open(dir, WEIGHTS).map_err(|source| ModelError::Checkpoint { part: "autoencoder", source })?;
        let class = class_name(&config);
        let checkpoint = config.canonical(checkpoint);
        return Ok(Part { name: "autoencoder", class, config, checkpoint });
    }
    stage(dir).map_err(|mut errors| errors.swap_remove(0))
}

/// The autoencoder in `vae`, or in `vqvae` as latent-diffusion's pipelines have it.
fn stage(dir: &Path) -> Result<Part<FirstStageConfig>, Vec<ModelError>> {
    let name = if dir.join("vqvae").is_dir() { "vqvae" } else { "vae" };
    let folder = Folder { dir, name };
    let mut problems = Problems::default();
    match (problems.keep(folder.config(FirstStageConfig::read)), problems.keep(folder.checkpoint(WEIGHTS))) {
        (Some(config), Some(checkpoint)) => {
            let class = class_name(&config);
            let checkpoint = config.canonical(checkpoint);
            Ok(Part { name, class, config, checkpoint })
        }
        _ => Err(problems.0),
    }
}

/// The class of an autoencoder.
pub(crate) fn class_name(config: &FirstStageConfig) -> &'static str {
    match config {
        FirstStageConfig::Kl(_) => "AutoencoderKL",
        FirstStageConfig::Vq(_) => "VQModel",
        FirstStageConfig::Tiny(_) => "AutoencoderTiny",
    }
}

/// What lies beside the latent: the channels of the denoiser's input say it, except where the class must.
fn concat(dir: &Path, class: &Class, unet: &Architecture, latent: i64) -> Result<ConcatPlan, ModelError> {
    let beside = unet.in_channels - latent;
    match (class.name, beside) {
        (_, 0) => Ok(ConcatPlan::None),
        ("StableDiffusionUpscalePipeline", 3) => {
            Ok(ConcatPlan::NoisedLowResolution(scheduler::alphas_cumprod(&dir.join("low_res_scheduler"))?))
        }
        ("LDMSuperResolutionPipeline", 3) => Ok(ConcatPlan::LowResolution),
        ("StableDiffusionDepth2ImgPipeline", 1) => Ok(ConcatPlan::Depth),
        _ if matches!(class.kind, Kind::Text | Kind::TextPair) && beside == latent + 1 => Ok(ConcatPlan::MaskMasked),
        _ => Err(ModelError::Mismatch(format!(
            "unet/config.json: `in_channels` is {}; the autoencoder's `latent_channels` is {latent}, and {} puts no {beside} channels beside \
             the latent",
            unet.in_channels, class.name
        ))),
    }
}

/// Reads a directory; every problem of every part when there is any.
pub(crate) fn read(dir: &Path) -> Result<Blueprint, Vec<ModelError>> {
    let index: Value = read_json(&dir.join("model_index.json")).map_err(|error| vec![error])?;
    let class = class_of(dir, &index).map_err(|error| vec![error])?;
    let mut problems = Problems::default();
    let conditioner = match class.kind {
        Kind::Unconditional | Kind::SuperResolution => Ok(ConditionerPlan::None),
        Kind::Text => text(dir, "tokenizer", "text_encoder", Readout::LAST).map(ConditionerPlan::Text),
        Kind::Bert => bert(dir),
        Kind::TextPair => {
            let has_first = index["text_encoder"].as_array().is_some_and(|part| part.iter().all(|word| !word.is_null()));
            let first = has_first.then(|| text(dir, "tokenizer", "text_encoder", Readout::PENULTIMATE)).transpose();
            let second = text(dir, "tokenizer_2", "text_encoder_2", Readout::PENULTIMATE);
            match (problems.keep_all(first), problems.keep_all(second)) {
                (Some(first), Some(second)) => Ok(ConditionerPlan::TextPair {
                    first,
                    second,
                    numbers: if index["requires_aesthetics_score"].as_bool() == Some(true) {
                        Numbers::Refiner
                    } else {
                        Numbers::Base
                    },
                    zeros_for_empty: index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true),
                }),
                _ => Err(vec![]),
            }
        }
    };
    let conditioner = problems.keep_all(conditioner);
    let unet = problems.keep_all(unet(dir));
    let stage = problems.keep_all(stage(dir));
    let scheduler = problems.keep(scheduler::read(dir, OFFSET_IS_ONE.contains(&class.name)));
    let card = problems.keep(Card::read(dir));
    let (Some(conditioner), Some(unet), Some(stage), Some(mut scheduler), Some(card)) =
        (conditioner, unet, stage, scheduler, card)
    else {
        return Err(problems.0);
    };
    // Guidance as an input of the denoiser is what tells such a model from one that a LoRA makes consistent.
    scheduler.config.strength_shortens = unet.config.guidance.is_some();
    let one = |error| vec![error];
    let concat = concat(dir, class, &unet.config, stage.config.latent_channels()).map_err(one)?;
    let tasks = match (&concat, class.kind) {
        (ConcatPlan::None, Kind::Unconditional) => vec![Task::Unconditional],
        (ConcatPlan::None, _) => vec![Task::Txt2Img, Task::Img2Img, Task::Inpaint],
        (ConcatPlan::LowResolution | ConcatPlan::NoisedLowResolution(_), _) => vec![Task::SuperResolution],
        (ConcatPlan::Depth, _) => vec![Task::Depth],
        (ConcatPlan::MaskedMask | ConcatPlan::MaskMasked, _) => vec![Task::Inpaint],
        (ConcatPlan::Semantic(_), _) => vec![Task::Semantic],
    };
    let deaf = matches!(class.kind, Kind::Unconditional | Kind::SuperResolution);
    let enlarges = tasks.contains(&Task::SuperResolution);
    let conditions = Conditions {
        prompt: !deaf,
        guidance: !deaf,
        upscale: enlarges.then(|| stage.config.factor() as u32),
        noise_levels: match &concat {
            // The published model was trained up to this level (its `max_noise_level`).
            ConcatPlan::NoisedLowResolution(_) => Some(index["max_noise_level"].as_u64().map_or(350, |most| most as u32) + 1),
            _ => None,
        },
        ..Conditions::default()
    };
    let mut habits = Habits::from(card);
    if deaf {
        habits.guidance = Some(1.);
    }
    habits.max = habits.max.or(largest_side(&concat));
    let blueprint = Blueprint {
        family: class.family.to_owned(),
        tasks,
        conditions,
        unet,
        stage,
        preview: None,
        conditioner,
        concat,
        scheduler,
        habits,
        tile: None,
        ema: false,
        evidence: vec![format!("`_class_name` is {}", class.name)],
    };
    blueprint.check().map_err(one)?;
    Ok(blueprint)
}
