//! What a model is made of. Parameters keep the names that the original classes have for them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::CardError;
use super::fields::Fields;

/// Networks: a whole diffusion model, or a first stage alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Model {
    /// A latent diffusion model.
    Diffusion(Box<Diffusion>),
    /// An autoencoder.
    FirstStage(FirstStage),
}

/// A latent diffusion model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diffusion {
    /// The autoencoder.
    pub first_stage: FirstStage,
    /// What latents are multiplied with after encoding.
    pub scale: Scale,
    /// The denoiser.
    pub unet: Unet,
    /// What makes conditioning of inputs, in the order of the checkpoint; none for an unconditional model.
    pub conditioners: Vec<Conditioner>,
    /// What is concatenated to the latent, in order, by its conditioner's input.
    pub concat: Vec<String>,
    /// How conditioning enters the denoiser.
    pub conditioning_key: ConditioningKey,
    /// The noise schedule.
    pub schedule: Schedule,
    /// What the denoiser predicts.
    pub parameterization: Parameterization,
    /// Which weights are used when a checkpoint has both.
    pub ema: Ema,
    /// Channels of a latent.
    pub channels: u32,
    /// Width and height of the latents of training; `None` where the sidecar does not say.
    pub image_size: Option<u32>,
}

/// An autoencoder between pictures and latents.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FirstStage {
    /// `AutoencoderKL`.
    Kl {
        /// Channels of a latent.
        embed_dim: u32,
        /// Encoder and decoder.
        ddconfig: Ddconfig,
    },
    /// `VQModel`, `VQModelInterface`.
    Vq {
        /// Channels of a latent.
        embed_dim: u32,
        /// Codes.
        n_embed: u32,
        /// Encoder and decoder.
        ddconfig: Ddconfig,
    },
    /// TAESD, taesd.py: 64 channels, factor 8.
    Tiny {
        /// Channels of a latent.
        latent_channels: u32,
    },
}

/// Encoder and decoder of a first stage, `ldm/modules/diffusionmodules/model.py`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ddconfig {
    /// Whether the encoder gives mean and log-variance.
    pub double_z: bool,
    /// Channels before `quant_conv`.
    pub z_channels: u32,
    /// The nominal resolution: levels are counted from it.
    pub resolution: u32,
    /// Channels of a picture that goes in.
    pub in_channels: u32,
    /// Channels of a picture that comes out.
    pub out_ch: u32,
    /// Channels of the first level.
    pub ch: u32,
    /// Their multiples by level.
    pub ch_mult: Vec<u32>,
    /// Residual blocks by level.
    pub num_res_blocks: u32,
    /// Nominal resolutions with attention.
    pub attn_resolutions: Vec<u32>,
    /// Whether there is attention in the middle (`attn_type` is not `none`).
    pub attention: bool,
}

/// The number that latents are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// This one.
    Fixed(f64),
    /// The checkpoint's buffer `scale_factor` (`scale_by_std`).
    Checkpoint,
}

impl Serialize for Scale {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Fixed(scale) => serializer.serialize_f64(scale),
            Self::Checkpoint => serializer.serialize_str("checkpoint"),
        }
    }
}

/// `num_classes` of a denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumClasses {
    /// An embedding of so many classes.
    Count(u32),
    /// `sequential`: a projection of a vector of `adm_in_channels`.
    Sequential(Sequential),
}

/// The one word that stands for a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sequential {
    /// That word.
    Sequential,
}

/// The denoiser, `ldm/modules/diffusionmodules/openaimodel.py` `UNetModel`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unet {
    /// Channels that go in: of the latent and of what is concatenated.
    pub in_channels: u32,
    /// Channels that come out.
    pub out_channels: u32,
    /// Channels of the first level.
    pub model_channels: u32,
    /// Downsampling factors with attention.
    pub attention_resolutions: Vec<u32>,
    /// Residual blocks by level.
    pub num_res_blocks: u32,
    /// Multiples of channels by level.
    pub channel_mult: Vec<u32>,
    /// Heads, the same at every level; exactly one of this and the next.
    pub num_heads: Option<u32>,
    /// Channels of a head.
    pub num_head_channels: Option<u32>,
    /// Whether the time embedding scales and shifts.
    pub use_scale_shift_norm: bool,
    /// Whether residual blocks change the resolution.
    pub resblock_updown: bool,
    /// Whether queries, keys and values come before heads.
    pub use_new_attention_order: bool,
    /// Whether attention is a transformer with context.
    pub use_spatial_transformer: bool,
    /// Blocks of a transformer by level.
    pub transformer_depth: Vec<u32>,
    /// Width of the context.
    pub context_dim: Option<u32>,
    /// Whether transformers are entered and left by a linear layer in place of a 1×1 convolution.
    pub use_linear_in_transformer: bool,
    /// Levels whose self-attention attends to the context instead.
    pub disable_self_attentions: Vec<bool>,
    /// The same for the middle.
    pub disable_middle_self_attn: bool,
    /// Class or vector conditioning.
    pub num_classes: Option<NumClasses>,
    /// Width of the vector.
    pub adm_in_channels: Option<u32>,
    /// Width of the guidance embedding of a latent consistency model.
    pub time_cond_proj_dim: Option<u32>,
}

/// What makes conditioning of one input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conditioner {
    /// The input, by the name that the sidecar has for it (`cond_stage_key`, `input_key`).
    pub input: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: ConditionerKind,
}

/// Which hidden state of a text encoder is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The last.
    Last,
    /// The last but one.
    Penultimate,
    /// The one that `layer_idx` counts.
    Hidden,
    /// The pooled vector.
    Pooled,
}

/// A conditioner with its parameters, by original names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ConditionerKind {
    /// `ClassEmbedder`.
    Class {
        /// Classes.
        n_classes: u32,
        /// Width.
        embed_dim: u32,
    },
    /// `BERTEmbedder`.
    Bert {
        /// Width.
        n_embed: u32,
        /// Layers.
        n_layer: u32,
        /// Tokens that there are.
        vocab_size: u32,
        /// Tokens of a text.
        max_seq_len: u32,
        /// Whether text is tokenized, or tokens come as they are.
        use_tokenizer: bool,
    },
    /// `SpatialRescaler`: halvings, then a 1×1 convolution.
    SpatialRescaler {
        /// Halvings.
        n_stages: u32,
        /// Channels that go in.
        in_channels: u32,
        /// Channels that come out.
        out_channels: u32,
    },
    /// `torch.nn.Identity`: the input itself.
    Identity,
    /// `__is_first_stage__`: the first stage's encoder.
    FirstStage,
    /// `FrozenCLIPEmbedder`: OpenAI's text encoder in the form of transformers.
    Clip {
        /// Which.
        version: String,
        /// Which hidden state.
        layer: Layer,
        /// Its index, counted from the embeddings.
        layer_idx: Option<u32>,
        /// Tokens of a text.
        max_length: u32,
    },
    /// `FrozenOpenCLIPEmbedder`, `FrozenOpenCLIPEmbedder2`.
    OpenClip {
        /// Which.
        arch: String,
        /// Which hidden state.
        layer: Layer,
        /// Tokens of a text.
        max_length: u32,
        /// Whether the final norm is applied to the hidden state.
        final_norm: bool,
        /// Whether the pooled and projected vector is used too.
        pooled: bool,
    },
    /// `FrozenOpenCLIPImageEmbedder`, `ClipImageEmbedder`.
    ClipImage {
        /// Which: `ViT-H-14`, `ViT-L/14`.
        arch: String,
    },
    /// `CLIPEmbeddingNoiseAugmentation`: noise on a picture's embedding, and its level.
    NoiseAugmentation {
        /// Width of the level's embedding.
        timestep_dim: u32,
        /// Steps of its schedule.
        timesteps: u32,
        /// Its schedule.
        beta_schedule: String,
        /// Whether embeddings are normalized with stored statistics.
        stats: bool,
    },
    /// `ImageConcatWithNoiseAugmentation`: noise on a small picture.
    LowScale {
        /// The highest level.
        max_noise_level: u32,
        /// Steps of its schedule.
        timesteps: u32,
        /// Its first beta.
        linear_start: f64,
        /// Its last beta.
        linear_end: f64,
    },
    /// `MiDaSInference`: depth.
    Midas {
        /// Which.
        model_type: String,
    },
    /// `ConcatTimestepEmbedderND`: sinusoids of each number.
    Sinusoids {
        /// Width for one number.
        outdim: u32,
    },
}

/// How conditioning enters the denoiser, `DiffusionWrapper` in `ddpm.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditioningKey {
    /// Not at all.
    None,
    /// Channels beside the latent.
    Concat,
    /// Context of cross-attention.
    Crossattn,
    /// Both.
    Hybrid,
    /// A vector.
    Adm,
    /// Context and a vector.
    CrossattnAdm,
    /// All three.
    HybridAdm,
}

/// The noise schedule, `make_beta_schedule`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// `linear` is linear in the root of beta.
    pub beta_schedule: String,
    /// The first beta.
    pub linear_start: f64,
    /// The last beta.
    pub linear_end: f64,
    /// Steps.
    pub timesteps: u32,
}

/// What a denoiser predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameterization {
    /// The noise.
    Eps,
    /// The velocity.
    V,
    /// The latent.
    X0,
}

/// Which weights are used when a checkpoint has an average besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ema {
    /// The average (`use_ema`), if it is there.
    Averaged,
    /// Those under `model.` (`use_ema: False`).
    Plain,
}

impl Model {
    /// The diffusion model, if it is one.
    pub fn diffusion(&self) -> Option<&Diffusion> {
        match self {
            Self::Diffusion(diffusion) => Some(diffusion),
            Self::FirstStage(_) => None,
        }
    }

    /// The first stage.
    pub fn first_stage(&self) -> &FirstStage {
        match self {
            Self::Diffusion(diffusion) => &diffusion.first_stage,
            Self::FirstStage(first_stage) => first_stage,
        }
    }

    pub(super) fn from_card(card: &mut Fields) -> Result<Self, CardError> {
        let first_stage = FirstStage::from_card(card.required_table("first_stage")?)?;
        let Some(unet) = card.table("unet")? else { return Ok(Self::FirstStage(first_stage)) };
        let unet = Unet::read(unet)?;
        let mut schedule = card.required_table("schedule")?;
        let scale = match card.raw("scale_factor") {
            Some(Value::String(word)) if word == "checkpoint" => Scale::Checkpoint,
            Some(Value::Number(number)) => Scale::Fixed(number.as_f64().unwrap_or(f64::NAN)),
            _ => return Err(card.wrong("scale_factor", "it is a number, or \"checkpoint\"")),
        };
        let mut conditioners = Vec::new();
        for (index, value) in card.or("conditioner", Vec::<Value>::new())?.into_iter().enumerate() {
            conditioners.push(Conditioner::from_card(Fields::new(&format!("card.conditioner[{index}]"), value)?)?);
        }
        let diffusion = Diffusion {
            first_stage,
            scale,
            unet,
            conditioners,
            concat: card.or("concat", Vec::new())?,
            conditioning_key: card.required("conditioning_key")?,
            schedule: Schedule {
                beta_schedule: schedule.required("beta_schedule")?,
                linear_start: schedule.required("linear_start")?,
                linear_end: schedule.required("linear_end")?,
                timesteps: schedule.required("timesteps")?,
            },
            parameterization: card.required("parameterization")?,
            ema: card.required("ema")?,
            channels: card.required("channels")?,
            image_size: card.optional("image_size")?,
        };
        schedule.finish()?;
        diffusion.check("card")?;
        Ok(Self::Diffusion(Box::new(diffusion)))
    }
}

impl Diffusion {
    /// A picture's width and height are multiples of this: every level of the denoiser halves without remainder.
    pub fn size_multiple(&self) -> u32 {
        self.first_stage.downscale() << (self.unet.channel_mult.len() - 1)
    }

    /// What the parts must agree on.
    pub(super) fn check(&self, path: &str) -> Result<(), CardError> {
        let wrong = |key: &str, what: String| CardError::Value { path: path.to_owned(), key: key.to_owned(), what };
        let (latent, out) = (self.first_stage.channels(), self.unet.out_channels);
        if self.channels != latent || self.channels != out {
            return Err(wrong(
                "channels",
                format!("{}, but the first stage has {latent} and the UNet gives {out}", self.channels),
            ));
        }
        if self.unet.in_channels < self.channels {
            let found = self.unet.in_channels;
            return Err(wrong("unet.in_channels", format!("{found} are fewer than the {} of the latent", self.channels)));
        }
        if (self.unet.in_channels > self.channels) == self.concat.is_empty() {
            let (found, concat) = (self.unet.in_channels, &self.concat);
            return Err(wrong("concat", format!("{concat:?} does not go with {found} channels of the UNet's input")));
        }
        const LARGEST_LATENT: u32 = 1 << 14;
        if let Some(size) = self.image_size.filter(|size| !(1..=LARGEST_LATENT).contains(size)) {
            return Err(wrong("image_size", format!("{size} is not 1 to {LARGEST_LATENT}")));
        }
        let schedule = &self.schedule;
        let rising = 0.0 < schedule.linear_start && schedule.linear_start <= schedule.linear_end && schedule.linear_end < 1.0;
        if !rising || !(2..=100_000).contains(&schedule.timesteps) {
            return Err(wrong("schedule", format!("{schedule:?} is no schedule of 2 to 100000 rising betas between 0 and 1")));
        }
        if let Scale::Fixed(scale) = self.scale
            && !(scale > 0.0 && scale.is_finite())
        {
            return Err(wrong("scale_factor", format!("{scale} is not positive")));
        }
        Ok(())
    }
}

impl FirstStage {
    /// Channels of a latent.
    pub fn channels(&self) -> u32 {
        match *self {
            Self::Kl { embed_dim, .. } | Self::Vq { embed_dim, .. } => embed_dim,
            Self::Tiny { latent_channels } => latent_channels,
        }
    }

    /// Pixels of a side to one of a latent.
    pub fn downscale(&self) -> u32 {
        match self {
            Self::Kl { ddconfig, .. } | Self::Vq { ddconfig, .. } => 1 << (ddconfig.ch_mult.len() - 1),
            Self::Tiny { .. } => 8,
        }
    }

    /// Encoder and decoder, where they are parameters.
    pub fn ddconfig(&self) -> Option<&Ddconfig> {
        match self {
            Self::Kl { ddconfig, .. } | Self::Vq { ddconfig, .. } => Some(ddconfig),
            Self::Tiny { .. } => None,
        }
    }

    /// Parameters by their original names, for a network's own configuration.
    pub fn params(&self) -> Value {
        // Plain data always becomes JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    fn from_card(mut fields: Fields) -> Result<Self, CardError> {
        let kind: String = fields.required("kind")?;
        if kind == "tiny" {
            let tiny = Self::Tiny { latent_channels: fields.required("latent_channels")? };
            fields.finish()?;
            return Ok(tiny);
        }
        if kind != "kl" && kind != "vq" {
            return Err(fields.wrong("kind", format!("{kind:?} is not kl, vq or tiny")));
        }
        Self::read(fields, kind == "vq")
    }

    /// Of `embed_dim`, `n_embed` and `ddconfig`.
    pub(super) fn read(mut fields: Fields, vq: bool) -> Result<Self, CardError> {
        let embed_dim = fields.required("embed_dim")?;
        let n_embed = if vq { Some(fields.required("n_embed")?) } else { None };
        let mut dd = fields.required_table("ddconfig")?;
        let attn_type: String = dd.or("attn_type", "vanilla".to_owned())?;
        if !["vanilla", "vanilla-xformers", "none"].contains(&attn_type.as_str()) {
            return Err(dd.wrong("attn_type", format!("{attn_type:?} is not vanilla, vanilla-xformers or none")));
        }
        let ddconfig = Ddconfig {
            double_z: dd.or("double_z", true)?,
            z_channels: dd.required("z_channels")?,
            resolution: dd.required("resolution")?,
            in_channels: dd.required("in_channels")?,
            out_ch: dd.required("out_ch")?,
            ch: dd.required("ch")?,
            ch_mult: dd.required("ch_mult")?,
            num_res_blocks: dd.required("num_res_blocks")?,
            attn_resolutions: dd.required("attn_resolutions")?,
            attention: attn_type != "none",
        };
        dd.ignore(&["dropout"]);
        dd.only("resamp_with_conv", &json!(true))?;
        dd.only("use_linear_attn", &json!(false))?;
        dd.only("give_pre_end", &json!(false))?;
        dd.only("tanh_out", &json!(false))?;
        if ddconfig.double_z == vq {
            let (kind, wanted) = if vq { ("vq", false) } else { ("kl", true) };
            return Err(dd.wrong("double_z", format!("{} in a {kind} first stage, which has {wanted}", ddconfig.double_z)));
        }
        bounded(&dd, "ch_mult", &ddconfig.ch_mult, 8)?;
        if ddconfig.num_res_blocks > DEEPEST {
            return Err(dd.wrong("num_res_blocks", format!("{} is more than {DEEPEST}", ddconfig.num_res_blocks)));
        }
        let widths = [
            ("ch", ddconfig.ch),
            ("z_channels", ddconfig.z_channels),
            ("resolution", ddconfig.resolution),
            ("in_channels", ddconfig.in_channels),
            ("out_ch", ddconfig.out_ch),
            ("num_res_blocks", ddconfig.num_res_blocks),
        ];
        positive(&dd, &widths)?;
        dd.finish()?;
        positive(&fields, &[("embed_dim", embed_dim), ("n_embed", n_embed.unwrap_or(1))])?;
        fields.finish()?;
        Ok(match n_embed {
            Some(n_embed) => Self::Vq { embed_dim, n_embed, ddconfig },
            None => Self::Kl { embed_dim, ddconfig },
        })
    }
}

/// A whole number, or a list with one for each level.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl Unet {
    /// Parameters by their original names, for a network's own configuration.
    pub fn params(&self) -> Value {
        // Plain data always becomes JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(super) fn read(mut fields: Fields) -> Result<Self, CardError> {
        let channel_mult: Vec<u32> = fields.required("channel_mult")?;
        bounded(&fields, "channel_mult", &channel_mult, 8)?;
        let levels = channel_mult.len();
        let heads = |fields: &mut Fields, key| -> Result<Option<u32>, CardError> {
            // −1 stands for none in the original.
            match fields.optional::<i64>(key)? {
                None | Some(-1) => Ok(None),
                Some(count @ 1..=65536) => Ok(Some(count as u32)),
                Some(other) => Err(fields.wrong(key, format!("{other} is neither −1 nor 1 to 65536"))),
            }
        };
        let (num_heads, num_head_channels) = (heads(&mut fields, "num_heads")?, heads(&mut fields, "num_head_channels")?);
        if num_heads.is_some() == num_head_channels.is_some() {
            return Err(fields.wrong("num_heads", "exactly one of num_heads and num_head_channels says how many heads there are"));
        }
        let context_dim = match fields.optional("context_dim")? {
            None => None,
            Some(OneOrMany::One(width)) => Some(width),
            Some(OneOrMany::Many(widths)) => match widths[..] {
                [first, ref rest @ ..] if rest.iter().all(|&width| width == first) => Some(first),
                _ => return Err(fields.wrong("context_dim", format!("{widths:?} are not all the same"))),
            },
        };
        let transformer_depth: Vec<u32> = match fields.optional("transformer_depth")? {
            None => vec![1; levels],
            Some(OneOrMany::One(depth)) => vec![depth; levels],
            Some(OneOrMany::Many(depths)) if depths.len() == levels => depths,
            Some(OneOrMany::Many(depths)) => {
                return Err(fields.wrong("transformer_depth", format!("{depths:?} has not one for each of {levels} levels")));
            }
        };
        let disable_self_attentions = fields.or("disable_self_attentions", vec![false; levels])?;
        if disable_self_attentions.len() != levels {
            let found = disable_self_attentions.len();
            return Err(fields.wrong("disable_self_attentions", format!("{found} values for {levels} levels")));
        }
        let unet = Self {
            in_channels: fields.required("in_channels")?,
            out_channels: fields.required("out_channels")?,
            model_channels: fields.required("model_channels")?,
            attention_resolutions: fields.required("attention_resolutions")?,
            num_res_blocks: fields.required("num_res_blocks")?,
            channel_mult,
            num_heads,
            num_head_channels,
            use_scale_shift_norm: fields.or("use_scale_shift_norm", false)?,
            resblock_updown: fields.or("resblock_updown", false)?,
            use_new_attention_order: fields.or("use_new_attention_order", false)?,
            // generative-models leaves it out and goes by the context.
            use_spatial_transformer: fields.or("use_spatial_transformer", context_dim.is_some())?,
            transformer_depth,
            context_dim,
            use_linear_in_transformer: fields.or("use_linear_in_transformer", false)?,
            disable_self_attentions,
            disable_middle_self_attn: fields.or("disable_middle_self_attn", false)?,
            num_classes: fields.optional("num_classes")?,
            adm_in_channels: fields.optional("adm_in_channels")?,
            time_cond_proj_dim: fields.optional("time_cond_proj_dim")?,
        };
        // How it was trained, its precision, and `image_size`, which the class does not use. `legacy` only chooses between two
        // ways to write the same head width when one of num_heads and num_head_channels is given.
        fields.ignore(&[
            "image_size",
            "dropout",
            "use_checkpoint",
            "use_fp16",
            "use_bf16",
            "legacy",
            "spatial_transformer_attn_type",
        ]);
        fields.only("conv_resample", &json!(true))?;
        fields.only("dims", &json!(2))?;
        fields.only("num_heads_upsample", &json!(-1))?;
        if unet.use_spatial_transformer != unet.context_dim.is_some() {
            return Err(fields.wrong("context_dim", "a context and use_spatial_transformer go together"));
        }
        if matches!(unet.num_classes, Some(NumClasses::Sequential(_))) != unet.adm_in_channels.is_some() {
            return Err(fields.wrong("adm_in_channels", "it goes with num_classes = \"sequential\""));
        }
        bounded(&fields, "attention_resolutions", &unet.attention_resolutions, 16)?;
        bounded(&fields, "transformer_depth", &unet.transformer_depth, 8)?;
        let deepest = unet.transformer_depth.iter().max().copied().unwrap_or_default();
        if deepest.max(unet.num_res_blocks) > DEEPEST {
            return Err(fields.wrong("num_res_blocks", format!("it and transformer_depth are {DEEPEST} at most")));
        }
        let widths = [
            ("in_channels", unet.in_channels),
            ("out_channels", unet.out_channels),
            ("model_channels", unet.model_channels),
            ("num_res_blocks", unet.num_res_blocks),
            ("context_dim", unet.context_dim.unwrap_or(1)),
            ("adm_in_channels", unet.adm_in_channels.unwrap_or(1)),
            ("time_cond_proj_dim", unet.time_cond_proj_dim.unwrap_or(1)),
        ];
        positive(&fields, &widths)?;
        let divisor = unet.num_heads.or(unet.num_head_channels).unwrap_or(1);
        for (level, &mult) in unet.channel_mult.iter().enumerate() {
            let channels = mult * unet.model_channels;
            let attends = unet.attention_resolutions.contains(&(1 << level)) || level + 1 == levels;
            if attends && !channels.is_multiple_of(divisor) {
                let key = if unet.num_heads.is_some() { "num_heads" } else { "num_head_channels" };
                return Err(fields.wrong(key, format!("{divisor} does not divide the {channels} channels of level {level}")));
            }
        }
        fields.finish()?;
        Ok(unet)
    }
}

/// Blocks in a row at most, so that a description cannot ask for millions of tensors.
const DEEPEST: u32 = 64;

/// Numbers that a network can be built with, so that products of them cannot overflow.
const LARGEST: u32 = 1 << 20;

fn positive(fields: &Fields, values: &[(&str, u32)]) -> Result<(), CardError> {
    match values.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        Some((key, value)) => Err(fields.wrong(key, format!("{value} is not 1 to {LARGEST}"))),
        None => Ok(()),
    }
}

fn bounded(fields: &Fields, key: &str, values: &[u32], most: usize) -> Result<(), CardError> {
    const LARGEST: u32 = 1024;
    // An empty list of attention levels is one that no level has.
    let empty = values.is_empty() && key != "attention_resolutions";
    if empty || values.len() > most || values.iter().any(|value| !(1..=LARGEST).contains(value)) {
        return Err(fields.wrong(key, format!("{values:?} is not a list of 1 to {most} numbers from 1 to {LARGEST}")));
    }
    Ok(())
}

impl Conditioner {
    fn from_card(mut fields: Fields) -> Result<Self, CardError> {
        let input = fields.required("input")?;
        let kind: String = fields.required("kind")?;
        let mut value = match kind.as_str() {
            "class" => {
                json!({ "n_classes": fields.required::<u32>("n_classes")?, "embed_dim": fields.required::<u32>("embed_dim")? })
            }
            "bert" => json!({
                "n_embed": fields.required::<u32>("n_embed")?,
                "n_layer": fields.required::<u32>("n_layer")?,
                "vocab_size": fields.required::<u32>("vocab_size")?,
                "max_seq_len": fields.required::<u32>("max_seq_len")?,
                "use_tokenizer": fields.required::<bool>("use_tokenizer")?,
            }),
            "spatial_rescaler" => json!({
                "n_stages": fields.required::<u32>("n_stages")?,
                "in_channels": fields.required::<u32>("in_channels")?,
                "out_channels": fields.required::<u32>("out_channels")?,
            }),
            "identity" | "first_stage" => json!({}),
            "clip" => json!({
                "version": fields.required::<String>("version")?,
                "layer": fields.required::<Layer>("layer")?,
                "layer_idx": fields.optional::<u32>("layer_idx")?,
                "max_length": fields.required::<u32>("max_length")?,
            }),
            "open_clip" => json!({
                "arch": fields.required::<String>("arch")?,
                "layer": fields.required::<Layer>("layer")?,
                "max_length": fields.required::<u32>("max_length")?,
                "final_norm": fields.required::<bool>("final_norm")?,
                "pooled": fields.required::<bool>("pooled")?,
            }),
            "clip_image" => json!({ "arch": fields.required::<String>("arch")? }),
            "noise_augmentation" => json!({
                "timestep_dim": fields.required::<u32>("timestep_dim")?,
                "timesteps": fields.required::<u32>("timesteps")?,
                "beta_schedule": fields.required::<String>("beta_schedule")?,
                "stats": fields.required::<bool>("stats")?,
            }),
            "low_scale" => json!({
                "max_noise_level": fields.required::<u32>("max_noise_level")?,
                "timesteps": fields.required::<u32>("timesteps")?,
                "linear_start": fields.required::<f64>("linear_start")?,
                "linear_end": fields.required::<f64>("linear_end")?,
            }),
            "midas" => json!({ "model_type": fields.required::<String>("model_type")? }),
            "sinusoids" => json!({ "outdim": fields.required::<u32>("outdim")? }),
            _ => return Err(fields.wrong("kind", format!("{kind:?} is no kind of conditioner"))),
        };
        value["kind"] = Value::String(kind);
        let kind = serde_json::from_value(value).map_err(|error| fields.wrong("kind", error.to_string()))?;
        fields.finish()?;
        Ok(Self { input, kind })
    }
}
