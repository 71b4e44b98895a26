//! First stages that are not the model's own: a tiny decoder for previews, and another autoencoder in its place.

use std::path::Path;

use ldm_nn::formats::first_stage::{TinyHalf, canonical_tiny};
use ldm_nn::weights::CheckpointError;
use ldm_nn::{AutoencoderTinyConfig, Checkpoint, FirstStageConfig};

use super::original::Original;
use super::{ModelError, directory, original};
use crate::blueprint::{Blueprint, Part};
use crate::options::ModelSource;

const PREVIEW: &str = "preview decoder";
const STAGE: &str = "first stage";

/// What a source wants in place of the model's own, or besides.
pub(super) fn attach(blueprint: &mut Blueprint, source: &ModelSource) -> Result<(), ModelError> {
    if let Some(path) = &source.first_stage {
        let part = another(path, &blueprint.stage.config)?;
        blueprint.evidence.push(format!("the first stage is that of {}", path.display()));
        blueprint.stage = part;
    }
    if let Some(path) = &source.preview {
        let part = decoder(tiny(path)?);
        let found = [part.config.latent_channels, part.config.factor(), part.config.out_channels];
        fits(PREVIEW, path, found, &blueprint.stage.config)?;
        blueprint.preview = Some(part);
    }
    Ok(())
}

/// Refuses a network for other latents: channels, pixels per pixel of a latent, channels of pictures.
fn fits(what: &str, path: &Path, found: [i64; 3], own: &FirstStageConfig) -> Result<(), ModelError> {
    let wanted = [own.latent_channels(), own.factor(), 3];
    let names = ["latent channels", "pixels to a side of a latent's pixel", "channels of pictures"];
    for ((name, found), wanted) in names.into_iter().zip(found).zip(wanted) {
        if found != wanted {
            let path = path.display();
            return Err(ModelError::Mismatch(format!("{what} {path}: it has {found} {name}, the model's own has {wanted}")));
        }
    }
    Ok(())
}

/// Another first stage for the latents that `own` makes.
fn another(path: &Path, own: &FirstStageConfig) -> Result<Part<FirstStageConfig>, ModelError> {
    let mut part = if is_tiny(path)? {
        let Part { name, class, config, checkpoint } = tiny(path)?;
        if checkpoint.names().all(|name| !name.starts_with("encoder.")) {
            return Err(ModelError::Mismatch(format!("{STAGE} {}: it has no encoder", path.display())));
        }
        Part { name, class, config: FirstStageConfig::Tiny(config), checkpoint }
    } else if path.is_dir() {
        directory::read_stage(path)?
    } else {
        original::read_stage(Original::new(path), None)?
    };
    let pictures = match &part.config {
        FirstStageConfig::Kl(config) => config.out_channels,
        FirstStageConfig::Vq(config) => config.out_channels,
        FirstStageConfig::Tiny(config) => config.out_channels,
    };
    fits(STAGE, path, [part.config.latent_channels(), part.config.factor(), pictures], own)?;
    // A file of an autoencoder alone does not say what its latents are multiplied by: the denoiser's scale holds. TAESD takes
    // latents at that scale as they are.
    let says_scale = path.is_dir() && !matches!(part.config, FirstStageConfig::Tiny(_));
    match (&part.config, own) {
        (FirstStageConfig::Tiny(_), _) => {}
        (other, own) if says_scale && !matches!(own, FirstStageConfig::Tiny(_)) && differ(other, own) => {
            return Err(ModelError::Mismatch(format!(
                "{STAGE} {}: its `scaling_factor` is {}, the model's own is {}: it was made for other latents",
                path.display(),
                other.scaling_factor(),
                own.scaling_factor()
            )));
        }
        _ if matches!(own, FirstStageConfig::Tiny(_)) => {}
        _ => part.config.set_scaling_factor(own.scaling_factor()),
    }
    Ok(Part { name: "first_stage", ..part })
}

fn differ(a: &FirstStageConfig, b: &FirstStageConfig) -> bool {
    (a.scaling_factor() - b.scaling_factor()).abs() > 1e-4 * b.scaling_factor()
}

/// The decoder alone.
fn decoder(part: Part<AutoencoderTinyConfig>) -> Part<AutoencoderTinyConfig> {
    let half = part.checkpoint.rename(|name| name.starts_with("decoder.").then(|| name.to_owned()));
    Part { name: "preview", checkpoint: half, ..part }
}

fn open(path: &Path) -> Result<Checkpoint, ModelError> {
    let wrong = |source| ModelError::Checkpoint { part: PREVIEW, source };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if path.is_file() && ["pth", "pt", "ckpt", "bin"].contains(&extension) {
        return Err(wrong(CheckpointError::Pickle { path: path.to_owned() }));
    }
    Checkpoint::open_files([path.to_owned()]).map_err(wrong)
}

/// Which names a file of TAESD has.
#[derive(Clone, Copy)]
enum Names {
    Diffusers,
    Original(Option<TinyHalf>),
}

/// How the names of a file are those of TAESD, if they are.
fn names(checkpoint: &Checkpoint) -> Option<Names> {
    let has = |name: &str| checkpoint.shape(&format!("{name}.weight")).is_some();
    let any = |names: &[&str]| names.iter().any(|name| has(name));
    if any(&["decoder.layers.0", "encoder.layers.0"]) {
        Some(Names::Diffusers)
    } else if any(&["decoder.1", "taesd_decoder.1", "encoder.0", "taesd_encoder.0"]) {
        Some(Names::Original(None))
    } else if has("0") && has("1.conv.0") {
        Some(Names::Original(Some(TinyHalf::Encoder)))
    } else if has("1") && has("3.conv.0") {
        // The decoder's first place is the clamp's, which has no numbers.
        Some(Names::Original(Some(TinyHalf::Decoder)))
    } else {
        None
    }
}

fn is_tiny(path: &Path) -> Result<bool, ModelError> {
    if path.is_dir() {
        return Ok(matches!(directory::read_stage(path)?.config, FirstStageConfig::Tiny(_)));
    }
    Ok(names(&open(path)?).is_some())
}

/// TAESD of a directory, or of a file in its own names or diffusers', whole or one half.
fn tiny(path: &Path) -> Result<Part<AutoencoderTinyConfig>, ModelError> {
    let invalid = |message: &str| ModelError::Invalid { path: path.to_owned(), message: message.to_owned() };
    let class = "AutoencoderTiny";
    if path.is_dir() {
        let Part { name, config, checkpoint, .. } = directory::read_stage(path)?;
        return match config {
            FirstStageConfig::Tiny(config) => Ok(Part { name, class, config, checkpoint }),
            _ => Err(invalid("it is no AutoencoderTiny")),
        };
    }
    let checkpoint = open(path)?;
    let checkpoint = match names(&checkpoint) {
        Some(Names::Diffusers) => checkpoint,
        Some(Names::Original(half)) => canonical_tiny(checkpoint, half),
        None => return Err(invalid("it holds no TAESD: neither `decoder.1.weight` nor `decoder.layers.0.weight` is there")),
    };
    let side = |name: &str, at: usize| checkpoint.shape(name).and_then(|shape| shape.get(at).copied());
    let latent = side("decoder.layers.0.weight", 1).or(side("encoder.layers.14.weight", 0));
    let latent_channels = latent.ok_or_else(|| invalid("its latents have no number of channels"))?;
    let config = AutoencoderTinyConfig { latent_channels, ..AutoencoderTinyConfig::default() };
    config.check().map_err(|source| ModelError::Config { part: PREVIEW, source })?;
    Ok(Part { name: STAGE, class, config, checkpoint })
}
