//! From fields to requests.

use axum::http::StatusCode;
use ldm_core::task::{Fill, HiresDraft, Masking, MaskingDraft, Upscaler};
use ldm_core::{Catalogue, Draft, Model, Request, Task, Tuning, Variation, Violation, Violations};

use super::canvas;
use super::fields::Fields;
use super::names;
use crate::codec::{self, Unreadable};
use crate::error::ApiError;

/// Pictures of one request at most, whatever the server allows.
const MOST: i64 = 64;
/// A look at the picture every so many steps, for those who ask for progress; the web UI's default.
const PREVIEW_EVERY: i64 = 10;

/// What a body asks for: one request per picture.
pub(super) fn requests(
    fields: &Fields,
    usual: Option<&str>,
    task: Task,
    catalogue: &Catalogue,
    pixels: u64,
) -> Result<Vec<Request>, ApiError> {
    let model = model(fields, usual, catalogue)?;
    let mut bad = Violations::default();
    let draft = draft(fields, model, catalogue, task, &mut bad)?;
    let drafts = match task {
        Task::Txt2Img => vec![Draft { hires: hires(fields, &mut bad)?, ..draft }],
        _ => inits(fields, &draft, model, pixels, &mut bad)?,
    };
    let mut requests = Vec::new();
    for draft in drafts {
        match draft.check(catalogue) {
            Ok(more) => requests.extend(more),
            Err(more) => {
                let known: Vec<_> = bad.0.iter().map(|bad| bad.field.clone()).collect();
                bad.0.extend(more.0.into_iter().map(theirs).filter(|more| !known.contains(&more.field)));
            }
        }
    }
    bad.into_result(|| requests).map_err(ApiError::from)
}

/// A violation by the names of this dialect.
fn theirs(violation: Violation) -> Violation {
    const NAMES: [(&str, &str); 8] = [
        ("guidance", "cfg_scale"),
        ("strength", "denoising_strength"),
        ("images", "n_iter"),
        ("init_image", "init_images"),
        ("padding", "inpaint_full_res_padding"),
        ("hires.width", "hr_resize_x"),
        ("hires.height", "hr_resize_y"),
        ("hires.steps", "hr_second_pass_steps"),
    ];
    let field = NAMES.iter().find(|(ours, _)| *ours == violation.field).map_or(violation.field.as_str(), |(_, theirs)| theirs);
    let message = violation.message.replace(&format!("`{}`", violation.field), &format!("`{field}`"));
    Violation { field: field.to_owned(), message, ..violation }
}

/// The checkpoint of this request: its own, or the one that was set.
fn model<'a>(fields: &Fields, usual: Option<&str>, catalogue: &'a Catalogue) -> Result<&'a Model, ApiError> {
    let said = fields.setting("sd_model_checkpoint").and_then(|value| value.as_str()).or(usual);
    let found = said.map_or_else(|| catalogue.models.first(), |name| names::model(catalogue, name));
    found.ok_or_else(|| not_found("checkpoint", said.unwrap_or_default()))
}

/// As the web UI says it.
pub(super) fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "HTTPException", format!("{what} not found: {name:?}"))
}

fn draft(fields: &Fields, model: &Model, catalogue: &Catalogue, task: Task, bad: &mut Violations) -> Result<Draft, ApiError> {
    let sampler = fields.sampler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&fields.sampler_index);
    let (_, implied) = catalogue.sampler(sampler).ok_or_else(|| not_found("Sampler", sampler))?;
    let schedule = names::schedule(catalogue, fields.scheduler.as_deref()).map_err(|name| not_found("Scheduler", &name))?;
    // "DPM++ 2M Karras" with another scheduler beside it: the scheduler was chosen, the name is an old one.
    let sampler = match (&schedule, implied) {
        (Some(said), Some(implied)) if said != implied => {
            catalogue.sampler(sampler).map_or_else(|| sampler.to_owned(), |(sampler, _)| sampler.name.clone())
        }
        _ => sampler.to_owned(),
    };
    let count = fields.batch_size.checked_mul(fields.n_iter).filter(|count| (1..=MOST).contains(count));
    if count.is_none() || fields.batch_size < 1 {
        let message = format!("`batch_size` times `n_iter` must be from 1 to {MOST}");
        bad.push(Violation::new("batch_size", message, format!("1..={MOST}"), fields.batch_size));
    }
    let (prompt, loras) = names::loras(&fields.prompt);
    let takes_eta = catalogue.sampler(&sampler).is_some_and(|(sampler, _)| sampler.takes_eta);
    let multiple = i64::from(model.sizes.multiple.max(1));
    Ok(Draft {
        model: Some(model.id.clone()),
        prompt: Some(prompt),
        negative_prompt: Some(names::loras(&fields.negative_prompt).0),
        width: Some(fields.width / multiple * multiple),
        height: Some(fields.height / multiple * multiple),
        steps: Some(fields.steps),
        sampler: Some(sampler),
        schedule,
        guidance: Some(fields.cfg_scale),
        eta: fields.eta.filter(|_| takes_eta),
        seed: Some(fields.seed.max(-1)),
        loras,
        tuning: tuning(fields, bad),
        images: Some(count.unwrap_or(1)),
        preview_every: (fields.steps > PREVIEW_EVERY).then_some(PREVIEW_EVERY),
        ..Draft::new(task)
    })
}

fn tuning(fields: &Fields, bad: &mut Violations) -> Tuning {
    let mut tuning = Tuning::default();
    if fields.subseed_strength > 0.0 {
        let seed = if fields.subseed < 0 { u64::from(random()) } else { fields.subseed.unsigned_abs() };
        tuning.variation = Some(Variation { seed, strength: fields.subseed_strength });
    }
    if let Some(layers) = fields.setting("CLIP_stop_at_last_layers") {
        match layers.as_f64().filter(|layers| (1.0..=12.0).contains(layers)) {
            Some(layers) => tuning.clip_skip = layers as u32 - 1,
            None => {
                let message = format!("`CLIP_stop_at_last_layers` must be from 1 to 12, not {layers}");
                bad.push(Violation::new("CLIP_stop_at_last_layers", message, "1..=12", layers));
            }
        }
    }
    if let Some(source) = fields.setting("randn_source").and_then(|source| source.as_str()) {
        match source {
            "CPU" => tuning.random = ldm_core::Random::Cpu,
            "GPU" | "NV" => tuning.random = ldm_core::Random::Gpu,
            other => bad.push(Violation::new("randn_source", "`randn_source` must be CPU, GPU or NV", "CPU, GPU, NV", other)),
        }
    }
    tuning
}

fn random() -> u32 {
    (uuid::Uuid::new_v4().as_u128() >> 96) as u32
}

/// The second pass.
fn hires(fields: &Fields, bad: &mut Violations) -> Result<Option<HiresDraft>, ApiError> {
    if !fields.enable_hr {
        return Ok(None);
    }
    let said = |side: i64| (side > 0).then_some(side);
    let (width, height) = (said(fields.hr_resize_x), said(fields.hr_resize_y));
    if width.is_some() != height.is_some() {
        let message = "`hr_resize_x` and `hr_resize_y` are said together";
        bad.push(Violation::new("hr_resize_x", message, "both or none", fields.hr_resize_x));
    }
    let scale = (width.is_none() && height.is_none()).then_some(fields.hr_scale);
    let upscaler = upscaler(fields.hr_upscaler.as_deref().unwrap_or("Latent"))?;
    let (steps, strength) = (said(fields.hr_second_pass_steps), Some(fields.denoising_strength));
    Ok(Some(HiresDraft { width, height, scale, steps, strength, upscaler }))
}

fn upscaler(name: &str) -> Result<Upscaler, ApiError> {
    match name {
        "Latent" | "Latent (bicubic)" | "Latent (antialiased)" | "Latent (bicubic antialiased)" => Ok(Upscaler::LatentBilinear),
        "Latent (nearest)" | "Latent (nearest-exact)" => Ok(Upscaler::LatentNearest),
        "None" | "Lanczos" => Ok(Upscaler::PixelLanczos),
        other => Err(not_found("Upscaler", other)),
    }
}

/// The drafts of img2img: as many pictures as were sent, or one of which several are made.
fn inits(fields: &Fields, draft: &Draft, model: &Model, pixels: u64, bad: &mut Violations) -> Result<Vec<Draft>, ApiError> {
    let size = [draft.width, draft.height].map(|side| side.and_then(|side| u32::try_from(side).ok()).unwrap_or(0));
    let [width, height] = size;
    let mode = canvas::Mode::of(fields.resize_mode);
    if mode.is_none() {
        let message = format!("`resize_mode` must be from 0 to 3, not {}", fields.resize_mode);
        bad.push(Violation::new("resize_mode", message, "0..=3", fields.resize_mode));
    }
    let mode = mode.unwrap_or(canvas::Mode::Stretch);
    let sides = u64::from(model.sizes.max);
    let (true, false) = (!fields.init_images.is_empty(), u64::from(width.max(height)) > sides) else {
        if fields.init_images.is_empty() {
            bad.push(Violation::missing("init_images"));
        }
        // Nothing is resized to a size that will be refused.
        return Ok(vec![draft.clone()]);
    };
    let mask = fields.mask.as_deref().filter(|mask| !mask.is_empty());
    let mask = mask.map(|mask| read(mask, "mask", pixels, bad)).unwrap_or_default();
    let masking = if mask.is_some() { masking(fields, bad) } else { MaskingDraft::default() };
    let mut drafts = Vec::new();
    let count = if fields.init_images.len() > 1 { Some(1) } else { draft.images };
    for (index, init) in fields.init_images.iter().enumerate() {
        let Some(picture) = read(init, &format!("init_images[{index}]"), pixels, bad) else { continue };
        let seed = draft.seed.map(|seed| if seed < 0 { seed } else { seed.saturating_add(index as i64) });
        let mut one = Draft { images: count, seed, strength: Some(fields.denoising_strength), ..draft.clone() };
        let picture = picture.on_white();
        match &mask {
            None => one.init_image = Some(canvas::fitted(&picture, width, height, mode)),
            Some(mask) => {
                one.task = Task::Inpaint;
                // White is painted; what is transparent in the mask counts as black, as where it lies on nothing.
                let mask = canvas::like(&canvas::painted(mask), &picture);
                one.masking = masking;
                if masking.only_masked == Some(true) {
                    (one.init_image, one.mask) = (Some(picture), Some(mask));
                } else {
                    // The blur is said in the mask's pixels.
                    let scales = canvas::scales([picture.width(), picture.height()], size, mode);
                    one.masking.blur = masking.blur.map(|blur| [0, 1].map(|i| (blur[i] * scales[i]).min(Masking::MOST_BLUR)));
                    one.init_image = Some(canvas::fitted(&picture, width, height, mode));
                    one.mask = Some(canvas::fitted_mask(&mask, width, height, mode));
                }
            }
        }
        drafts.push(one);
    }
    Ok(drafts)
}

/// How the mask is taken.
fn masking(fields: &Fields, bad: &mut Violations) -> MaskingDraft {
    let blur = fields.mask_blur.map_or([fields.mask_blur_x, fields.mask_blur_y], |blur| [blur; 2]);
    if let Some(wrong) = blur.into_iter().find(|blur| !(0.0..=Masking::MOST_BLUR).contains(blur)) {
        let message = format!("`mask_blur` must be from 0 to {}, not {wrong}", Masking::MOST_BLUR);
        bad.push(Violation::new("mask_blur", message, format!("0..={}", Masking::MOST_BLUR), wrong));
    }
    let fill = match fields.inpainting_fill {
        0 => Some(Fill::Smear),
        1 => Some(Fill::Original),
        2 => Some(Fill::LatentNoise),
        3 => Some(Fill::LatentNothing),
        other => {
            let message = format!("`inpainting_fill` must be from 0 to 3, not {other}");
            bad.push(Violation::new("inpainting_fill", message, "0..=3", other));
            None
        }
    };
    let only_masked = Fields::truth(&fields.inpaint_full_res);
    MaskingDraft {
        blur: Some(blur),
        invert: Some(Fields::truth(&fields.inpainting_mask_invert)),
        only_masked: Some(only_masked),
        padding: only_masked.then_some(fields.inpaint_full_res_padding),
        fill,
        composite: Some(true),
    }
}

/// A picture in base64, with or without `data:`; URLs are not fetched.
fn read(text: &str, field: &str, pixels: u64, bad: &mut Violations) -> Option<codec::Picture> {
    if text.starts_with("http://") || text.starts_with("https://") {
        let message = format!("`{field}` must be a picture in base64: the server fetches nothing for a client");
        bad.push(Violation::new(field, message, "base64", "a URL"));
        return None;
    }
    codec::decode_with_alpha(text, pixels)
        .map_err(|unreadable| {
            let limit = match unreadable {
                Unreadable::TooLarge { limit, .. } => format!("at most {limit} pixels"),
                _ => "PNG, JPEG or WebP in base64".to_owned(),
            };
            bad.push(Violation::new(field, format!("`{field}` {unreadable}"), limit, "a picture"));
        })
        .ok()
}
