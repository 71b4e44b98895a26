//! `POST /sdapi/v1/png-info`: what a picture's file says of how it was made.

use axum::Json;
use axum::extract::State;
use ldm_core::{Violation, Violations};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::fields::Body;
use crate::App;
use crate::codec::{self, Unreadable};
use crate::error::ApiError;
use crate::metadata::{self, Found, Infotext};

/// The body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WebUiPngInfo)]
#[serde(default)]
pub(super) struct Asked {
    /// In base64.
    image: String,
}

pub(super) async fn png_info(State(app): State<App>, body: Body) -> Result<Json<Value>, ApiError> {
    let (_, asked): (Map<String, Value>, Asked) = body.read()?;
    let found = app.codec.run(move || codec::unwrapped(&asked.image).and_then(|file| metadata::read(&file))).await?;
    let refused = |unreadable: Unreadable| {
        let message = format!("`image` {unreadable}");
        ApiError::from(Violations(vec![Violation::new("image", message, "PNG, JPEG or WebP in base64", "a picture")]))
    };
    found.map(|found| Json(told(found))).map_err(refused)
}

/// As the web UI tells it: the infotext, every text of the file, and the infotext taken apart.
fn told(found: Found) -> Value {
    let info = found.parameters.unwrap_or_default();
    let Infotext { prompt, negative_prompt, settings } = Infotext::parse(&info);
    let prompts = [("Prompt".to_owned(), prompt), ("Negative prompt".to_owned(), negative_prompt)];
    let parameters: Map<String, Value> = prompts.into_iter().chain(settings).map(|(name, value)| (name, value.into())).collect();
    json!({ "info": info, "items": found.items, "parameters": parameters })
}
