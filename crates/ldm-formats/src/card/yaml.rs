//! Published YAML sidecars, and how they lower to a description.
//!
//! `serde_yaml` is archived, its forks (`serde_yaml_ng`, `serde_norway`) carry on the translated C parser without budgets;
//! `serde-saphyr` is maintained, has no unsafe code, bounds events, depth and aliases, and reads into `serde_json::Value`.
//!
//! Two dialects: `ldm` (latent-diffusion, stable-diffusion, stablediffusion: `ldm.models.diffusion.ddpm.*`) and `sgm`
//! (generative-models: `sgm.models.diffusion.DiffusionEngine`). Class names are compared, never imported.

use serde_json::{Value, json};

use super::fields::Fields;
use super::{
    CardError, Conditioner, ConditionerKind, ConditioningKey, Diffusion, Ema, FirstStage, Layer, Model, NumClasses,
    Parameterization, Scale, Schedule, Unet,
};

/// A class and its parameters, as `instantiate_from_config` takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The class.
    pub target: String,
    /// Its parameters, as they stand in the file.
    pub params: Value,
}

/// A sidecar. Training's parts (`data`, `lightning`) are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The model.
    pub model: Node,
}

impl Sidecar {
    /// Reads a sidecar.
    ///
    /// # Errors
    /// When it is not YAML, longer than a megabyte, or has no `model` with a `target`.
    pub fn from_yaml(text: &str) -> Result<Self, CardError> {
        const LONGEST: usize = 1 << 20;
        if text.len() > LONGEST {
            return Err(CardError::Syntax(format!("{} bytes, more than the {LONGEST} of a sidecar", text.len())));
        }
        let value: Value = serde_saphyr::from_str(text).map_err(|error| CardError::Syntax(error.to_string()))?;
        let mut top = Fields::new("sidecar", value)?;
        let mut model = top.required_table("model")?;
        top.ignore(&["data", "lightning"]);
        top.finish()?;
        let (target, params) = (model.required("target")?, model.raw("params").unwrap_or_else(|| json!({})));
        model.ignore(&["base_learning_rate"]);
        model.finish()?;
        Ok(Self { model: Node { target, params } })
    }

    /// The networks that it describes.
    ///
    /// # Errors
    /// When a class, a key or a value is not known.
    pub fn lower(&self) -> Result<Model, CardError> {
        let params = Fields::new("model.params", self.model.params.clone())?;
        let class = last(&self.model.target);
        match class {
            "AutoencoderKL" | "VQModel" | "VQModelInterface" => Ok(Model::FirstStage(first_stage(class, params)?)),
            "DiffusionEngine" => sgm(params),
            "LatentDiffusion"
            | "LatentInpaintDiffusion"
            | "LatentDepth2ImageDiffusion"
            | "LatentUpscaleDiffusion"
            | "ImageEmbeddingConditionedLatentDiffusion" => ldm(class, params),
            _ => Err(unknown_class("model", &self.model.target)),
        }
    }
}

/// The class without its module.
fn last(target: &str) -> &str {
    target.rsplit('.').next().unwrap_or(target)
}

fn unknown_class(path: &str, target: &str) -> CardError {
    let what = format!("the class {} is not known", crate::pickle::shown(target));
    CardError::Value { path: path.to_owned(), key: "target".to_owned(), what }
}

/// The class and its parameters under a key.
fn node(fields: &mut Fields, key: &str) -> Result<(String, Fields), CardError> {
    let table = fields.required_table(key)?;
    class_of(table)
}

fn class_of(mut table: Fields) -> Result<(String, Fields), CardError> {
    let target = table.required("target")?;
    let params = match table.table("params")? {
        Some(params) => params,
        None => Fields::new(&format!("{}.params", table.path()), json!({}))?,
    };
    table.finish()?;
    Ok((target, params))
}

/// What says how a first stage was trained.
const FIRST_STAGE_TRAINING: [&str; 9] = [
    "monitor",
    "lossconfig",
    "ckpt_path",
    "ignore_keys",
    "image_key",
    "colorize_nlabels",
    "lr_g_factor",
    "use_ema",
    "batch_resize_range",
];

fn first_stage(class: &str, mut params: Fields) -> Result<FirstStage, CardError> {
    params.ignore(&FIRST_STAGE_TRAINING);
    FirstStage::read(params, class != "AutoencoderKL")
}

fn first_stage_of(fields: &mut Fields) -> Result<FirstStage, CardError> {
    let (target, params) = node(fields, "first_stage_config")?;
    match last(&target) {
        class @ ("AutoencoderKL" | "VQModelInterface") => first_stage(class, params),
        _ => Err(unknown_class("model.params.first_stage_config", &target)),
    }
}

fn unet_of(fields: &mut Fields, key: &str) -> Result<Unet, CardError> {
    let (target, params) = node(fields, key)?;
    if last(&target) == "UNetModel" { Unet::read(params) } else { Err(unknown_class(&format!("model.params.{key}"), &target)) }
}

/// `LatentDiffusion` and its kin.
fn ldm(class: &str, mut params: Fields) -> Result<Model, CardError> {
    let first_stage = first_stage_of(&mut params)?;
    let unet = unet_of(&mut params, "unet_config")?;
    let input: String = params.or("cond_stage_key", "image".to_owned())?;
    let picture: String = params.or("first_stage_key", "image".to_owned())?;
    let mut conditioners = Vec::new();
    let mut unconditional = false;
    match params.raw("cond_stage_config") {
        Some(Value::String(word)) if word == "__is_unconditional__" => unconditional = true,
        Some(Value::String(word)) if word == "__is_first_stage__" => {
            conditioners.push(Conditioner { input: input.clone(), kind: ConditionerKind::FirstStage });
        }
        Some(value @ Value::Object(_)) => {
            let (target, fields) = class_of(Fields::new("model.params.cond_stage_config", value)?)?;
            conditioners.push(Conditioner { input: input.clone(), kind: conditioner(&target, fields)? });
        }
        _ => return Err(params.wrong("cond_stage_config", "a class, __is_unconditional__ or __is_first_stage__ is wanted")),
    }
    // `LatentDiffusion.__init__`: what stands for a missing key depends on the other two.
    let concat_mode = params.or("concat_mode", true)?;
    let conditioning_key = match (params.optional("conditioning_key")?, unconditional) {
        (_, true) => ConditioningKey::None,
        (Some(key), false) => key,
        (None, false) if concat_mode => ConditioningKey::Concat,
        (None, false) => ConditioningKey::Crossattn,
    };
    let mut concat = Vec::new();
    match class {
        "LatentInpaintDiffusion" => concat.extend(["mask".to_owned(), "masked_image".to_owned()]),
        "LatentDepth2ImageDiffusion" => {
            let (target, mut fields) = node(&mut params, "depth_stage_config")?;
            if last(&target) != "MiDaSInference" {
                return Err(unknown_class("model.params.depth_stage_config", &target));
            }
            let kind = ConditionerKind::Midas { model_type: fields.required("model_type")? };
            fields.finish()?;
            conditioners.push(Conditioner { input: "midas_in".to_owned(), kind });
            concat.push("midas_in".to_owned());
        }
        "LatentUpscaleDiffusion" => {
            let input: String = params.or("low_scale_key", "LR".to_owned())?;
            let (target, mut fields) = node(&mut params, "low_scale_config")?;
            if last(&target) != "ImageConcatWithNoiseAugmentation" {
                return Err(unknown_class("model.params.low_scale_config", &target));
            }
            let mut noise = fields.required_table("noise_schedule_config")?;
            let kind = ConditionerKind::LowScale {
                max_noise_level: fields.or("max_noise_level", 1000)?,
                timesteps: noise.or("timesteps", 1000)?,
                linear_start: noise.or("linear_start", 1e-4)?,
                linear_end: noise.or("linear_end", 2e-2)?,
            };
            noise.finish()?;
            fields.finish()?;
            conditioners.push(Conditioner { input: input.clone(), kind });
            concat.push(input);
        }
        "ImageEmbeddingConditionedLatentDiffusion" => {
            let (target, mut fields) = node(&mut params, "embedder_config")?;
            let arch = match last(&target) {
                "FrozenOpenCLIPImageEmbedder" => fields.or("arch", "ViT-H-14".to_owned())?,
                "ClipImageEmbedder" => fields.required("model")?,
                _ => return Err(unknown_class("model.params.embedder_config", &target)),
            };
            fields.finish()?;
            conditioners.push(Conditioner { input: picture.clone(), kind: ConditionerKind::ClipImage { arch } });
            let (target, mut fields) = node(&mut params, "noise_aug_config")?;
            if last(&target) != "CLIPEmbeddingNoiseAugmentation" {
                return Err(unknown_class("model.params.noise_aug_config", &target));
            }
            let mut noise = fields.required_table("noise_schedule_config")?;
            let kind = ConditionerKind::NoiseAugmentation {
                timestep_dim: fields.or("timestep_dim", 256)?,
                timesteps: noise.or("timesteps", 1000)?,
                beta_schedule: noise.or("beta_schedule", "linear".to_owned())?,
                stats: fields.optional::<String>("clip_stats_path")?.is_some(),
            };
            noise.finish()?;
            fields.finish()?;
            conditioners.push(Conditioner { input: picture, kind });
            params.ignore(&["embedding_dropout"]);
        }
        _ if conditioning_key == ConditioningKey::Concat => {
            concat.push(input.clone());
            // scripts/inpaint.py: the mask goes with the masked picture, behind it.
            if input == "masked_image" {
                concat.push("mask".to_owned());
            }
        }
        _ => {}
    }
    let scale_by_std = params.or("scale_by_std", false)?;
    let scale = params.or("scale_factor", 1.0)?;
    let diffusion = Diffusion {
        first_stage,
        scale: if scale_by_std { Scale::Checkpoint } else { Scale::Fixed(scale) },
        unet,
        conditioners,
        concat,
        conditioning_key,
        schedule: Schedule {
            beta_schedule: params.or("beta_schedule", "linear".to_owned())?,
            linear_start: params.or("linear_start", 1e-4)?,
            linear_end: params.or("linear_end", 2e-2)?,
            timesteps: params.or("timesteps", 1000)?,
        },
        parameterization: params.or("parameterization", Parameterization::Eps)?,
        ema: if params.or("use_ema", true)? { Ema::Averaged } else { Ema::Plain },
        channels: params.or("channels", 3)?,
        image_size: params.optional("image_size")?,
    };
    params.ignore(&[
        "num_timesteps_cond",
        "log_every_t",
        "cond_stage_trainable",
        "monitor",
        "loss_type",
        "scheduler_config",
        "finetune_keys",
        "ckpt_path",
        "ignore_keys",
        "load_only_unet",
        "clip_denoised",
        "cosine_s",
        "original_elbo_weight",
        "l_simple_weight",
        "v_posterior",
        "use_positional_encodings",
        "learn_logvar",
        "logvar_init",
    ]);
    params.finish()?;
    diffusion.check("model.params")?;
    Ok(Model::Diffusion(Box::new(diffusion)))
}

/// `DiffusionEngine`.
fn sgm(mut params: Fields) -> Result<Model, CardError> {
    let first_stage = first_stage_of(&mut params)?;
    let unet = unet_of(&mut params, "network_config")?;
    let (target, mut denoiser) = node(&mut params, "denoiser_config")?;
    if last(&target) != "DiscreteDenoiser" {
        return Err(unknown_class("model.params.denoiser_config", &target));
    }
    let timesteps = denoiser.or("num_idx", 1000)?;
    let (scaling, fields) = node(&mut denoiser, "scaling_config")?;
    fields.finish()?;
    let parameterization = match last(&scaling) {
        "EpsScaling" => Parameterization::Eps,
        "VScaling" => Parameterization::V,
        _ => return Err(unknown_class("model.params.denoiser_config.params.scaling_config", &scaling)),
    };
    let (discretization, mut fields) = node(&mut denoiser, "discretization_config")?;
    if last(&discretization) != "LegacyDDPMDiscretization" {
        return Err(unknown_class("model.params.denoiser_config.params.discretization_config", &discretization));
    }
    let schedule = Schedule {
        beta_schedule: "linear".to_owned(),
        linear_start: fields.or("linear_start", 0.00085)?,
        linear_end: fields.or("linear_end", 0.012)?,
        timesteps: fields.or("num_timesteps", timesteps)?,
    };
    fields.finish()?;
    denoiser.ignore(&["weighting_config"]);
    denoiser.finish()?;
    let (target, mut general) = node(&mut params, "conditioner_config")?;
    if last(&target) != "GeneralConditioner" {
        return Err(unknown_class("model.params.conditioner_config", &target));
    }
    let mut conditioners = Vec::new();
    for (index, value) in general.required::<Vec<Value>>("emb_models")?.into_iter().enumerate() {
        let path = format!("model.params.conditioner_config.params.emb_models[{index}]");
        let mut table = Fields::new(&path, value)?;
        let input = table.required("input_key")?;
        table.ignore(&["is_trainable", "ucg_rate", "legacy_ucg_value"]);
        let (target, fields) = class_of(table)?;
        conditioners.push(Conditioner { input, kind: conditioner(&target, fields)? });
    }
    general.finish()?;
    let diffusion = Diffusion {
        channels: first_stage.channels(),
        first_stage,
        scale: Scale::Fixed(params.or("scale_factor", 1.0)?),
        // What `GeneralConditioner` makes is sorted by rank: vectors go to the denoiser's `y`, sequences are its context.
        conditioning_key: match (unet.context_dim, unet.num_classes) {
            (Some(_), Some(NumClasses::Sequential(_))) => ConditioningKey::CrossattnAdm,
            (Some(_), _) => ConditioningKey::Crossattn,
            (None, Some(NumClasses::Sequential(_))) => ConditioningKey::Adm,
            (None, _) => ConditioningKey::None,
        },
        unet,
        conditioners,
        concat: Vec::new(),
        schedule,
        parameterization,
        ema: if params.or("use_ema", false)? { Ema::Averaged } else { Ema::Plain },
        image_size: None,
    };
    params.ignore(&[
        "disable_first_stage_autocast",
        "ckpt_path",
        "log_keys",
        "input_key",
        "scheduler_config",
        "optimizer_config",
    ]);
    params.ignore(&["loss_fn_config", "sampler_config", "network_wrapper", "no_cond_log", "compile_model", "ema_decay_rate"]);
    params.finish()?;
    diffusion.check("model.params")?;
    Ok(Model::Diffusion(Box::new(diffusion)))
}

/// A conditioner by its class, missing parameters filled with the class' defaults.
fn conditioner(target: &str, mut fields: Fields) -> Result<ConditionerKind, CardError> {
    let kind = match last(target) {
        "ClassEmbedder" => {
            fields.ignore(&["key", "ucg_rate"]);
            ConditionerKind::Class { n_classes: fields.or("n_classes", 1000)?, embed_dim: fields.required("embed_dim")? }
        }
        "BERTEmbedder" => {
            fields.ignore(&["device", "embedding_dropout"]);
            ConditionerKind::Bert {
                n_embed: fields.required("n_embed")?,
                n_layer: fields.required("n_layer")?,
                vocab_size: fields.or("vocab_size", 30522)?,
                max_seq_len: fields.or("max_seq_len", 77)?,
                use_tokenizer: fields.or("use_tokenizer", true)?,
            }
        }
        "SpatialRescaler" => {
            fields.only("method", &json!("bilinear"))?;
            fields.only("multiplier", &json!(0.5))?;
            fields.only("bias", &json!(false))?;
            ConditionerKind::SpatialRescaler {
                n_stages: fields.or("n_stages", 1)?,
                in_channels: fields.or("in_channels", 3)?,
                out_channels: fields.required("out_channels")?,
            }
        }
        "Identity" => ConditionerKind::Identity,
        "FrozenCLIPEmbedder" => {
            fields.ignore(&["device", "freeze"]);
            fields.only("always_return_pooled", &json!(false))?;
            ConditionerKind::Clip {
                version: fields.or("version", "openai/clip-vit-large-patch14".to_owned())?,
                layer: fields.or("layer", Layer::Last)?,
                layer_idx: fields.optional("layer_idx")?,
                max_length: fields.or("max_length", 77)?,
            }
        }
        class @ ("FrozenOpenCLIPEmbedder" | "FrozenOpenCLIPEmbedder2") => {
            fields.ignore(&["device", "freeze", "version"]);
            let second = class == "FrozenOpenCLIPEmbedder2";
            ConditionerKind::OpenClip {
                arch: fields.or("arch", "ViT-H-14".to_owned())?,
                layer: fields.or("layer", Layer::Last)?,
                max_length: fields.or("max_length", 77)?,
                // Its `legacy` is the way of the first class.
                final_norm: if second { fields.or("legacy", true)? } else { true },
                pooled: if second { fields.or("always_return_pooled", false)? } else { false },
            }
        }
        "ConcatTimestepEmbedderND" => ConditionerKind::Sinusoids { outdim: fields.required("outdim")? },
        _ => return Err(unknown_class(fields.path().trim_end_matches(".params"), target)),
    };
    fields.finish()?;
    Ok(kind)
}
