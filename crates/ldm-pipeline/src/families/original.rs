//! Single files in the layout of the original repositories, described by a card: ours, or the published YAML beside them.

use std::path::{Path, PathBuf};

use ldm_core::{BoxBounds, Conditions, NeighborBounds, Rounding, Task};
use ldm_formats::card::{
    self, Card, Conditioner, ConditionerKind, Diffusion, Ema as CardEma, FirstStage as Stage, Layer, Model, Parameterization,
    Scale, Unet,
};
use ldm_formats::header;
use ldm_formats::recognise::{Shapes, recognise};
use ldm_nn::conditioners::{
    BertEmbedderParams, BertTokenizer, ClassEmbedderConfig, LayoutConfig, LdmBertConfig, SpatialRescalerConfig,
};
use ldm_nn::formats::first_stage::{OriginalFirstStage, scale_factor};
use ldm_nn::formats::unet::{self, Ema};
use ldm_nn::formats::{bert, clip};
use ldm_nn::unet::OpenAiConfig;
use ldm_nn::{Architecture, Checkpoint, ClipTextConfig, ClipTokenizer, FirstStageConfig, Mapped, Readout};
use ldm_sampler::{BetaSchedule, NoiseSchedule, Prediction, ScheduleConfig, SchedulerConfig, SigmaSchedule, Spacing};
use serde_json::{Value, json};

use super::{ModelError, largest_side};
use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan, Habits, Part, TextPart};
use crate::conditioner::Numbers;
use crate::options::EmaChoice;
use crate::scheduler::Scheduler;

/// Neighbours that retrieval-augmented models were trained with, and the prompt's own embedding.
const NEIGHBORS: u32 = 21;

/// OpenCLIP pads with the token 0, whatever the vocabulary's own files say.
const OPEN_CLIP_PADDING: u32 = 0;

fn invalid(path: &Path, message: impl std::fmt::Display) -> ModelError {
    ModelError::Invalid { path: path.to_owned(), message: message.to_string() }
}

fn text_of(path: &Path) -> Result<String, ModelError> {
    std::fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

/// The card that a file or a name says.
fn card_at(config: &Path) -> Result<Card, ModelError> {
    let extension = config.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !config.is_file() && extension.is_empty() {
        return card::builtin(&config.to_string_lossy()).map_err(|error| invalid(config, error));
    }
    let text = text_of(config)?;
    let name = config.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match extension {
        "yaml" | "yml" => Card::from_yaml(&name, &text),
        "toml" => Card::from_toml(&text),
        _ => return Err(invalid(config, "a card is a .toml file, a published configuration is a .yaml file")),
    }
    .map_err(|error| invalid(config, error))
}

/// A description that lies beside a file: `name.yaml`, `name.toml`, `config.yaml`.
pub(crate) fn beside(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    let own = ["yaml", "yml", "toml"].map(|extension| file.with_extension(extension));
    let shared = ["config.yaml", "config.yml", "card.toml"].map(|name| folder.join(name));
    own.into_iter().chain(shared).find(|path| path.is_file())
}

/// A file, and where its tensors are: in itself, or in a copy of it in safetensors, elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Original<'a> {
    /// What lies beside it describes it.
    pub(crate) file: &'a Path,
    /// A safetensors file.
    pub(crate) weights: &'a Path,
}

impl<'a> Original<'a> {
    pub(crate) fn new(file: &'a Path) -> Self {
        Self { file, weights: file }
    }
}

/// The description of a file, and how it was found.
pub(crate) fn describe(original: Original<'_>, config: Option<&Path>) -> Result<(Card, Vec<String>), ModelError> {
    let Original { file, weights } = original;
    let header = header::open(weights).map_err(|error| invalid(file, error))?;
    if let Some(config) = config.map(Path::to_owned).or_else(|| beside(file)) {
        let card = card_at(&config)?;
        return Ok((card, vec![format!("described by {}", config.display())]));
    }
    let shapes: Shapes = header.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
    let cards = card::builtins().map_err(|error| invalid(file, error))?;
    let found = recognise(&shapes, &cards).map_err(|error| invalid(file, error))?;
    Ok((found.card, found.evidence))
}

/// The first stage of a card.
pub(crate) fn stage_config(file: &Path, stage: &Stage, scale: f64) -> Result<FirstStageConfig, ModelError> {
    let config = |source| ModelError::Config { part: "first_stage_model", source };
    let (embed_dim, n_embed, dd) = match stage {
        Stage::Kl { embed_dim, ddconfig } => (embed_dim, Value::Null, ddconfig),
        Stage::Vq { embed_dim, n_embed, ddconfig } => (embed_dim, json!(n_embed), ddconfig),
        Stage::Tiny { latent_channels } => {
            return Ok(FirstStageConfig::Tiny(ldm_nn::AutoencoderTinyConfig {
                latent_channels: i64::from(*latent_channels),
                ..ldm_nn::AutoencoderTinyConfig::default()
            }));
        }
    };
    let value = json!({
        "embed_dim": embed_dim,
        "n_embed": n_embed,
        "ddconfig": {
            "double_z": dd.double_z, "z_channels": dd.z_channels, "resolution": dd.resolution, "in_channels": dd.in_channels,
            "out_ch": dd.out_ch, "ch": dd.ch, "ch_mult": dd.ch_mult, "num_res_blocks": dd.num_res_blocks,
            "attn_resolutions": dd.attn_resolutions, "attn_type": if dd.attention { "vanilla" } else { "none" },
        },
    });
    let original: OriginalFirstStage = serde_json::from_value(value).map_err(|error| invalid(file, error))?;
    let stage = original.config(scale).map_err(config)?;
    stage.check().map_err(config)?;
    Ok(stage)
}

/// The first stage alone, of a file that holds one (or a whole model).
pub(crate) fn read_stage(original: Original<'_>, config: Option<&Path>) -> Result<Part<FirstStageConfig>, ModelError> {
    let (card, _) = describe(original, config)?;
    let Original { file, weights } = original;
    let checkpoint = open(weights)?;
    let scale = match &card.model {
        Model::Diffusion(diffusion) => scale_of(file, diffusion, &checkpoint)?,
        Model::FirstStage(_) => 1.,
    };
    let config = stage_config(file, card.model.first_stage(), scale)?;
    Ok(stage_part(config, checkpoint))
}

fn stage_part(config: FirstStageConfig, checkpoint: Checkpoint) -> Part<FirstStageConfig> {
    let (class, checkpoint) = (super::directory::class_name(&config), config.canonical(checkpoint));
    Part { name: "first_stage_model", class, config, checkpoint }
}

pub(crate) fn open(file: &Path) -> Result<Checkpoint, ModelError> {
    Checkpoint::open_files([file.to_owned()]).map_err(|source| ModelError::Checkpoint { part: "checkpoint", source })
}

fn scale_of(file: &Path, diffusion: &Diffusion, checkpoint: &Checkpoint) -> Result<f64, ModelError> {
    match diffusion.scale {
        Scale::Fixed(scale) => Ok(scale),
        Scale::Checkpoint => scale_factor(checkpoint)
            .ok_or_else(|| invalid(file, "`scale_factor` is missing: the card takes it from the checkpoint")),
    }
}

fn architecture(diffusion: &Diffusion) -> Result<Architecture, ModelError> {
    architecture_of(&diffusion.unet, diffusion.image_size)
}

/// The denoiser that parameters of the original class describe.
pub(crate) fn architecture_of(unet: &Unet, image_size: Option<u32>) -> Result<Architecture, ModelError> {
    let config = |source| ModelError::Config { part: "model.diffusion_model", source };
    let mut params = serde_json::to_value(unet).unwrap_or(Value::Null);
    if let Value::Object(params) = &mut params {
        params.retain(|_, value| !value.is_null());
        if params.get("disable_self_attentions").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            params.remove("disable_self_attentions");
        }
        if params.get("transformer_depth").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            params.remove("transformer_depth");
        }
        params.remove("time_cond_proj_dim");
        params.extend(image_size.map(|size| ("image_size".to_owned(), json!(size))));
    }
    OpenAiConfig::from_params(&params).and_then(|params| params.architecture()).map_err(config)
}

/// Where the vocabulary of the `index`-th text encoder lies: beside the file, or in a folder as diffusers names it.
fn vocabulary(file: &Path, index: usize, needed: &str) -> Result<PathBuf, ModelError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let named = if index == 0 { "tokenizer" } else { "tokenizer_2" };
    let places = [folder.join(named), folder.join("tokenizer"), folder.to_owned()];
    let has = |place: &PathBuf| place.join(needed).is_file() || place.join("tokenizer.json").is_file();
    places.into_iter().find(has).ok_or_else(|| {
        invalid(
            file,
            format!("original checkpoints hold no vocabulary: put {needed} (of the tokenizer) beside the file, or in {named}/"),
        )
    })
}

/// The sizes of a CLIP text encoder as the file has them; heads are 64 wide, as in all of them.
fn clip_sizes(base: ClipTextConfig, checkpoint: &Checkpoint) -> ClipTextConfig {
    let shape = |name: &str| checkpoint.shape(name);
    let two = |name: &str| shape(name).filter(|shape| shape.len() == 2).map(|shape| (shape[0], shape[1]));
    let Some((vocab_size, hidden_size)) = two("text_model.embeddings.token_embedding.weight") else { return base };
    let positions = two("text_model.embeddings.position_embedding.weight").map_or(base.max_position_embeddings, |(rows, _)| rows);
    let inner = two("text_model.encoder.layers.0.mlp.fc1.weight").map_or(base.intermediate_size, |(rows, _)| rows);
    let layers = (0..base.num_hidden_layers)
        .take_while(|layer| shape(&format!("text_model.encoder.layers.{layer}.layer_norm1.weight")).is_some())
        .count() as i64;
    ClipTextConfig {
        vocab_size,
        hidden_size,
        intermediate_size: inner,
        num_hidden_layers: layers.max(1),
        num_attention_heads: (hidden_size / 64).max(1),
        max_position_embeddings: positions,
        projection_dim: two("text_projection.weight").map(|(rows, _)| rows).or(base.projection_dim),
        ..base
    }
}

fn clip_part(
    file: &Path,
    checkpoint: &Checkpoint,
    kind: &ConditionerKind,
    index: usize,
    is_pair: bool,
) -> Result<TextPart, ModelError> {
    let (base, prefix, layer, normed) = match kind {
        ConditionerKind::Clip { layer, layer_idx, .. } => {
            let prefix = if is_pair { clip::SDXL_L } else { clip::SD1 };
            let readout = match (layer, layer_idx) {
                (Layer::Last, _) => Readout::LAST,
                (Layer::Penultimate, _) => Readout::PENULTIMATE,
                // `hidden_states[11]` of twelve layers is the last but one.
                (Layer::Hidden, Some(at)) => Readout { layer: 13 - i64::from(*at), normed: false },
                _ => return Err(invalid(file, format!("a text encoder that gives {layer:?} is not supported"))),
            };
            (ClipTextConfig::vit_l14(), prefix, readout.layer, readout.normed)
        }
        ConditionerKind::OpenClip { arch, layer, final_norm, pooled, .. } => {
            let base = match arch.as_str() {
                "ViT-bigG-14" => ClipTextConfig::vit_bigg14(),
                _ => ClipTextConfig::vit_h14(),
            };
            let prefix = match (is_pair, index) {
                (false, _) => clip::SD2,
                (true, 0) => clip::REFINER,
                (true, _) => clip::SDXL_G,
            };
            // The layer that Stable Diffusion 2 skips is not loaded; SDXL's pooled vector needs it.
            let layer = match layer {
                Layer::Penultimate if *pooled => 2,
                _ => 1,
            };
            (base, prefix, layer, *final_norm)
        }
        other => return Err(invalid(file, format!("{other:?} is no text encoder"))),
    };
    let map = |name: &str, _: &[i64]| match kind {
        ConditionerKind::Clip { .. } => clip::transformers(prefix, name),
        _ => clip::open_clip(prefix, &base, name),
    };
    let checkpoint = checkpoint.clone().map_names(map);
    let config = clip_sizes(base, &checkpoint);
    let folder = vocabulary(file, index, "merges.txt")?;
    let tokenizer = ClipTokenizer::read(&folder, config.max_position_embeddings as usize)?;
    let tokenizer = match kind {
        ConditionerKind::OpenClip { .. } => tokenizer.padded_with(OPEN_CLIP_PADDING),
        _ => tokenizer,
    };
    let (name, class) = match kind {
        ConditionerKind::Clip { .. } => ("cond_stage_model", "FrozenCLIPEmbedder"),
        _ => ("cond_stage_model", "FrozenOpenCLIPEmbedder"),
    };
    let network = Part { name, class, config, checkpoint };
    Ok(TextPart { tokenizer, vocabulary: folder, network, readout: Readout { layer, normed } })
}

fn bert_part(params: BertEmbedderParams, checkpoint: &Checkpoint) -> Result<Part<LdmBertConfig>, ModelError> {
    let config = LdmBertConfig::from(&params);
    config.check().map_err(|source| ModelError::Config { part: "cond_stage_model", source })?;
    let checkpoint = checkpoint.clone().map_names(|name, _| bert::original(bert::PREFIX, name));
    Ok(Part { name: "cond_stage_model", class: "BERTEmbedder", config, checkpoint })
}

/// A part whose parameters keep their names under `cond_stage_model.`.
fn plain_part<C>(class: &'static str, config: C, checkpoint: &Checkpoint) -> Part<C> {
    let strip =
        |name: &str, _: &[i64]| name.strip_prefix("cond_stage_model.").map_or(Mapped::Drop, |name| Mapped::As(name.into()));
    Part { name: "cond_stage_model", class, config, checkpoint: checkpoint.clone().map_names(strip) }
}

/// What makes conditioning, and what lies beside the latent.
struct Conditioning {
    conditioner: ConditionerPlan,
    concat: ConcatPlan,
    conditions: Conditions,
}

fn conditioning(file: &Path, card: &Card, diffusion: &Diffusion, checkpoint: &Checkpoint) -> Result<Conditioning, ModelError> {
    let unsupported = |what: &str| Err(invalid(file, format!("{what} is not supported")));
    let mut conditioner = ConditionerPlan::None;
    let mut conditions = Conditions { prompt: false, guidance: false, ..Conditions::default() };
    let texts: Vec<&ConditionerKind> = diffusion
        .conditioners
        .iter()
        .map(|conditioner| &conditioner.kind)
        .filter(|kind| matches!(kind, ConditionerKind::Clip { .. } | ConditionerKind::OpenClip { .. }))
        .collect();
    let numbered = diffusion.conditioners.iter().filter(|one| matches!(one.kind, ConditionerKind::Sinusoids { .. })).count();
    match texts.as_slice() {
        [] => {}
        [one] if numbered == 0 => conditioner = ConditionerPlan::Text(clip_part(file, checkpoint, one, 0, false)?),
        [one] => {
            let second = clip_part(file, checkpoint, one, 0, true)?;
            conditioner = ConditionerPlan::TextPair { first: None, second, numbers: Numbers::Refiner, zeros_for_empty: false };
        }
        [one, two] => {
            let first = Some(clip_part(file, checkpoint, one, 0, true)?);
            let second = clip_part(file, checkpoint, two, 1, true)?;
            conditioner = ConditionerPlan::TextPair { first, second, numbers: Numbers::Base, zeros_for_empty: true };
        }
        _ => return unsupported("more than two text encoders"),
    }
    if !texts.is_empty() {
        (conditions.prompt, conditions.guidance) = (true, true);
    }
    let mut concat = ConcatPlan::None;
    let beside: Vec<&str> = diffusion.concat.iter().map(String::as_str).collect();
    for Conditioner { input, kind } in &diffusion.conditioners {
        match kind {
            ConditionerKind::Clip { .. } | ConditionerKind::OpenClip { .. } | ConditionerKind::Sinusoids { .. } => {}
            ConditionerKind::Class { n_classes, embed_dim } => {
                let none = card.serving.unconditional_class.map(i64::from);
                let config = ClassEmbedderConfig { embed_dim: (*embed_dim).into(), n_classes: (*n_classes).into() };
                conditions.guidance = none.is_some();
                conditions.classes = Some(
                    none.map_or(*n_classes, |none| if none + 1 == i64::from(*n_classes) { none as u32 } else { *n_classes }),
                );
                let network =
                    Part { name: "cond_stage_model", class: "ClassEmbedder", ..plain_part("ClassEmbedder", config, checkpoint) };
                conditioner = ConditionerPlan::Class { network, none };
            }
            ConditionerKind::Bert { n_embed, n_layer, vocab_size, max_seq_len, use_tokenizer } => {
                let [n_embed, n_layer, vocab_size, max_seq_len] =
                    [n_embed, n_layer, vocab_size, max_seq_len].map(|&n| i64::from(n));
                let params = BertEmbedderParams { n_embed, n_layer, vocab_size, max_seq_len, use_tokenizer: *use_tokenizer };
                let network = bert_part(params, checkpoint)?;
                if *use_tokenizer {
                    let folder = vocabulary(file, 0, "vocab.txt")?;
                    let tokenizer = BertTokenizer::read(&folder, max_seq_len as usize)?;
                    (conditions.prompt, conditions.guidance) = (true, true);
                    conditioner = ConditionerPlan::Bert { tokenizer, vocabulary: folder, network };
                } else {
                    let layout = layout(file, vocab_size, max_seq_len)?;
                    conditions.boxes =
                        Some(BoxBounds { labels: layout.no_object_classes as u32, count: layout.no_max_objects as u32 });
                    conditioner = ConditionerPlan::Layout { layout, network };
                }
            }
            ConditionerKind::SpatialRescaler { n_stages, in_channels, out_channels } => {
                let [n_stages, in_channels, out_channels] = [n_stages, in_channels, out_channels].map(|&n| i64::from(n));
                let config = SpatialRescalerConfig {
                    n_stages,
                    in_channels,
                    out_channels: Some(out_channels),
                    ..SpatialRescalerConfig::default()
                };
                config.check().map_err(|source| ModelError::Config { part: "cond_stage_model", source })?;
                conditions.semantic_classes = Some(in_channels as u32);
                concat = ConcatPlan::Semantic(plain_part("SpatialRescaler", config, checkpoint));
            }
            ConditionerKind::Identity if beside.is_empty() => {
                let width = diffusion.unet.context_dim.unwrap_or(0);
                conditions.neighbors = Some(NeighborBounds { width, count: NEIGHBORS });
                conditions.guidance = true;
                conditioner = ConditionerPlan::Neighbors { width: width.into() };
            }
            ConditionerKind::Identity => {
                conditions.upscale = Some(diffusion.first_stage.downscale());
                concat = ConcatPlan::LowResolution;
            }
            ConditionerKind::FirstStage => concat = ConcatPlan::MaskedMask,
            ConditionerKind::LowScale { max_noise_level, timesteps, linear_start, linear_end } => {
                let schedule = noise_schedule(*timesteps as usize, *linear_start, *linear_end, BetaSchedule::ScaledLinear);
                let schedule = NoiseSchedule::new(&schedule).map_err(|error| invalid(file, error))?;
                conditions.upscale = Some(diffusion.first_stage.downscale());
                conditions.noise_levels = Some(max_noise_level + 1);
                concat = ConcatPlan::NoisedLowResolution(schedule.alphas_cumprod().to_vec());
            }
            ConditionerKind::Midas { .. } => concat = ConcatPlan::Depth,
            ConditionerKind::ClipImage { .. } | ConditionerKind::NoiseAugmentation { .. } => {
                return unsupported(&format!("conditioning on embeddings of pictures (`{input}`)"));
            }
        }
    }
    if matches!(concat, ConcatPlan::None) && beside.first() == Some(&"mask") {
        concat = ConcatPlan::MaskMasked;
    }
    if matches!(concat, ConcatPlan::None) && !beside.is_empty() {
        return unsupported(&format!("{beside:?} beside the latent"));
    }
    Ok(Conditioning { conditioner, concat, conditions })
}

/// The tokens of boxes: as many labels as the vocabulary has room for with four flags, since no published file says the categories.
fn layout(file: &Path, tokens: i64, length: i64) -> Result<LayoutConfig, ModelError> {
    let objects = (length - 2) / 3;
    let labels = tokens / 16;
    if objects < 1 || labels < 1 || objects * 3 + 2 != length {
        return Err(invalid(file, format!("`max_seq_len` {length} and `vocab_size` {tokens} are no layout of boxes and a crop")));
    }
    let layout = LayoutConfig { no_max_objects: objects as usize, no_tokens: tokens, ..LayoutConfig::openimages(labels) };
    layout.check().map_err(|error| invalid(file, error))?;
    Ok(layout)
}

fn noise_schedule(steps: usize, start: f64, end: f64, beta_schedule: BetaSchedule) -> ScheduleConfig {
    ScheduleConfig { beta_schedule, beta_start: start, beta_end: end, num_train_timesteps: steps, ..ScheduleConfig::default() }
}

fn scheduler(file: &Path, diffusion: &Diffusion) -> Result<Scheduler, ModelError> {
    let schedule = &diffusion.schedule;
    // CompVis' `linear` is linear in the root of β, which diffusers calls `scaled_linear`; their `sqrt_linear` is linear in β.
    let beta_schedule = match schedule.beta_schedule.as_str() {
        "linear" => BetaSchedule::ScaledLinear,
        "sqrt_linear" => BetaSchedule::Linear,
        other => return Err(invalid(file, format!("`beta_schedule` {other:?} is not supported: linear or sqrt_linear"))),
    };
    let prediction = match diffusion.parameterization {
        Parameterization::Eps => Prediction::Epsilon,
        Parameterization::V => Prediction::V,
        Parameterization::X0 => Prediction::Sample,
    };
    let config = SchedulerConfig {
        schedule: noise_schedule(schedule.timesteps as usize, schedule.linear_start, schedule.linear_end, beta_schedule),
        prediction,
        // Samplers that CompVis does not have keep diffusers' steps.
        timestep_spacing: Some(Spacing::Compvis),
        steps_offset: 1,
        set_alpha_to_one: Some(false),
        ..SchedulerConfig::default()
    };
    Ok(Scheduler { config, preferred: None, preferred_schedule: SigmaSchedule::Default })
}

fn task(task: card::Task) -> Option<Task> {
    Some(match task {
        card::Task::Unconditional => Task::Unconditional,
        card::Task::Class => Task::Class,
        card::Task::Txt2img => Task::Txt2Img,
        card::Task::Img2img => Task::Img2Img,
        card::Task::Inpaint => Task::Inpaint,
        card::Task::Superres => Task::SuperResolution,
        card::Task::Layout => Task::Layout,
        card::Task::Semantic => Task::Semantic,
        card::Task::Retrieval => Task::Rdm,
        card::Task::Depth2img => Task::Depth,
        card::Task::Variations | card::Task::Autoencode => return None,
    })
}

/// Which weights of the denoiser are read: the caller's choice, or what the card says.
fn ema(choice: EmaChoice, card: CardEma) -> Ema {
    match (choice, card) {
        (EmaChoice::On, _) => Ema::On,
        (EmaChoice::Off, _) | (EmaChoice::Auto, CardEma::Plain) => Ema::Off,
        (EmaChoice::Auto, CardEma::Averaged) => Ema::Auto,
    }
}

/// Reads a file with its description; every problem when there is any.
pub(super) fn read(file: &Path, config: Option<&Path>, choice: EmaChoice) -> Result<Blueprint, Vec<ModelError>> {
    let one = |error| vec![error];
    let (card, evidence) = describe(Original::new(file), config).map_err(one)?;
    blueprint(Original::new(file), &card, evidence, choice).map_err(one)
}

/// What a card and a file are together.
pub(crate) fn blueprint(
    original: Original<'_>,
    card: &Card,
    evidence: Vec<String>,
    choice: EmaChoice,
) -> Result<Blueprint, ModelError> {
    let Original { file, weights } = original;
    let Some(diffusion) = card.model.diffusion() else {
        return Err(invalid(
            file,
            format!("{} is a first stage alone, which makes no pictures: see `latentd reconstruct`", card.name),
        ));
    };
    let mut tasks: Vec<Task> = card.serving.tasks.iter().copied().filter_map(task).collect();
    if tasks.is_empty() {
        return Err(invalid(file, format!("{} is for {:?}, which is not supported", card.name, card.serving.tasks)));
    }
    // A denoiser that sees nothing but the latent and a prompt also fills holes.
    if tasks.contains(&Task::Img2Img) && !tasks.contains(&Task::Inpaint) {
        tasks.push(Task::Inpaint);
    }
    let checkpoint = open(weights)?;
    let scale = scale_of(file, diffusion, &checkpoint)?;
    let stage = stage_part(stage_config(file, &diffusion.first_stage, scale)?, checkpoint.clone());
    let architecture = architecture(diffusion)?;
    let averaged = ema(choice, diffusion.ema);
    let uses_ema = averaged != Ema::Off && unet::has_ema(&checkpoint);
    let denoiser = unet::canonical(checkpoint.clone(), &architecture, averaged).map_err(|error| invalid(file, error))?;
    let unet = Part { name: "model.diffusion_model", class: "UNetModel", config: architecture, checkpoint: denoiser };
    let Conditioning { conditioner, concat, conditions } = conditioning(file, card, diffusion, &checkpoint)?;
    let factor = stage.config.factor() as u32;
    let defaults = card.serving.defaults.as_ref();
    let habits = Habits {
        sampler: defaults.map(|defaults| defaults.sampler.clone()),
        steps: defaults.map(|defaults| defaults.steps),
        guidance: defaults.map(|defaults| if conditions.guidance { defaults.guidance } else { 1. }),
        eta: defaults.map(|defaults| defaults.eta),
        strength: None,
        rounding: match card.serving.rounding {
            card::Rounding::Truncate => Rounding::Truncate,
            card::Rounding::Round => Rounding::Round,
        },
        size: defaults.map(|defaults| (defaults.width, defaults.height)),
        min: Some(card.serving.size_multiple),
        max: largest_side(&concat),
        // An enlarged picture is cut to its size, whatever the denoiser was given.
        multiple: Some(if matches!(concat, ConcatPlan::LowResolution | ConcatPlan::NoisedLowResolution(_)) {
            factor
        } else {
            card.serving.size_multiple
        }),
    };
    // bsr_sr's notebook cuts larger pictures into tiles of 128 latent pixels.
    let tile = matches!(concat, ConcatPlan::LowResolution).then_some(128);
    let blueprint = Blueprint {
        family: card.name.clone(),
        tasks,
        conditions,
        unet,
        stage,
        preview: None,
        conditioner,
        concat,
        scheduler: scheduler(file, diffusion)?,
        habits,
        tile,
        ema: uses_ema,
        evidence,
    };
    blueprint.check()?;
    Ok(blueprint)
}
