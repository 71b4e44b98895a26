//! What a model's tasks are bounded by, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

/// What tasks of the model are bounded by; absent where it has no such task.
#[derive(Serialize, ToSchema)]
pub(super) struct Conditions {
    prompt: bool,
    guidance: bool,
    /// Classes of `class`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<u32>,
    /// Labels of boxes, from 0, and boxes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boxes: Option<u32>,
    /// Classes of `semantic_map`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_classes: Option<u32>,
    /// The factor that super-resolution draws by.
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<u32>,
    /// Levels of `noise_level`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_levels: Option<u32>,
    /// Neighbours at most, and numbers of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbours: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbour_width: Option<u32>,
}

impl From<&ldm_core::Conditions> for Conditions {
    fn from(conditions: &ldm_core::Conditions) -> Self {
        let ldm_core::Conditions { prompt, guidance, classes, boxes, semantic_classes, upscale, noise_levels, neighbors } =
            *conditions;
        Self {
            prompt,
            guidance,
            classes,
            labels: boxes.map(|bounds| bounds.labels),
            boxes: boxes.map(|bounds| bounds.count),
            semantic_classes,
            scale: upscale,
            noise_levels,
            neighbours: neighbors.map(|bounds| bounds.count),
            neighbour_width: neighbors.map(|bounds| bounds.width),
        }
    }
}
