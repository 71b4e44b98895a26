//! Stable Diffusion 1.x and its kin: CLIP text encoder, UNet with cross-attention, KL autoencoder.

use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;

use ldm_core::{Failure, FailureKind, Task};
use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, Checkpoint, ClipTextConfig, ClipTextModel, ClipTokenizer, Layout, UNet2DCondition,
    UNet2DConditionConfig, Weights,
};
use lru::LruCache;
use tch::{Kind, Tensor};

use super::{Denoiser, Family, Loaded, ModelError, vae_kind};
use crate::conditioning::Conditioning;
use crate::options::LoadOptions;

pub(super) const FAMILY: Family = Family {
    name: "stable-diffusion",
    classes: &["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"],
    tasks: &[Task::Txt2Img, Task::Img2Img],
    parts: &[
        ("tokenizer", None),
        ("text_encoder", Some("model")),
        ("unet", Some("diffusion_pytorch_model")),
        ("vae", Some("diffusion_pytorch_model")),
    ],
    load,
};

fn load(dir: &Path, options: &LoadOptions) -> Result<Loaded, ModelError> {
    let (kind, device) = (options.dtype.kind(), options.device.tch());
    let config = |part: &'static str| move |source| ModelError::Config { part, source };
    let weights = |part: &'static str, stem, kind, rename: fn(&str) -> Option<String>| {
        let checkpoint =
            Checkpoint::open(&dir.join(part), stem).map_err(|source| ModelError::Checkpoint { part, source })?.rename(rename);
        Ok::<_, ModelError>(Weights::from_checkpoint(checkpoint, kind, device, Layout::ChannelsLast))
    };
    let finish = |part: &'static str, weights: Weights| weights.finish().map_err(|source| ModelError::Weights { part, source });

    let text_config = ClipTextConfig::read(&dir.join("text_encoder/config.json")).map_err(config("text_encoder"))?;
    let unet_config = UNet2DConditionConfig::read(&dir.join("unet/config.json")).map_err(config("unet"))?;
    let vae_config = AutoencoderKlConfig::read(&dir.join("vae/config.json")).map_err(config("vae"))?;
    if unet_config.cross_attention_dim != text_config.hidden_size {
        return Err(ModelError::Mismatch(format!(
            "unet/config.json: `cross_attention_dim` is {}, the text encoder's `hidden_size` is {}",
            unet_config.cross_attention_dim, text_config.hidden_size
        )));
    }
    for (key, channels) in [("in_channels", unet_config.in_channels), ("out_channels", unet_config.out_channels)] {
        if channels != vae_config.latent_channels {
            return Err(ModelError::Mismatch(format!(
                "unet/config.json: `{key}` is {channels}, the autoencoder's `latent_channels` is {}",
                vae_config.latent_channels
            )));
        }
    }
    let tokenizer = ClipTokenizer::read(&dir.join("tokenizer"), text_config.max_position_embeddings as usize)?;
    if tokenizer.vocabulary() as i64 > text_config.vocab_size {
        return Err(ModelError::Mismatch(format!(
            "the tokenizer has {} tokens, the text encoder's `vocab_size` is {}",
            tokenizer.vocabulary(),
            text_config.vocab_size
        )));
    }
    let scheduler = crate::scheduler::read(dir)?;

    let text_weights = weights("text_encoder", "model", kind, ClipTextModel::canonical_name)?;
    let text = ClipTextModel::new(&text_weights, &text_config);
    let unet_weights = weights("unet", "diffusion_pytorch_model", kind, |name| Some(name.to_owned()))?;
    let unet = UNet2DCondition::new(&unet_weights, &unet_config);
    let vae_kind = vae_kind(kind, vae_config.force_upcast);
    let vae_weights = weights("vae", "diffusion_pytorch_model", vae_kind, AutoencoderKl::canonical_name)?;
    let vae = AutoencoderKl::new(&vae_weights, &vae_config);
    let reports = [finish("text_encoder", text_weights)?, finish("unet", unet_weights)?, finish("vae", vae_weights)?];

    let prompt_tokens = tokenizer.length() - 2;
    let cache = LruCache::new(NonZeroUsize::new(options.cache).unwrap_or(NonZeroUsize::MIN));
    Ok(Loaded {
        vae,
        scheduler,
        parameters: reports.iter().map(|report| report.parameters).sum(),
        latent_side: unet_config.sample_size,
        prompt_tokens,
        denoiser: Box::new(StableDiffusion { tokenizer, text, unet, cache }),
    })
}

struct StableDiffusion {
    tokenizer: ClipTokenizer,
    text: ClipTextModel,
    unet: UNet2DCondition,
    /// Token ids to the text encoder's output `[1, L, D]`.
    cache: LruCache<Vec<i64>, Tensor>,
}

impl Denoiser for StableDiffusion {
    fn condition(&mut self, prompt: &str) -> Result<Rc<Conditioning>, Failure> {
        let tokens = self.tokenizer.encode(prompt).map_err(|message| Failure::new(FailureKind::Unsupported, message))?;
        if tokens.cut > 0 {
            tracing::debug!(cut = tokens.cut, "the prompt is longer than the text encoder reads");
        }
        let hidden = match self.cache.get(&tokens.ids) {
            Some(hidden) => hidden.shallow_clone(),
            None => {
                let ids = Tensor::from_slice(&tokens.ids).unsqueeze(0).to_device(self.unet.device()); // [1, L]
                let hidden = self.text.forward(&ids); // [1, L, D]
                self.cache.put(tokens.ids, hidden.shallow_clone());
                hidden
            }
        };
        Ok(Rc::new(Conditioning { cross: self.unet.context(&hidden) }))
    }

    fn tokens(&self) -> [u32; 2] {
        [self.tokenizer.length() as u32, self.unet.config().cross_attention_dim as u32]
    }

    fn forward(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Tensor {
        self.unet.forward(&x.to_kind(self.unet.kind()), t, &conditioning.cross).to_kind(Kind::Float)
    }
}
