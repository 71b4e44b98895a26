//! What a model is made of, read and checked but not built: the same for every format, so that serving and inspecting agree.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;

use ldm_core::{Conditions, Rounding, Task};
use ldm_nn::adapters::{Layers, Part as Adapted};
use ldm_nn::conditioners::{
    BertTokenizer, ClassEmbedder, ClassEmbedderConfig, Inversions, LayoutConfig, LdmBertConfig, LdmBertModel, SpatialRescaler,
    SpatialRescalerConfig, TextualInversion,
};
use ldm_nn::{
    Architecture, AutoencoderTinyConfig, Checkpoint, ClipTextConfig, ClipTextModel, ClipTokenizer, FirstStage, FirstStageConfig,
    Layout, Readout, Report, TinyDecoder, UNet, Weights,
};
use tch::{Device, Kind};

use crate::conditioner::{Bert, Boxes, Classes, Conditioner, Encoder, Known, Neighbors, Numbers, Text, TextPair, Unconditioned};
use crate::families::ModelError;
use crate::loras::{Library, Merged, files};
use crate::scheduler::Scheduler;
use crate::system::Concat;

/// A network with where its parameters come from.
pub(crate) struct Part<C> {
    /// Its name: a directory's, or the prefix in a file.
    pub(crate) name: &'static str,
    /// The class of the network, as its authors call it.
    pub(crate) class: &'static str,
    pub(crate) config: C,
    /// Under canonical names.
    pub(crate) checkpoint: Checkpoint,
}

impl<C> Part<C> {
    /// Whether the checkpoint fits the network and holds numbers, from its names, shapes and a sample: in milliseconds.
    fn survey<N>(&self, new: impl Fn(&Weights, &C) -> N) -> Result<Report, String> {
        let weights = Weights::survey(&self.checkpoint);
        new(&weights, &self.config);
        let report = weights.finish().map_err(|error| error.to_string())?;
        match self.checkpoint.damaged() {
            Some(name) => Err(format!("{name} holds NaN or infinity: the file is damaged")),
            None => Ok(report),
        }
    }

    /// The same as an error of the model.
    fn fits<N>(&self, new: impl Fn(&Weights, &C) -> N) -> Result<(), ModelError> {
        self.survey(new).map(drop).map_err(|message| ModelError::Mismatch(format!("{}: {message}", self.name)))
    }
}

/// A CLIP text encoder with its tokenizer.
pub(crate) struct TextPart {
    pub(crate) tokenizer: ClipTokenizer,
    /// The folder that the tokenizer was read from.
    pub(crate) vocabulary: PathBuf,
    pub(crate) network: Part<ClipTextConfig>,
    pub(crate) readout: Readout,
}

/// What makes conditioning.
#[expect(clippy::large_enum_variant, reason = "there is one for each model, and it is taken apart at once")]
pub(crate) enum ConditionerPlan {
    None,
    Text(TextPart),
    TextPair { first: Option<TextPart>, second: TextPart, numbers: Numbers, zeros_for_empty: bool },
    Bert { tokenizer: BertTokenizer, vocabulary: PathBuf, network: Part<LdmBertConfig> },
    Class { network: Part<ClassEmbedderConfig>, none: Option<i64> },
    Layout { layout: LayoutConfig, network: Part<LdmBertConfig> },
    Neighbors { width: i64 },
}

/// What lies beside the latent.
pub(crate) enum ConcatPlan {
    None,
    MaskedMask,
    MaskMasked,
    LowResolution,
    /// ᾱ of the small picture's own schedule.
    NoisedLowResolution(Vec<f64>),
    Depth,
    Semantic(Part<SpatialRescalerConfig>),
}

/// How a model is served when a request does not say; `None` leaves it to the scheduler's configuration and the family's habits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    pub(crate) sampler: Option<String>,
    pub(crate) steps: Option<u32>,
    pub(crate) guidance: Option<f64>,
    pub(crate) eta: Option<f64>,
    pub(crate) strength: Option<f64>,
    pub(crate) rounding: Rounding,
    /// Width and height.
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) min: Option<u32>,
    pub(crate) max: Option<u32>,
    pub(crate) multiple: Option<u32>,
}

/// A model, ready to be built.
pub(crate) struct Blueprint {
    /// The family's name, or the card's.
    pub(crate) family: String,
    pub(crate) tasks: Vec<Task>,
    pub(crate) conditions: Conditions,
    pub(crate) unet: Part<Architecture>,
    pub(crate) stage: Part<FirstStageConfig>,
    /// A small decoder for previews: of the decoder alone.
    pub(crate) preview: Option<Part<AutoencoderTinyConfig>>,
    pub(crate) conditioner: ConditionerPlan,
    pub(crate) concat: ConcatPlan,
    pub(crate) scheduler: Scheduler,
    pub(crate) habits: Habits,
    /// Latents larger than this are denoised in overlapping tiles.
    pub(crate) tile: Option<i64>,
    /// Averaged weights were taken.
    pub(crate) ema: bool,
    /// How the model was recognised.
    pub(crate) evidence: Vec<String>,
}

/// How far networks are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Names and shapes alone, for their report.
    Survey,
    /// Ready to run.
    Build,
}

/// How networks are built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) depth: Depth,
    /// `None` keeps the dtype of the file.
    pub(crate) kind: Option<Kind>,
    pub(crate) device: Device,
    pub(crate) layout: Layout,
}

/// A network that was built: its name, class, dtype as stored, and the report.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) name: &'static str,
    pub(crate) class: &'static str,
    pub(crate) stored: Option<Kind>,
    /// Bytes of its tensors.
    pub(crate) bytes: u64,
    pub(crate) report: Result<Report, String>,
}

/// Builds networks one after another, and keeps what was said of each.
pub(crate) struct Builder {
    site: Site,
    loras: Rc<Library>,
    merged: Merged,
    pub(crate) built: Vec<Built>,
}

impl Builder {
    pub(crate) fn new(site: Site) -> Self {
        Self { site, loras: Rc::default(), merged: Merged::default(), built: Vec::new() }
    }

    /// With adapters: for jobs that ask for them, and for all.
    pub(crate) fn adapted(self, loras: &Rc<Library>, merged: Merged) -> Self {
        Self { loras: Rc::clone(loras), merged, ..self }
    }

    /// The network; what does not fit is in the list, and nothing of it is read then.
    pub(crate) fn network<C, N>(&mut self, part: Part<C>, kind: Option<Kind>, new: impl Fn(&Weights, &C) -> N) -> N {
        self.merging(part, Vec::new(), kind, new)
    }

    /// The same with adapters in its weights.
    fn merging<C, N>(
        &mut self,
        part: Part<C>,
        merged: Vec<(Rc<Layers>, f64)>,
        kind: Option<Kind>,
        new: impl Fn(&Weights, &C) -> N,
    ) -> N {
        let report = part.survey(&new);
        let Part { name, class, config, checkpoint } = part;
        let stored = checkpoint.stored_kind();
        let bytes = checkpoint.parameters() * stored.map_or(0, |kind| kind.elt_size_in_bytes() as u64);
        let kind = kind.or(self.site.kind).or(stored).unwrap_or(Kind::Float);
        let weights = match (&report, self.site.depth) {
            (Ok(_), Depth::Build) => Weights::merging(checkpoint, merged, kind, self.site.device, self.site.layout),
            _ => Weights::survey(&checkpoint),
        };
        self.built.push(Built { name, class, stored, bytes, report });
        new(&weights, &config)
    }

    fn text(&mut self, part: TextPart, index: usize, adapted: Adapted, inversions: &Rc<Inversions>) -> Encoder {
        let TextPart { tokenizer, network, readout, .. } = part;
        let model = self.merging(network, self.merged.part(adapted), None, ClipTextModel::new);
        let kind = self.site.kind.unwrap_or(Kind::Float);
        let (inversions, loras) = (Rc::clone(inversions), Rc::clone(&self.loras));
        Encoder { tokenizer, model, readout, inversions, kind, index, loras, adapted }
    }

    /// What makes conditioning, with prompts kept and learnt words known.
    pub(crate) fn conditioner(
        &mut self,
        plan: ConditionerPlan,
        cache: usize,
        embeddings: &[PathBuf],
    ) -> Result<Box<dyn Conditioner>, ModelError> {
        let words = inversions(&plan, embeddings)?;
        let cache = NonZeroUsize::new(cache).unwrap_or(NonZeroUsize::MIN);
        let (device, kind) = (self.site.device, self.site.kind.unwrap_or(Kind::Float));
        Ok(match plan {
            ConditionerPlan::None => Box::new(Unconditioned),
            ConditionerPlan::Text(text) => {
                Box::new(Text { encoder: self.text(text, 0, Adapted::Text, &words), cache: Known::new(cache) })
            }
            ConditionerPlan::TextPair { first, second, numbers, zeros_for_empty } => {
                // A refiner's only encoder is the first one of its embeddings.
                let place = usize::from(first.is_some());
                let first = first.map(|first| self.text(first, 0, Adapted::Text, &words));
                let second = self.text(second, place, Adapted::Text2, &words);
                Box::new(TextPair { first, second, numbers, zeros_for_empty, cache: Known::new(cache) })
            }
            ConditionerPlan::Bert { tokenizer, network, .. } => {
                let model = self.network(network, None, LdmBertModel::new);
                Box::new(Bert { tokenizer, model, device, kind, cache: Known::new(cache) })
            }
            ConditionerPlan::Class { network, none } => {
                Box::new(Classes { embedder: self.network(network, None, ClassEmbedder::new), none, device })
            }
            ConditionerPlan::Layout { layout, network } => {
                Box::new(Boxes { layout, model: self.network(network, None, LdmBertModel::new), device, kind })
            }
            ConditionerPlan::Neighbors { width } => Box::new(Neighbors { width, device }),
        })
    }

    /// What lies beside the latent.
    pub(crate) fn concat(&mut self, plan: ConcatPlan) -> Concat {
        match plan {
            ConcatPlan::None => Concat::None,
            ConcatPlan::MaskedMask => Concat::MaskedMask,
            ConcatPlan::MaskMasked => Concat::MaskMasked,
            ConcatPlan::LowResolution => Concat::LowResolution,
            ConcatPlan::NoisedLowResolution(alphas_cumprod) => Concat::NoisedLowResolution(alphas_cumprod),
            ConcatPlan::Depth => Concat::Depth,
            ConcatPlan::Semantic(network) => {
                let classes = network.config.in_channels;
                Concat::Semantic { rescaler: self.network(network, None, SpatialRescaler::new), classes }
            }
        }
    }

    /// The first stage, in float32 where half precision overflows.
    pub(crate) fn stage(&mut self, part: Part<FirstStageConfig>) -> FirstStage {
        let kind = match self.site.kind {
            Some(Kind::Half) if part.config.force_upcast() => Some(Kind::Float),
            kind => kind,
        };
        self.network(part, kind, FirstStage::new)
    }

    /// A small decoder.
    pub(crate) fn preview(&mut self, part: Part<AutoencoderTinyConfig>) -> TinyDecoder {
        self.network(part, None, TinyDecoder::new)
    }

    pub(crate) fn unet(&mut self, part: Part<Architecture>) -> UNet {
        self.merging(part, self.merged.part(Adapted::Unet), None, UNet::build)
    }

    /// Parameters of all networks, or the first that did not fit.
    pub(crate) fn finish(self) -> Result<u64, ModelError> {
        let mut parameters = 0;
        for Built { name, report, .. } in self.built {
            let report = report.map_err(|message| ModelError::Mismatch(format!("{name}: {message}")))?;
            parameters += report.parameters;
        }
        Ok(parameters)
    }
}

/// Learnt words for the text encoders of a plan.
fn inversions(plan: &ConditionerPlan, embeddings: &[PathBuf]) -> Result<Rc<Inversions>, ModelError> {
    let widths: Vec<i64> = match plan {
        ConditionerPlan::Text(text) => vec![text.network.config.hidden_size],
        ConditionerPlan::TextPair { first, second, .. } => {
            first.iter().chain([second]).map(|text| text.network.config.hidden_size).collect()
        }
        _ if embeddings.is_empty() => vec![],
        _ => return Err(ModelError::Mismatch("embeddings are for models with a CLIP text encoder; this one has none".into())),
    };
    let mut words = Vec::new();
    for path in files(embeddings)? {
        words.extend(TextualInversion::read(&path, &widths).map_err(|error| ModelError::Mismatch(error.to_string()))?);
    }
    let words = Inversions::new(words).map_err(|error| ModelError::Mismatch(error.to_string()))?;
    Ok(Rc::new(words))
}

impl Blueprint {
    /// Whether every part's weights fit, before any is read: the first that does not is the error.
    pub(crate) fn survey(&self) -> Result<(), ModelError> {
        match &self.conditioner {
            ConditionerPlan::None | ConditionerPlan::Neighbors { .. } => {}
            ConditionerPlan::Text(text) => text.network.fits(ClipTextModel::new)?,
            ConditionerPlan::TextPair { first, second, .. } => {
                first.iter().chain([second]).try_for_each(|text| text.network.fits(ClipTextModel::new))?;
            }
            ConditionerPlan::Bert { network, .. } | ConditionerPlan::Layout { network, .. } => network.fits(LdmBertModel::new)?,
            ConditionerPlan::Class { network, .. } => network.fits(ClassEmbedder::new)?,
        }
        if let ConcatPlan::Semantic(rescaler) = &self.concat {
            rescaler.fits(SpatialRescaler::new)?;
        }
        self.unet.fits(UNet::build)?;
        self.preview.iter().try_for_each(|preview| preview.fits(TinyDecoder::new))?;
        self.stage.fits(FirstStage::new)
    }

    /// Whether the parts fit each other.
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let wrong = |message: String| Err(ModelError::Mismatch(message));
        let latent = self.stage.config.latent_channels();
        let (inputs, outputs) = (self.unet.config.in_channels, self.unet.config.out_channels);
        let beside = match &self.concat {
            ConcatPlan::None => 0,
            ConcatPlan::MaskedMask | ConcatPlan::MaskMasked => latent + 1,
            ConcatPlan::LowResolution | ConcatPlan::NoisedLowResolution(_) => 3,
            ConcatPlan::Depth => 1,
            ConcatPlan::Semantic(part) => part.config.out_channels.unwrap_or(part.config.in_channels),
        };
        if inputs != latent + beside {
            return wrong(format!(
                "unet: `in_channels` is {inputs}; the autoencoder's `latent_channels` is {latent}, and {beside} more lie beside the latent"
            ));
        }
        if outputs != latent {
            return wrong(format!("unet: `out_channels` is {outputs}, the autoencoder's `latent_channels` is {latent}"));
        }
        let context = self.unet.config.cross_attention_dim;
        let (width, named) = match &self.conditioner {
            ConditionerPlan::None => (0, "there is no conditioner"),
            ConditionerPlan::Text(text) => (text.network.config.hidden_size, "the text encoder's `hidden_size`"),
            ConditionerPlan::TextPair { first, second, .. } => {
                let first = first.as_ref().map_or(0, |first| first.network.config.hidden_size);
                (first + second.network.config.hidden_size, "the text encoders' `hidden_size` together")
            }
            ConditionerPlan::Bert { network, .. } | ConditionerPlan::Layout { network, .. } => {
                (network.config.d_model, "the transformer's `d_model`")
            }
            ConditionerPlan::Class { network, .. } => (network.config.embed_dim, "the class embedder's `embed_dim`"),
            ConditionerPlan::Neighbors { width } => (*width, "the embeddings' width"),
        };
        if width != context {
            return wrong(format!("unet: `cross_attention_dim` is {context}; {named}: {width}"));
        }
        let texts: Vec<&TextPart> = match &self.conditioner {
            ConditionerPlan::Text(text) => vec![text],
            ConditionerPlan::TextPair { first, second, .. } => first.iter().chain([second]).collect(),
            _ => vec![],
        };
        for text in texts {
            let (tokens, rows) = (text.tokenizer.vocabulary() as i64, text.network.config.vocab_size);
            if tokens > rows {
                return wrong(format!("the tokenizer has {tokens} tokens, the text encoder's `vocab_size` is {rows}"));
            }
        }
        Ok(())
    }
}
