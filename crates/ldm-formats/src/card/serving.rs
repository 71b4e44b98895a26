//! How a model is served when a request does not say.

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use super::{CardError, ConditionerKind, ConditioningKey, Diffusion, Model};

/// What can be asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A picture of nothing in particular.
    Unconditional,
    /// A picture of a class.
    Class,
    /// A picture of a text.
    Txt2img,
    /// A picture of a text that starts from another.
    Img2img,
    /// A hole in a picture filled.
    Inpaint,
    /// A picture enlarged.
    Superres,
    /// A picture of boxes with objects.
    Layout,
    /// A picture of a map of labels.
    Semantic,
    /// A picture of a text and of neighbours found for it.
    Retrieval,
    /// A picture of a text with the depth of another.
    Depth2img,
    /// Variations of a picture.
    Variations,
    /// To a latent and back.
    Autoencode,
}

/// How numbers become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Cut, as CompVis' and Stability's scripts do.
    Truncate,
    /// To the nearest, as diffusers does.
    Round,
}

/// What a request gets that does not say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defaults {
    /// The sampler, by its name in `ldm-sampler`.
    pub sampler: String,
    /// Steps.
    pub steps: u32,
    /// Guidance; 1 is none.
    pub guidance: f64,
    /// Eta of DDIM.
    pub eta: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// How a model is served.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Serving {
    /// What can be asked of it.
    pub tasks: Vec<Task>,
    /// What a request gets that does not say; none for a first stage alone.
    pub defaults: Option<Defaults>,
    /// Width and height are multiples of this.
    pub size_multiple: u32,
    /// How numbers become bytes.
    pub rounding: Rounding,
    /// The class that stands for none in guidance.
    pub unconditional_class: Option<u32>,
}

impl Serving {
    pub(super) fn from_card(card: &mut Fields, model: &Model) -> Result<Self, CardError> {
        let defaults = match card.table("defaults")? {
            None => None,
            Some(mut fields) => {
                let defaults = Defaults {
                    sampler: fields.required("sampler")?,
                    steps: fields.required("steps")?,
                    guidance: fields.required("guidance")?,
                    eta: fields.required("eta")?,
                    width: fields.required("width")?,
                    height: fields.required("height")?,
                };
                fields.finish()?;
                Some(defaults)
            }
        };
        let serving = Self {
            tasks: card.required("tasks")?,
            defaults,
            size_multiple: card.required("size_multiple")?,
            rounding: card.required("rounding")?,
            unconditional_class: card.optional("unconditional_class")?,
        };
        let needed = model.diffusion().map_or(model.first_stage().downscale(), Diffusion::size_multiple);
        if serving.size_multiple == 0 || !serving.size_multiple.is_multiple_of(needed) {
            let found = serving.size_multiple;
            return Err(
                card.wrong("size_multiple", format!("{found} is no multiple of {needed}, which the levels of the networks need"))
            );
        }
        if serving.defaults.is_some() != model.diffusion().is_some() {
            return Err(card.wrong("defaults", "a diffusion model has them, a first stage alone has not"));
        }
        if let Some(Defaults { width, height, steps, .. }) = serving.defaults
            && (steps == 0
                || width == 0
                || height == 0
                || width % serving.size_multiple != 0
                || height % serving.size_multiple != 0)
        {
            let what =
                format!("{width}×{height} in {steps} steps: sizes are multiples of {}, steps at least 1", serving.size_multiple);
            return Err(card.wrong("defaults", what));
        }
        if let Some(class) = serving.unconditional_class {
            let conditioners = model.diffusion().map_or(&[][..], |diffusion| &diffusion.conditioners);
            let there = conditioners.iter().any(|conditioner| match conditioner.kind {
                ConditionerKind::Class { n_classes, .. } => class < n_classes,
                _ => false,
            });
            if !there {
                return Err(card.wrong("unconditional_class", format!("{class} is no class of the conditioner")));
            }
        }
        Ok(serving)
    }

    /// What follows from a model of which only a sidecar is there: tasks by its conditioning, DDIM in 50 steps without guidance at
    /// the size of training, truncation.
    pub fn of(model: &Model) -> Self {
        let plain = |tasks, defaults, size_multiple| Self {
            tasks,
            defaults,
            size_multiple,
            rounding: Rounding::Truncate,
            unconditional_class: None,
        };
        let Model::Diffusion(diffusion) = model else {
            return plain(vec![Task::Autoencode], None, model.first_stage().downscale());
        };
        let multiple = diffusion.size_multiple();
        let side = diffusion.image_size.map_or(512, |size| size * diffusion.first_stage.downscale());
        let side = side.max(multiple) / multiple * multiple;
        let defaults = Defaults { sampler: "ddim".to_owned(), steps: 50, guidance: 1.0, eta: 0.0, width: side, height: side };
        plain(tasks(diffusion), Some(defaults), multiple)
    }
}

fn tasks(diffusion: &Diffusion) -> Vec<Task> {
    let has = |wanted: fn(&ConditionerKind) -> bool| diffusion.conditioners.iter().any(|conditioner| wanted(&conditioner.kind));
    let text = has(|kind| matches!(kind, ConditionerKind::Clip { .. } | ConditionerKind::OpenClip { .. }));
    if diffusion.conditioning_key == ConditioningKey::None {
        vec![Task::Unconditional]
    } else if has(|kind| matches!(kind, ConditionerKind::Class { .. })) {
        vec![Task::Class]
    } else if has(|kind| matches!(kind, ConditionerKind::SpatialRescaler { .. })) {
        vec![Task::Semantic]
    } else if has(|kind| matches!(kind, ConditionerKind::Midas { .. })) {
        vec![Task::Depth2img]
    } else if has(|kind| matches!(kind, ConditionerKind::LowScale { .. })) {
        vec![Task::Superres]
    } else if has(|kind| matches!(kind, ConditionerKind::ClipImage { .. })) {
        vec![Task::Variations]
    } else if diffusion.concat.iter().any(|input| input == "mask") {
        vec![Task::Inpaint]
    } else if has(|kind| matches!(kind, ConditionerKind::Bert { use_tokenizer: false, .. })) {
        vec![Task::Layout]
    } else if text || has(|kind| matches!(kind, ConditionerKind::Bert { .. })) {
        vec![Task::Txt2img, Task::Img2img]
    } else if diffusion.conditioning_key == ConditioningKey::Concat {
        vec![Task::Superres]
    } else {
        vec![Task::Retrieval]
    }
}
