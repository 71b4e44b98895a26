//! The dialect's answers and events as JSON.

use ldm_core::Request;
use serde::Serialize;
use utoipa::ToSchema;

use crate::codec::Encoding;

/// The answer of both routes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiImages)]
pub(super) struct Images {
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) data: Vec<Image>,
    #[serde(flatten)]
    pub(super) look: Look,
    pub(super) usage: Usage,
}

/// One picture.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiImage)]
pub(super) struct Image {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) b64_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// With which the same request makes the same picture; not OpenAI's.
    pub(super) seed: u64,
}

/// What all pictures of an answer have in common.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OpenAiLook)]
pub(super) struct Look {
    background: &'static str,
    output_format: &'static str,
    quality: &'static str,
    size: String,
}

impl Look {
    pub(super) fn new(encoding: Encoding, width: u32, height: u32) -> Self {
        Self { background: "opaque", output_format: encoding.format.name(), quality: "auto", size: format!("{width}x{height}") }
    }
}

/// What was read and made, in units of our own: words of prompts, and squares of 16 pixels a side.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiUsage)]
pub(super) struct Usage {
    input_tokens: u64,
    input_tokens_details: Details,
    output_tokens: u64,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiUsageDetails)]
struct Details {
    text_tokens: u64,
    image_tokens: u64,
}

impl Usage {
    /// Of `pictures` that were made as `request` asks, of these sides.
    pub(super) fn of(request: &Request, pictures: usize, width: u32, height: u32) -> Self {
        let squares = |width: u32, height: u32| u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
        let words = |text: &str| text.split_whitespace().count() as u64;
        let text_tokens = words(&request.prompt) + words(&request.negative_prompt);
        let image_tokens = if request.work.strength().is_some() { squares(request.width, request.height) } else { 0 };
        let output_tokens = squares(width, height) * pictures as u64;
        let input_tokens = text_tokens + image_tokens;
        let input_tokens_details = Details { text_tokens, image_tokens };
        Self { input_tokens, input_tokens_details, output_tokens, total_tokens: input_tokens + output_tokens }
    }
}

/// Event `….partial_image`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiPartialImage)]
pub(super) struct Partial {
    pub(super) r#type: String,
    pub(super) b64_json: String,
    pub(super) partial_image_index: u32,
    pub(super) created_at: u64,
    #[serde(flatten)]
    pub(super) look: Look,
    /// Which of several pictures; not OpenAI's.
    pub(super) image_index: usize,
}

/// Event `….completed`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiCompleted)]
pub(super) struct Completed {
    pub(super) r#type: String,
    pub(super) b64_json: String,
    pub(super) created_at: u64,
    #[serde(flatten)]
    pub(super) look: Look,
    pub(super) usage: Usage,
    /// Which of several pictures; not OpenAI's.
    pub(super) image_index: usize,
    pub(super) seed: u64,
}
