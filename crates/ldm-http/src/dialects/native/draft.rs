//! From fields to a draft: what every task takes, and what only one does.

use ldm_core::{Draft, Library, Prompting, Random, Rounding, Task, Tuning, Variation, Violation};

use super::fields::Fields;
use super::readers::Pixels;
use super::routes::OWN;

/// What was said; everything that could not be read is named in the fields.
pub(super) fn read(fields: &mut Fields, task: Task, pixels: &mut Pixels) -> Draft {
    for (field, owners) in OWN {
        if !owners.contains(&task) {
            fields.stranger(field, task, owners[0]);
        }
    }
    let mut draft = Draft {
        task,
        model: fields.text("model"),
        prompt: fields.text("prompt"),
        negative_prompt: fields.text("negative_prompt"),
        prompting: fields.choice("prompting", &Prompting::ALL, Prompting::name),
        width: fields.whole("width"),
        height: fields.whole("height"),
        steps: fields.whole("steps"),
        sampler: fields.text("sampler"),
        schedule: fields.text("schedule"),
        guidance: fields.real("guidance"),
        eta: fields.real("eta"),
        seed: fields.whole("seed"),
        loras: fields.loras(),
        tuning: tuning(fields),
        rounding: fields.choice("rounding", &Rounding::ALL, Rounding::name),
        images: fields.whole("images"),
        preview_every: fields.whole("preview_every"),
        ..Draft::new(task)
    };
    own(fields, &mut draft, pixels);
    draft
}

/// What only the draft's task takes.
fn own(fields: &mut Fields, draft: &mut Draft, pixels: &mut Pixels) {
    match draft.task {
        Task::Txt2Img => draft.hires = fields.hires(),
        Task::Img2Img => {
            draft.init_image = fields.picture("init_image", pixels);
            draft.strength = fields.real("strength");
        }
        Task::Inpaint => {
            let picture = fields.picture_with_alpha("init_image", pixels);
            draft.mask = fields.plane("mask", pixels);
            let is_wrong = fields.bad.0.iter().any(|bad| bad.field == "mask");
            match picture {
                // Without a mask what is transparent is one.
                Some(picture) if draft.mask.is_none() && !is_wrong => {
                    let (colours, mask) = picture.with_mask();
                    (draft.init_image, draft.mask) = (Some(colours), mask);
                }
                picture => draft.init_image = picture.map(crate::codec::Picture::on_white),
            }
            draft.masking = fields.masking();
            draft.strength = fields.real("strength");
        }
        Task::SuperResolution => {
            draft.lr_image = fields.picture("lr_image", pixels);
            draft.scale = fields.whole("scale");
            draft.noise_level = fields.whole("noise_level");
        }
        Task::Depth => {
            draft.init_image = fields.picture("init_image", pixels);
            draft.depth = fields.plane("depth_map", pixels);
            draft.strength = fields.real("strength");
        }
        Task::Unconditional => {}
        Task::Class => draft.class = fields.whole("class"),
        Task::Layout => draft.boxes = fields.boxes(),
        Task::Semantic => draft.semantic = fields.labels("semantic_map", pixels),
        Task::Rdm => draft.neighbors = fields.neighbours(),
    }
}

/// Settings for reproducing other programs' pictures.
fn tuning(fields: &mut Fields) -> Tuning {
    let usual = Tuning::default();
    let (seed, strength) = (fields.natural("subseed"), fields.real("subseed_strength"));
    let mut alone = |field: &str, other: &str| {
        // One that could not be read has been named.
        if !fields.bad.0.iter().any(|bad| bad.field == field || bad.field == other) {
            let message = format!("`{field}` is said together with `{other}`");
            fields.bad.push(Violation { message, ..Violation::missing(field) });
        }
        None
    };
    let variation = match (seed, strength) {
        (Some(seed), Some(strength)) => Some(Variation { seed, strength }),
        (Some(_), None) => alone("subseed_strength", "subseed"),
        (None, Some(_)) => alone("subseed", "subseed_strength"),
        (None, None) => None,
    };
    Tuning {
        guidance_rescale: fields.real("guidance_rescale").unwrap_or(usual.guidance_rescale),
        guidance_interval: fields.interval("guidance_interval"),
        random: fields.choice("random", &Random::ALL, Random::name).unwrap_or_default(),
        library: fields.choice("library", &Library::ALL, Library::name).unwrap_or_default(),
        variation,
        eta_seed_delta: fields.whole("eta_seed_delta").unwrap_or(usual.eta_seed_delta),
        // More than the check allows is still more than it allows.
        clip_skip: fields.natural("clip_skip").map_or(usual.clip_skip, |layers| u32::try_from(layers).unwrap_or(u32::MAX)),
    }
}
