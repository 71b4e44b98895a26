//! From names and shapes to the description that they fit.
//!
//! Every tensor of the denoiser that a card asks for is compared, not a few marks. Still, some things leave no trace in shapes:
//! heads, prediction type, schedule, scale. They are taken from a card only when it is the one card that fits; when several fit,
//! the answer says in what they differ, and a person says which it is. Nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::card::{self, Card, Diffusion, FirstStage, Model, Scale};
use crate::expect;

/// Where the denoiser lies in files of `LatentDiffusion` and `DiffusionEngine`.
pub const UNET_PREFIX: &str = "model.diffusion_model.";
/// Where the first stage lies.
pub const FIRST_STAGE_PREFIX: &str = "first_stage_model.";

/// What a file holds, by the prefixes of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `model.diffusion_model.`
    Unet,
    /// `first_stage_model.`
    FirstStage,
    /// `cond_stage_model.`, `conditioner.`
    Conditioner,
    /// `model_ema.`
    Ema,
    /// `loss.`, `first_stage_model.loss.`: discriminators, of no use after training.
    Loss,
    /// Depth, image embedding and noise augmentation of some Stable Diffusion models.
    Auxiliary,
    /// Schedules and other numbers that a program computes again.
    Schedule,
    /// `scale_factor`.
    ScaleFactor,
    /// Anything else.
    Unknown,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unet => "unet",
            Self::FirstStage => "first stage",
            Self::Conditioner => "conditioner",
            Self::Ema => "ema",
            Self::Loss => "loss",
            Self::Auxiliary => "auxiliary",
            Self::Schedule => "schedule",
            Self::ScaleFactor => "scale factor",
            Self::Unknown => "unknown",
        })
    }
}

/// The part that a name belongs to.
pub fn part_of(name: &str) -> Part {
    const PREFIXES: [(&str, Part); 12] = [
        ("first_stage_model.loss.", Part::Loss),
        ("loss.", Part::Loss),
        (UNET_PREFIX, Part::Unet),
        (FIRST_STAGE_PREFIX, Part::FirstStage),
        ("cond_stage_model.", Part::Conditioner),
        ("conditioner.", Part::Conditioner),
        ("model_ema.", Part::Ema),
        ("depth_model.", Part::Auxiliary),
        ("low_scale_model.", Part::Auxiliary),
        ("embedder.", Part::Auxiliary),
        ("noise_augmentor.", Part::Auxiliary),
        ("ddim_", Part::Schedule),
    ];
    const BUFFERS: [&str; 15] = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
        "logvar",
        "denoiser.sigmas",
    ];
    if let Some((_, part)) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return *part;
    }
    match name {
        "scale_factor" => Part::ScaleFactor,
        _ if BUFFERS.contains(&name) => Part::Schedule,
        _ => Part::Unknown,
    }
}

/// How much of each part a file holds: tensors and numbers.
pub type Inventory = BTreeMap<Part, (usize, u64)>;

/// Counts the parts of a file.
pub fn inventory(shapes: &Shapes) -> Inventory {
    let mut inventory = Inventory::new();
    for (name, shape) in shapes {
        let entry = inventory.entry(part_of(name)).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(shape.iter().fold(1u64, |size, &n| size.saturating_mul(n)));
    }
    inventory
}

/// Names and shapes of a file.
pub type Shapes = BTreeMap<String, Vec<u64>>;

/// Whether averaged weights are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmaFound {
    /// None.
    Absent,
    /// One for each parameter of the denoiser.
    Whole,
    /// Some are missing: they cannot be used.
    Partial {
        /// How many.
        missing: usize,
    },
}

/// A file that fits one card.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// That card.
    pub card: Card,
    /// What speaks for it.
    pub evidence: Vec<String>,
    /// Whether averaged weights are there.
    pub ema: EmaFound,
}

/// A file that fits no card, or several.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RecogniseError {
    /// Several cards fit.
    #[error(
        "the file fits {}: shapes cannot tell them apart. Name the card, or put its yaml beside the file. They differ in {}",
        names.join(", "),
        if settings.is_empty() { "nothing but their names".to_owned() } else { settings.join("; ") }
    )]
    Ambiguous {
        /// The cards.
        names: Vec<String>,
        /// What they differ in: `parameterization: "eps" (sd-v2-base), "v" (sd-v2-768-v)`.
        settings: Vec<String>,
        /// What speaks for the first of them.
        evidence: Vec<String>,
    },
    /// No card fits.
    #[error("the file fits no known model; nearest is {nearest}, with {count} differences: {}", shown.join("; "))]
    Unlike {
        /// The card with the fewest differences.
        nearest: String,
        /// How many differences.
        count: usize,
        /// The first of them.
        shown: Vec<String>,
    },
    /// It is no checkpoint in the original layout.
    #[error("{0}")]
    Layout(String),
}

/// Finds the card that a file fits among those given.
///
/// # Errors
/// When none fits, or more than one.
pub fn recognise(shapes: &Shapes, cards: &[Card]) -> Result<Recognised, RecogniseError> {
    let parts = Parts::of(shapes)?;
    let mut fits: Vec<(&Card, Vec<String>)> = Vec::new();
    let mut nearest: Option<(&Card, Vec<String>)> = None;
    for card in cards {
        let Some(outcome) = parts.compare(card) else { continue };
        if outcome.differences.is_empty() {
            fits.push((card, outcome.evidence));
        } else if nearest.as_ref().is_none_or(|(_, found)| outcome.differences.len() < found.len()) {
            nearest = Some((card, outcome.differences));
        }
    }
    let mut fits = fits.into_iter();
    match (fits.next(), fits.len()) {
        (Some((card, mut evidence)), 0) => {
            let ema = parts.ema(card);
            evidence.push(match ema {
                EmaFound::Absent => "no averaged weights".to_owned(),
                EmaFound::Whole => "averaged weights for every parameter of the UNet".to_owned(),
                EmaFound::Partial { missing } => format!("averaged weights, but {missing} are missing"),
            });
            Ok(Recognised { card: card.clone(), evidence, ema })
        }
        (Some((first, evidence)), _) => {
            let all: Vec<&Card> = std::iter::once(first).chain(fits.map(|(card, _)| card)).collect();
            let names = all.iter().map(|card| card.name.clone()).collect();
            Err(RecogniseError::Ambiguous { names, settings: settings(&all), evidence })
        }
        (None, _) => match nearest {
            Some((card, differences)) => {
                const SHOWN: usize = 3;
                let (nearest, count) = (card.name.clone(), differences.len());
                Err(RecogniseError::Unlike { nearest, count, shown: differences.into_iter().take(SHOWN).collect() })
            }
            None => Err(RecogniseError::Layout("the file has neither a denoiser nor a first stage that is known".to_owned())),
        },
    }
}

/// What cards differ in: networks first, then how they are served.
fn settings(cards: &[&Card]) -> Vec<String> {
    let mut paths = BTreeSet::new();
    let (first, rest) = (cards[0], &cards[1..]);
    let mut values: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for card in rest {
        let networks = card::differences(&first.model, &card.model);
        let served = card::differences(&first.serving, &card.serving);
        let served = served.into_iter().map(|(path, a, b)| (format!("serving.{path}"), a, b));
        for (path, a, b) in networks.into_iter().chain(served) {
            paths.insert((path.starts_with("serving."), path.clone()));
            let of = values.entry(path).or_default();
            of.insert(first.name.clone(), a);
            of.insert(card.name.clone(), b);
        }
    }
    let line = |path: &String| {
        let of = &values[path];
        let first_value = &of[&first.name];
        // A card that does not differ from the first has the first's value.
        let all = cards.iter().map(|card| format!("{} ({})", of.get(&card.name).unwrap_or(first_value), card.name));
        format!("{path}: {}", all.collect::<Vec<_>>().join(", "))
    };
    paths.iter().map(|(_, path)| line(path)).collect()
}

/// A file's tensors by part, prefixes taken off.
struct Parts<'s> {
    all: &'s Shapes,
    unet: BTreeMap<&'s str, &'s [u64]>,
    first_stage: BTreeMap<&'s str, &'s [u64]>,
}

struct Outcome {
    evidence: Vec<String>,
    differences: Vec<String>,
}

impl<'s> Parts<'s> {
    fn of(shapes: &'s Shapes) -> Result<Self, RecogniseError> {
        let under = |prefix: &str| -> BTreeMap<&'s str, &'s [u64]> {
            let aside = [Part::Loss, Part::Ema, Part::Schedule];
            let tensors = shapes.iter().filter(|(name, _)| !aside.contains(&part_of(name)));
            tensors.filter_map(|(name, shape)| Some((name.strip_prefix(prefix)?, &shape[..]))).collect()
        };
        let (mut unet, mut first_stage) = (under(UNET_PREFIX), under(FIRST_STAGE_PREFIX));
        if unet.is_empty() && first_stage.is_empty() {
            let any = |prefix: &str| shapes.keys().any(|name| name.starts_with(prefix));
            if any("down_blocks.") || any("encoder.down_blocks.") || any("decoder.up_blocks.") {
                let what = "the file is a module of diffusers: its config.json describes it, open the directory that it lies in";
                return Err(RecogniseError::Layout(what.to_owned()));
            }
            // Without prefixes: a denoiser or a first stage alone.
            if any("input_blocks.") {
                unet = under("");
            } else {
                first_stage = under("");
            }
        }
        Ok(Self { all: shapes, unet, first_stage })
    }

    /// How a card fits; `None` when it is about another kind of file.
    fn compare(&self, card: &Card) -> Option<Outcome> {
        match &card.model {
            Model::Diffusion(diffusion) if !self.unet.is_empty() => Some(self.diffusion(diffusion)),
            Model::FirstStage(first_stage) if self.unet.is_empty() => Some(self.alone(first_stage)),
            _ => None,
        }
    }

    fn diffusion(&self, model: &Diffusion) -> Outcome {
        let expected = expect::unet(&model.unet);
        let mut differences = unlike(&expected, &self.unet, UNET_PREFIX, true);
        let unet = &model.unet;
        let mut evidence = vec![format!(
            "all {} tensors of the UNet: {} to {} channels, width {}{}",
            expected.len(),
            unet.in_channels,
            unet.out_channels,
            unet.model_channels,
            unet.context_dim.map(|width| format!(", context of width {width}")).unwrap_or_default()
        )];
        if self.first_stage.is_empty() {
            evidence.push("no first stage in the file".to_owned());
        } else {
            let expected = expect::first_stage(&model.first_stage);
            // The encoder may be left out where nothing is encoded.
            let encoder = self.first_stage.keys().any(|name| name.starts_with("encoder."));
            let encodes = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
            let needed = |name: &str| encoder || !encodes(name) || self.first_stage.contains_key(name);
            let expected: Vec<_> = expected.into_iter().filter(|(name, _)| needed(name)).collect();
            differences.extend(unlike(&expected, &self.first_stage, FIRST_STAGE_PREFIX, true));
            evidence.push(format!("all {} tensors of the first stage", expected.len()));
        }
        self.conditioners(model, &mut evidence, &mut differences);
        if model.scale == Scale::Checkpoint {
            let there = self.all.contains_key("scale_factor");
            let word = if there { "there" } else { "missing: latents cannot be scaled" };
            evidence.push(format!("the buffer scale_factor is {word}"));
        }
        Outcome { evidence, differences }
    }

    fn conditioners(&self, model: &Diffusion, evidence: &mut Vec<String>, differences: &mut Vec<String>) {
        let engine = self.all.keys().any(|name| name.starts_with("conditioner.embedders."));
        if !engine && !self.all.keys().any(|name| name.starts_with("cond_stage_model.")) {
            evidence.push("no conditioner in the file".to_owned());
            return;
        }
        for (index, conditioner) in model.conditioners.iter().enumerate() {
            let prefix = if engine { format!("conditioner.embedders.{index}.") } else { "cond_stage_model.".to_owned() };
            let tensors: BTreeMap<&str, &[u64]> =
                self.all.iter().filter_map(|(name, shape)| Some((name.strip_prefix(&prefix)?, &shape[..]))).collect();
            let mut marks = expect::conditioner(&conditioner.kind);
            // Some files have transformers' CLIP without this level.
            if !tensors.keys().any(|name| name.contains("text_model.")) {
                marks.iter_mut().for_each(|(name, _)| *name = name.replace("text_model.", ""));
            }
            differences.extend(unlike(&marks, &tensors, &prefix, false));
            for (name, shape) in marks {
                evidence.push(format!("{prefix}{name} {shape:?}"));
            }
        }
        if model.conditioners.is_empty() {
            differences.push("a conditioner is there, an unconditional model has none".to_owned());
        }
    }

    fn alone(&self, model: &FirstStage) -> Outcome {
        let whole = expect::first_stage(model);
        let outcome = |what: &str, expected: &expect::Expected| Outcome {
            evidence: vec![format!("all {} tensors of the {what}", expected.len())],
            differences: unlike(expected, &self.first_stage, "", true),
        };
        let mut best = outcome("first stage", &whole);
        if matches!(model, FirstStage::Tiny { .. }) {
            // Two files, each a sequence that starts at its own number.
            for part in ["encoder", "decoder"] {
                let own = |name: &str| name.strip_prefix(part)?.strip_prefix('.').map(str::to_owned);
                let half = whole.iter().filter_map(|(name, shape)| Some((own(name)?, shape.clone()))).collect();
                let other = outcome(part, &half);
                if other.differences.len() < best.differences.len() {
                    best = other;
                }
            }
        }
        best
    }

    fn ema(&self, card: &Card) -> EmaFound {
        let Some(model) = card.model.diffusion() else { return EmaFound::Absent };
        if !self.all.keys().any(|name| name.starts_with("model_ema.diffusion_model")) {
            return EmaFound::Absent;
        }
        let expected = expect::unet(&model.unet);
        match expected.iter().filter(|(name, _)| !self.all.contains_key(&expect::ema_name(name))).count() {
            0 => EmaFound::Whole,
            missing => EmaFound::Partial { missing },
        }
    }
}

/// What is missing, of another shape or, if `strict`, too much.
fn unlike(expected: &[(String, Vec<u64>)], found: &BTreeMap<&str, &[u64]>, prefix: &str, strict: bool) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, shape) in expected {
        match found.get(name.as_str()) {
            None => differences.push(format!("{prefix}{name} {shape:?} is missing")),
            Some(there) if *there != shape.as_slice() => differences.push(format!("{prefix}{name} is {there:?}, not {shape:?}")),
            Some(_) => {}
        }
    }
    if strict {
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let more = found.keys().filter(|name| !known.contains(*name));
        differences.extend(more.map(|name| format!("{prefix}{} is not expected", crate::pickle::shown(name))));
    }
    differences
}
