//! Fields that were said and have no part in the task.

use crate::{Draft, Model, Task, Violation, Violations};

/// Refuses each of them by its name.
pub(crate) fn refuse(draft: &Draft, model: &Model, bad: &mut Violations) {
    let task = draft.task;
    let prompted = task.takes_prompt() && model.conditions.prompt;
    let prompt = |text: &Option<String>| !prompted && text.as_deref().is_some_and(|text| !text.is_empty());
    let pictured = matches!(task, Task::Img2Img | Task::Inpaint | Task::Depth);
    // Whether it was said to another task than the one that takes it.
    let strange = |said: bool, owner: Task| said && task != owner;
    let masking = draft.masking;
    let strangers = [
        ("prompt", prompt(&draft.prompt), "a text", ""),
        ("negative_prompt", prompt(&draft.negative_prompt), "a text", ""),
        ("init_image", draft.init_image.is_some() && !pictured, "a picture", "; use img2img"),
        ("strength", draft.strength.is_some() && !pictured, "a number", "; use img2img"),
        ("mask", strange(draft.mask.is_some(), Task::Inpaint), "a mask", "; use inpaint"),
        ("mask_blur", strange(masking.blur.is_some(), Task::Inpaint), "a number", "; use inpaint"),
        ("invert_mask", strange(masking.invert.is_some(), Task::Inpaint), "true or false", "; use inpaint"),
        ("only_masked", strange(masking.only_masked.is_some(), Task::Inpaint), "true or false", "; use inpaint"),
        ("padding", strange(masking.padding.is_some(), Task::Inpaint), "a number", "; use inpaint"),
        ("fill", strange(masking.fill.is_some(), Task::Inpaint), "a word", "; use inpaint"),
        ("composite", strange(masking.composite.is_some(), Task::Inpaint), "true or false", "; use inpaint"),
        ("lr_image", strange(draft.lr_image.is_some(), Task::SuperResolution), "a picture", "; use super-resolution"),
        ("scale", strange(draft.scale.is_some(), Task::SuperResolution), "a number", "; use super-resolution"),
        ("noise_level", strange(draft.noise_level.is_some(), Task::SuperResolution), "a number", "; use super-resolution"),
        ("depth_map", strange(draft.depth.is_some(), Task::Depth), "a map", "; use depth"),
        ("class", strange(draft.class.is_some(), Task::Class), "a number", "; use class"),
        ("boxes", strange(draft.boxes.is_some(), Task::Layout), "boxes", "; use layout"),
        ("semantic_map", strange(draft.semantic.is_some(), Task::Semantic), "a map", "; use semantic"),
        ("hires", strange(draft.hires.is_some(), Task::Txt2Img), "a second pass", "; use txt2img"),
        ("neighbours", strange(draft.neighbors.is_some(), Task::Rdm), "embeddings", "; use retrieval"),
    ];
    for (field, is_strange, value, hint) in strangers {
        if is_strange {
            bad.push(Violation::new(field, format!("{task} takes no `{field}`{hint}"), "absent", value));
        }
    }
}
