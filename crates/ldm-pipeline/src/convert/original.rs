//! A directory of diffusers as a single file of the original repositories.

use std::path::{Path, PathBuf};

use ldm_formats::card::{Card, ConditionerKind};
use ldm_formats::convert::Progress;
use ldm_formats::expect;
use ldm_formats::writer::partial_name;
use ldm_nn::formats::{first_stage, unet as unet_names};
use ldm_nn::{Architecture, Checkpoint, Mapped};
use ldm_sampler::BetaSchedule;
use serde_json::Value;

use super::card::no_form;
use super::compare::{difference, plain, plain_stage};
use super::output::{Item, Output, Staging, beside};
use super::{ConvertError, ConvertOptions, Converted, card, io, names, tokenizer};
use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan};
use crate::families::original::{self, Original};
use crate::families::{ModelError, directory, read_json};
use crate::options::{EmaChoice, ModelSource};
use crate::scheduler;

/// Writes the file, and what must lie beside it.
pub(super) fn write(
    source: &ModelSource,
    to: &Path,
    options: ConvertOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Converted, ConvertError> {
    let dir = source.dir.as_path();
    if to.exists() && !options.force {
        return Err(ConvertError::Exists { path: to.to_owned(), hint: ": --force replaces it" });
    }
    let file = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = to.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let model = Directory::read(dir, &stem)?;
    let mut output = model.output(dir)?;
    output.weights[0].0.clone_from(&file);
    let described = format!("{stem}.toml");
    output.texts.push((described.clone(), model.card().to_toml()));
    // Everything is made in a folder beside, where it can be read as it will be.
    let staging = Staging::create(&partial_place(to), false)?;
    let (tensors, bytes) = output.write(staging.path(), options.cast, progress)?;
    let made = staging.path().join(&file);
    model.compare(&made, Some(&staging.path().join(&described)))?;
    // A file that is recognised as what it is needs no description.
    if original::beside(to).is_none() && known(&model, staging.path(), &file) {
        std::fs::remove_file(staging.path().join(&described)).map_err(io(&made))?;
    }
    let beside = moved(staging.path(), to, &file, options.force)?;
    Ok(Converted { tensors, bytes, beside, left_out: left_out(dir) })
}

/// Folders that original files have nothing of: what checks pictures, or estimates their depth.
fn left_out(dir: &Path) -> Vec<(String, usize)> {
    const TAKEN: [&str; 10] = [
        "unet",
        "vae",
        "vqvae",
        "text_encoder",
        "text_encoder_2",
        "bert",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
        "low_res_scheduler",
    ];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<_> = folders.filter(|name| !TAKEN.contains(&name.as_str())).map(|name| (name, 0)).collect();
    others.sort();
    others
}

/// The folder's name before it has the process' number.
fn partial_place(to: &Path) -> PathBuf {
    beside(to, ".parts")
}

/// Whether a file is recognised by its tensors as what it is: its card lies beside it under another name for this look.
fn known(model: &Directory, folder: &Path, file: &str) -> bool {
    let made = folder.join(file);
    let (card, aside) = (made.with_extension("toml"), folder.join("aside"));
    let known = std::fs::rename(&card, &aside).is_ok() && model.compare(&made, None).is_ok();
    std::fs::rename(&aside, &card).is_ok() && known
}

/// What is converted.
enum Directory {
    Pipeline(Box<Blueprint>, Box<Card>),
    Stage(Box<crate::blueprint::Part<ldm_nn::FirstStageConfig>>, Box<Card>),
}

impl Directory {
    fn read(dir: &Path, name: &str) -> Result<Self, ConvertError> {
        if dir.join("config.json").is_file() {
            let part = directory::read_stage(dir)?;
            let card = card::stage_card(&part.config, name)?;
            return Ok(Self::Stage(Box::new(part), Box::new(card)));
        }
        let blueprint = directory::read(dir).map_err(|mut errors| errors.swap_remove(0))?;
        let low_scale = match blueprint.concat {
            ConcatPlan::NoisedLowResolution(_) => Some(low_scale(dir, &blueprint)?),
            _ => None,
        };
        let card = card::card(&blueprint, name, low_scale)?;
        Ok(Self::Pipeline(Box::new(blueprint), Box::new(card)))
    }

    fn card(&self) -> &Card {
        match self {
            Self::Pipeline(_, card) | Self::Stage(_, card) => card,
        }
    }

    fn output(&self, dir: &Path) -> Result<Output, ConvertError> {
        let mut output = Output::default();
        let items = match self {
            Self::Stage(part, card) => {
                let shapes = expect::first_stage(card.model.first_stage());
                let originals = names::stage_originals("", &part.config, &shapes, &part.checkpoint);
                let items = names::items(originals, "", &shapes, &part.checkpoint);
                whole(part.name, &part.checkpoint, &items)?;
                items
            }
            Self::Pipeline(blueprint, card) => {
                vocabularies(&mut output, &blueprint.conditioner);
                [denoiser(blueprint, card)?, stage(blueprint, card)?, texts(dir, blueprint)?].into_iter().flatten().collect()
            }
        };
        output.weights.push((String::new(), items));
        Ok(output)
    }

    /// Reads what was written as the loader would, and compares.
    fn compare(&self, made: &Path, described: Option<&Path>) -> Result<(), ConvertError> {
        let file = Original::new(made);
        match self {
            Self::Stage(part, _) => {
                let again = original::read_stage(file, described)?;
                // The scale of a first stage alone is nobody's business.
                let mut wanted = plain_stage(&part.config);
                wanted.set_scaling_factor(again.config.scaling_factor());
                if plain_stage(&again.config) != wanted {
                    return Err(ConvertError::Changed(format!("{wanted:?} would be {:?}", again.config)));
                }
            }
            Self::Pipeline(blueprint, _) => {
                let (card, evidence) = original::describe(file, described)?;
                let again = original::blueprint(file, &card, evidence, EmaChoice::Auto)?;
                if let Some(difference) = difference(blueprint, &again) {
                    return Err(ConvertError::Changed(difference));
                }
            }
        }
        Ok(())
    }
}

/// The noise on the small picture, as the directory says.
fn low_scale(dir: &Path, blueprint: &Blueprint) -> Result<ConditionerKind, ConvertError> {
    let schedule = scheduler::schedule(&dir.join("low_res_scheduler"))?;
    if schedule.beta_schedule != BetaSchedule::ScaledLinear {
        return Err(no_form("low_res_scheduler", format!("original classes have no {:?}", schedule.beta_schedule)));
    }
    let index: Value = read_json(&dir.join("model_index.json"))?;
    let told = index["max_noise_level"].as_u64().map(|most| most as u32);
    let most = told.or(blueprint.conditions.noise_levels.map(|levels| levels - 1)).unwrap_or(350);
    Ok(ConditionerKind::LowScale {
        max_noise_level: most,
        timesteps: schedule.num_train_timesteps as u32,
        linear_start: schedule.beta_start,
        linear_end: schedule.beta_end,
    })
}

/// Refuses a part of which something would be lost.
fn whole(part: &str, checkpoint: &Checkpoint, items: &[Item]) -> Result<(), ConvertError> {
    let written: std::collections::BTreeSet<&str> =
        items.iter().flat_map(|item| ldm_nn::formats::inverse::parts(&item.made)).map(String::as_str).collect();
    match checkpoint.names().find(|name| !written.contains(name)) {
        Some(name) => Err(no_form(part, format!("`{name}` has no original name"))),
        None => Ok(()),
    }
}

fn denoiser(blueprint: &Blueprint, card: &Card) -> Result<Vec<Item>, ConvertError> {
    let part = &blueprint.unet;
    let Some(diffusion) = card.model.diffusion() else { return Ok(vec![]) };
    // Original names have one place for both kinds of a vector.
    let architecture = Architecture { added: None, labels: plain(&part.config).labels, ..part.config.clone() };
    let originals = names::unet_originals(&architecture).map_err(|error| no_form(part.name, error.to_string()))?;
    let rename = |name: &str, _: &[i64]| Mapped::As(name.replace("add_embedding.", "class_embedding."));
    let checkpoint = part.checkpoint.clone().map_names(rename);
    if let Some((name, _)) = originals
        .iter()
        .find(|(_, made)| ldm_nn::formats::inverse::parts(made).iter().any(|name| checkpoint.shape(name).is_none()))
    {
        return Err(ModelError::Mismatch(format!("{}: what `{name}` is made of is missing", part.name)).into());
    }
    let items = names::items(originals, unet_names::PREFIX, &expect::unet(&diffusion.unet), &checkpoint);
    whole(part.name, &checkpoint, &items)?;
    Ok(items)
}

fn stage(blueprint: &Blueprint, card: &Card) -> Result<Vec<Item>, ConvertError> {
    let part = &blueprint.stage;
    let shapes = expect::first_stage(card.model.first_stage());
    let originals = names::stage_originals(first_stage::PREFIX, &part.config, &shapes, &part.checkpoint);
    let items = names::items(originals, first_stage::PREFIX, &shapes, &part.checkpoint);
    whole(part.name, &part.checkpoint, &items)?;
    Ok(items)
}

/// Text encoders.
fn texts(dir: &Path, blueprint: &Blueprint) -> Result<Vec<Item>, ConvertError> {
    let mut all = Vec::new();
    for text in names::texts(&blueprint.conditioner) {
        let part = &text.part.network;
        let items = names::items(text.originals(), "", &[], &part.checkpoint);
        whole(part.name, &part.checkpoint, &items)?;
        all.extend(items);
    }
    if let ConditionerPlan::Bert { network, .. } = &blueprint.conditioner {
        // With its output layer, which loading leaves out.
        let wrong = |source| ModelError::Checkpoint { part: network.name, source };
        let folder = dir.join(network.name);
        let stored = Checkpoint::open(&folder, "model").or_else(|_| Checkpoint::open(&folder, "pytorch_model")).map_err(wrong)?;
        let checkpoint = stored.rename(|name| (!name.ends_with("position_ids")).then(|| name.to_owned()));
        let items = names::items(names::bert_originals(&network.config, &checkpoint), "", &[], &checkpoint);
        whole(network.name, &checkpoint, &items)?;
        all.extend(items);
    }
    Ok(all)
}

fn vocabularies(output: &mut Output, plan: &ConditionerPlan) {
    let folders: Vec<&Path> = match plan {
        ConditionerPlan::Bert { vocabulary, .. } => vec![vocabulary],
        plan => names::texts(plan).iter().map(|text| text.part.vocabulary.as_path()).collect(),
    };
    for (folder, name) in folders.into_iter().zip(["tokenizer", "tokenizer_2"]) {
        output.copies.extend(tokenizer::copies(folder, name));
    }
}

/// Gives everything its place; the model's file comes last, so that it never lies there without what it needs.
fn moved(from: &Path, to: &Path, file: &str, force: bool) -> Result<Vec<PathBuf>, ConvertError> {
    let place = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(other) = ["yaml", "yml"].map(|extension| to.with_extension(extension)).into_iter().find(|path| path.exists()) {
        let hint = " and would describe the new file: convert into another folder";
        return Err(ConvertError::Exists { path: other, hint });
    }
    let mut new: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in walk(from)? {
        let relative = entry.strip_prefix(from).unwrap_or(&entry).to_owned();
        let target = place.join(&relative);
        if relative.as_os_str() == file || same(&entry, &target) {
            continue;
        }
        if target.exists() && !force {
            return Err(ConvertError::Exists { path: target, hint: ", and is another: --force replaces it" });
        }
        new.push((entry, target));
    }
    new.sort();
    for (entry, target) in &new {
        let parent = target.parent().unwrap_or(place);
        std::fs::create_dir_all(parent).map_err(io(parent))?;
        let partial = partial_name(target);
        std::fs::rename(entry, &partial).and_then(|()| std::fs::rename(&partial, target)).map_err(io(target))?;
    }
    std::fs::rename(from.join(file), to).map_err(io(to))?;
    Ok(new.into_iter().map(|(_, target)| target).collect())
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((std::fs::read(a), std::fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

/// The files of a folder and of those in it.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, ConvertError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    Ok(files)
}
