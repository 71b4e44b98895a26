//! From what was said to requests, with errors that name OpenAI's fields.

use std::sync::Arc;

use axum::http::StatusCode;
use ldm_core::{Catalogue, Draft, Model, Plane, Request, Task, Violation, Violations};

use super::ask::{Ask, Source};
use crate::codec::{self, Encoding, Format, Picture, Unreadable};
use crate::error::ApiError;

/// Our names of fields, and OpenAI's.
const NAMES: [(&str, &str); 6] = [
    ("images", "n"),
    ("steps", "num_inference_steps"),
    ("guidance", "guidance_scale"),
    ("schedule", "scheduler"),
    ("init_image", "image"),
    ("preview_every", "partial_images"),
];
/// Partial pictures at most.
const MOST_PARTIAL: i64 = 3;
/// Pictures at most, whatever the server allows.
const MOST_PICTURES: i64 = 10;

/// How the pictures are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `b64_json`.
    Base64,
    /// `url`: a `data:` URL, since nothing is kept for later.
    Url,
}

/// What a body asks for, checked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) requests: Vec<Request>,
    pub(super) encoding: Encoding,
    pub(super) reply: Reply,
    /// `None` when nothing is streamed; else how many partial pictures are wanted.
    pub(super) partial: Option<u32>,
    pub(super) catalogue: Arc<Catalogue>,
}

/// Which fields are at fault, by OpenAI's names and with its status.
pub(super) fn refused(violations: Violations) -> ApiError {
    let theirs = |field: String| NAMES.iter().find(|(ours, _)| *ours == field).map_or(field, |(_, theirs)| (*theirs).to_owned());
    let renamed = violations.0.into_iter().map(|violation| {
        let field = theirs(violation.field.clone());
        let message = violation.message.replace(&format!("`{}`", violation.field), &format!("`{field}`"));
        Violation { field, message, ..violation }
    });
    let violations = Violations(renamed.collect());
    if let Some(model) = violations.0.iter().find(|violation| violation.field == "model" && violation.limit.is_some()) {
        return ApiError::new(StatusCode::NOT_FOUND, "model_not_found", model.message.clone());
    }
    ApiError { status: StatusCode::BAD_REQUEST, ..violations.into() }
}

impl Order {
    /// A picture from a prompt.
    pub(super) fn generation(ask: Ask, catalogue: Arc<Catalogue>) -> Result<Self, ApiError> {
        let mut bad = Violations::default();
        let draft = Draft { prompt: prompt(&ask, &mut bad), ..draft(&ask, Task::Txt2Img, &mut bad) };
        Self::checked(ask, draft, catalogue, bad)
    }

    /// A picture painted over: where the mask is transparent, or all of it.
    pub(super) fn edit(mut ask: Ask, catalogue: Arc<Catalogue>, pixels: u64) -> Result<Self, ApiError> {
        let mut bad = Violations::default();
        let files = std::mem::take(&mut ask.files);
        if files.images.len() > 1 {
            let message = format!("`image` must be one picture, not {}", files.images.len());
            bad.push(Violation::new("image", message, "1", files.images.len()));
        }
        let image = files.images.into_iter().next().map(|source| read("image", &source, pixels)).transpose()?;
        let mask = files.mask.map(|source| read("mask", &source, pixels)).transpose()?;
        if mask.as_ref().is_some_and(|mask| mask.alpha.is_none()) {
            let message = "`mask` has no transparency: where it is transparent is what is edited";
            bad.push(Violation::new("mask", message, "a picture with an alpha channel", "none"));
        }
        // Without a mask the picture's own transparency is one.
        let open = |alpha: &Plane| alpha.data().iter().any(|&alpha| alpha < 128);
        let alpha = match mask {
            Some(mask) => mask.alpha,
            None => image.as_ref().and_then(|image| image.alpha.clone()).filter(open),
        };
        let task = if alpha.is_some() { Task::Inpaint } else { Task::Img2Img };
        let model = catalogue.model_for(ask.model.as_deref(), task).or(catalogue.models.first());
        let mut draft = Draft { prompt: prompt(&ask, &mut bad), ..draft(&ask, task, &mut bad) };
        draft.mask = alpha.map(|alpha| opposite(&alpha));
        if let (Some(image), Some(model), None, None) = (&image, model, draft.width, draft.height) {
            let [width, height] = fitted([image.colours.width(), image.colours.height()], model);
            (draft.width, draft.height) = (Some(i64::from(width)), Some(i64::from(height)));
        }
        draft.init_image = image.map(|image| image.colours);
        Self::checked(ask, draft, catalogue, bad)
    }

    fn checked(ask: Ask, mut draft: Draft, catalogue: Arc<Catalogue>, mut bad: Violations) -> Result<Self, ApiError> {
        let encoding = encoding(&ask, &mut bad);
        let reply = reply(&ask, &mut bad);
        let partial = partial(&ask, &mut bad);
        if let Some(n) = ask.n.filter(|n| !(1..=MOST_PICTURES).contains(n)) {
            bad.push(Violation::new("n", format!("`n` must be from 1 to {MOST_PICTURES}, not {n}"), "1..=10", n));
            draft.images = None;
        }
        let model = catalogue.model_for(draft.model.as_deref(), draft.task);
        let steps = draft.steps.or(model.map(|model| i64::from(model.defaults.steps)));
        if let (Some(partial @ 1..), Some(steps @ 1..)) = (partial, steps) {
            draft.preview_every = Some((steps / (i64::from(partial) + 1)).max(1));
        }
        match draft.check(&catalogue) {
            Ok(requests) if bad.is_empty() => Ok(Self { requests, encoding, reply, partial, catalogue }),
            Ok(_) => Err(refused(bad)),
            Err(more) => Err(refused(Violations(bad.0.into_iter().chain(more.0).collect()))),
        }
    }
}

/// OpenAI's clients always send one.
fn prompt(ask: &Ask, bad: &mut Violations) -> Option<String> {
    if ask.prompt.is_none() {
        bad.push(Violation::missing("prompt"));
    }
    ask.prompt.clone()
}

/// What both routes have in common.
fn draft(ask: &Ask, task: Task, bad: &mut Violations) -> Draft {
    let size = size(ask, bad);
    Draft {
        model: ask.model.clone(),
        negative_prompt: ask.negative_prompt.clone(),
        width: ask.width.or(size.map(|size| size[0])),
        height: ask.height.or(size.map(|size| size[1])),
        steps: ask.num_inference_steps,
        sampler: ask.sampler.clone(),
        schedule: ask.scheduler.clone(),
        guidance: ask.guidance_scale,
        seed: ask.seed,
        images: ask.n,
        strength: ask.strength,
        ..Draft::new(task)
    }
}

/// `WxH`; `auto` and nothing leave the choice to the model.
fn size(ask: &Ask, bad: &mut Violations) -> Option<[i64; 2]> {
    let size = ask.size.as_deref().filter(|size| *size != "auto" && !size.is_empty())?;
    let sides = size.split_once(['x', 'X', '×']).and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    if sides.is_none() {
        bad.push(Violation::new("size", format!("`size` must be like 512x512, or auto, not {size:?}"), "WxH or auto", size));
    }
    sides
}

fn encoding(ask: &Ask, bad: &mut Violations) -> Encoding {
    let format = match ask.output_format.as_deref() {
        None => Format::Png,
        Some(name) => Format::named(name).unwrap_or_else(|| {
            let message = format!("`output_format` must be png, jpeg or webp, not {name:?}");
            bad.push(Violation::new("output_format", message, "png, jpeg, webp", name));
            Format::Png
        }),
    };
    if let Some(background) = ask.background.as_deref().filter(|said| !["auto", "opaque"].contains(said)) {
        let message = format!("`background` must be auto or opaque: pictures have no transparency; not {background:?}");
        bad.push(Violation::new("background", message, "auto, opaque", background));
    }
    let known = ["auto", "standard", "hd", "low", "medium", "high"];
    if let Some(quality) = ask.quality.as_deref().filter(|said| !known.contains(said)) {
        let message = format!("`quality` must be one of {}, not {quality:?}", known.join(", "));
        bad.push(Violation::new("quality", message, known.join(", "), quality));
    }
    let compression = ask.output_compression.unwrap_or(100);
    if !(0..=100).contains(&compression) {
        let message = format!("`output_compression` must be from 0 to 100, not {compression}");
        bad.push(Violation::new("output_compression", message, "0..=100", compression));
    }
    Encoding { format, quality: Some(compression.clamp(1, 100) as u8) }
}

fn reply(ask: &Ask, bad: &mut Violations) -> Reply {
    match ask.response_format.as_deref() {
        None | Some("b64_json") => Reply::Base64,
        Some("url") => Reply::Url,
        Some(other) => {
            let message = format!("`response_format` must be b64_json or url, not {other:?}");
            bad.push(Violation::new("response_format", message, "b64_json, url", other));
            Reply::Base64
        }
    }
}

fn partial(ask: &Ask, bad: &mut Violations) -> Option<u32> {
    let count = ask.partial_images.unwrap_or(0);
    if !(0..=MOST_PARTIAL).contains(&count) {
        let message = format!("`partial_images` must be from 0 to {MOST_PARTIAL}, not {count}");
        bad.push(Violation::new("partial_images", message, "0..=3", count));
    }
    ask.stream.unwrap_or(false).then(|| u32::try_from(count).unwrap_or(0))
}

fn read(field: &str, source: &Source, pixels: u64) -> Result<Picture, ApiError> {
    let read = match source {
        Source::File(file) => codec::read_with_alpha(file, pixels),
        Source::Url(url) => codec::decode_with_alpha(url, pixels),
    };
    read.map_err(|unreadable| {
        let limit = match unreadable {
            Unreadable::TooLarge { limit, .. } => format!("at most {limit} pixels"),
            _ => "a PNG, JPEG or WebP picture".to_owned(),
        };
        let too_large = matches!(unreadable, Unreadable::TooLarge { .. });
        let error = refused(Violations(vec![Violation::new(field, format!("`{field}` {unreadable}"), limit, "a picture")]));
        if too_large {
            return ApiError { status: StatusCode::PAYLOAD_TOO_LARGE, code: "picture_too_large", ..error };
        }
        error
    })
}

/// Transparent is what is painted.
fn opposite(alpha: &Plane) -> Plane {
    let data: Vec<u8> = alpha.data().iter().map(|alpha| 255 - alpha).collect();
    // As many values as before.
    Plane::new(alpha.width(), alpha.height(), data).unwrap_or_else(|_| alpha.clone())
}

/// The size nearest to the picture's that the model draws: of the same shape, and of no more pixels than it was trained on.
fn fitted(size: [u32; 2], model: &Model) -> [u32; 2] {
    let (usual, sizes) = (model.sizes.default, model.sizes);
    let area = f64::from(usual.0) * f64::from(usual.1);
    let own = f64::from(size[0].max(1)) * f64::from(size[1].max(1));
    let scale = (area / own).sqrt().min(1.0);
    let multiple = sizes.multiple.max(1);
    size.map(|side| {
        let side = (f64::from(side) * scale / f64::from(multiple)).round() as u32 * multiple;
        let least = sizes.min.next_multiple_of(multiple);
        side.clamp(least, (sizes.max / multiple * multiple).max(least))
    })
}

#[cfg(test)]
mod tests {
    use ldm_engine::fake::FakeExecutor;

    use super::*;

    #[test]
    fn pictures_keep_their_shape_and_fit_the_model() {
        let mut model = FakeExecutor::catalogue_example().models.remove(0);
        model.sizes = ldm_core::Sizes { min: 64, max: 1024, multiple: 8, default: (512, 512) };
        for (size, fits) in [
            ([512, 512], [512, 512]),
            ([3000, 2000], [624, 416]),
            ([100, 60], [104, 64]),
            ([4000, 10], [1024, 64]),
            ([1, 1], [64, 64]),
        ] {
            assert_eq!(fitted(size, &model), fits, "{size:?}");
        }
    }
}
