//! The parts of a multipart body as fields and files.

use ldm_core::{Violation, Violations};
use serde_json::{Map, Value};

use super::ask::{Ask, Source};
use super::check::refused;
use crate::error::ApiError;
use crate::multipart::Part;

/// Fields that are numbers or booleans: in a form they come as texts.
const LITERAL: [&str; 12] = [
    "n",
    "output_compression",
    "stream",
    "partial_images",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "width",
    "height",
    "strength",
    "true_cfg_scale",
    "num_frames",
];

/// Files are `image`, `image[]` or `mask`; the rest are fields. An empty text is a field that was not said.
pub(super) fn read(parts: Vec<Part>) -> Result<Ask, ApiError> {
    let (mut fields, mut images, mut mask) = (Map::new(), Vec::new(), None);
    for part in parts {
        match part.name.as_str() {
            "image" | "image[]" => images.push(Source::File(part.bytes)),
            "mask" => mask = Some(Source::File(part.bytes)),
            // OpenAI's JavaScript client writes fields of lists with brackets.
            name if part.is_file() => {
                let message = format!("there is no file `{name}`; files are `image`, `image[]` and `mask`");
                return Err(refused(Violations(vec![Violation::new(name, message, "image, image[], mask", "a file")])));
            }
            name => {
                let text = part.text()?;
                if !text.is_empty() {
                    fields.insert(name.to_owned(), value(name, text)?);
                }
            }
        }
    }
    let mut ask = Ask::of(fields)?;
    ask.files.images = images;
    ask.files.mask = mask;
    Ok(ask)
}

fn value(name: &str, text: &str) -> Result<Value, ApiError> {
    if !LITERAL.contains(&name) {
        return Ok(Value::from(text));
    }
    // Python's `str(True)`.
    let said = match text.trim() {
        "True" => "true",
        "False" => "false",
        other => other,
    };
    match serde_json::from_str(said) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Null)) => Ok(value),
        _ => {
            let message = format!("`{name}` must be a number or a boolean, not {text:?}");
            Err(refused(Violations(vec![Violation::new(name, message, "a number or a boolean", text)])))
        }
    }
}
