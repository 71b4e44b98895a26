//! `extra-single-image` and `extra-batch-images`: a finished picture made larger, by a filter or by a super-resolution model.

use axum::Json;
use axum::extract::State;
use image::RgbImage;
use image::imageops::{self, FilterType};
use ldm_core::{Catalogue, Draft, Raster, Task, Terms, Violation, Violations};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::answer::ENCODING;
use super::canvas::{self, Mode};
use super::check::not_found;
use super::fields::Body;
use crate::App;
use crate::calls::{Call, Guest, Submission};
use crate::codec::{self, base64};
use crate::error::ApiError;

/// How many times wider and higher at most, as the web UI has it.
const MOST_SCALE: f64 = 8.0;
/// Pictures of a batch at most.
const MOST: usize = 16;

/// The fields that mean something here; faces are not restored.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = WebUiExtra)]
#[serde(default)]
pub(super) struct Extra {
    /// The picture, in base64.
    image: String,
    /// Pictures, at most 16.
    #[serde(rename = "imageList")]
    images: Vec<Named>,
    /// 0 by `upscaling_resize`, 1 to `upscaling_resize_w` and `upscaling_resize_h`.
    #[schema(minimum = 0, maximum = 1)]
    resize_mode: i64,
    /// How many times wider and higher.
    #[schema(minimum = 1, maximum = 8)]
    upscaling_resize: f64,
    /// Pixels.
    upscaling_resize_w: i64,
    /// Pixels.
    upscaling_resize_h: i64,
    /// Whether the middle is kept where the shape differs; else it is stretched.
    upscaling_crop: bool,
    /// `None`, `Lanczos`, `Nearest`, or a model for super-resolution.
    upscaler_1: String,
    /// `None`.
    upscaler_2: String,
    /// 0.
    extras_upscaler_2_visibility: f64,
}

/// A picture of a batch.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = WebUiNamedPicture)]
#[serde(default)]
struct Named {
    /// In base64.
    data: String,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            image: String::new(),
            images: Vec::new(),
            resize_mode: 0,
            upscaling_resize: 2.0,
            upscaling_resize_w: 512,
            upscaling_resize_h: 512,
            upscaling_crop: true,
            upscaler_1: "None".to_owned(),
            upscaler_2: "None".to_owned(),
            extras_upscaler_2_visibility: 0.0,
        }
    }
}

pub(super) async fn single(State(app): State<App>, guest: Guest, body: Body) -> Result<Json<Value>, ApiError> {
    let (_, extra): (Map<String, Value>, Extra) = body.read()?;
    let image = enlarged(&app, &guest, &extra, "image", extra.image.clone()).await?;
    Ok(Json(json!({ "html_info": "", "image": image })))
}

pub(super) async fn batch(State(app): State<App>, guest: Guest, body: Body) -> Result<Json<Value>, ApiError> {
    let (_, extra): (Map<String, Value>, Extra) = body.read()?;
    if extra.images.len() > MOST {
        let message = format!("`imageList` must hold at most {MOST} pictures, not {}", extra.images.len());
        return Err(Violations(vec![Violation::new("imageList", message, MOST, extra.images.len())]).into());
    }
    let mut images = Vec::with_capacity(extra.images.len());
    for (index, named) in extra.images.iter().enumerate() {
        images.push(enlarged(&app, &guest, &extra, &format!("imageList[{index}].data"), named.data.clone()).await?);
    }
    Ok(Json(json!({ "html_info": "", "images": images })))
}

/// One picture, enlarged and written, in base64.
async fn enlarged(app: &App, guest: &Guest, extra: &Extra, field: &str, image: String) -> Result<String, ApiError> {
    let (catalogue, pixels, named) = (app.open()?, app.limits.pixels, field.to_owned());
    let wrong = move |message: String| {
        ApiError::from(Violations(vec![Violation::new(&named, message, "PNG, JPEG or WebP in base64", "")]))
    };
    let picture = app.codec.run(move || codec::decode(&image, pixels)).await?;
    let picture = picture.map_err(|unreadable| wrong(format!("`{field}` {unreadable}")))?;
    let [width, height] = size(extra, &picture, app.limits.pixels)?;
    let picture = match extra.upscaler_1.as_str() {
        "None" | "Lanczos" | "Nearest" => picture,
        model => drawn(app, guest, &catalogue, model, picture).await?,
    };
    let nearest = extra.upscaler_1 == "Nearest";
    let mode = if extra.resize_mode == 1 && extra.upscaling_crop { Mode::Crop } else { Mode::Stretch };
    let area = u64::from(width) * u64::from(height);
    let write = move || {
        let picture = if nearest { repeated(&picture, width, height) } else { canvas::fitted(&picture, width, height, mode) };
        codec::encode(&picture, ENCODING, None).map(base64)
    };
    app.codec.write(area, write).await.map(|(image, _)| image)
}

/// The size that comes out.
fn size(extra: &Extra, picture: &Raster, pixels: u64) -> Result<[u32; 2], ApiError> {
    let mut bad = Violations::default();
    if extra.extras_upscaler_2_visibility > 0.0 && extra.upscaler_2 != "None" {
        let message = "a second upscaler is not blended in: leave `upscaler_2` at None";
        bad.push(Violation::new("upscaler_2", message, "None", &extra.upscaler_2));
    }
    let sides = match extra.resize_mode {
        0 => {
            if !(1.0..=MOST_SCALE).contains(&extra.upscaling_resize) {
                let message = format!("`upscaling_resize` must be from 1 to {MOST_SCALE}, not {}", extra.upscaling_resize);
                bad.push(Violation::new("upscaling_resize", message, format!("1..={MOST_SCALE}"), extra.upscaling_resize));
            }
            let scale = extra.upscaling_resize.clamp(1.0, MOST_SCALE);
            [picture.width(), picture.height()].map(|side| (f64::from(side) * scale) as i64)
        }
        1 => [extra.upscaling_resize_w, extra.upscaling_resize_h],
        other => {
            bad.push(Violation::new("resize_mode", format!("`resize_mode` must be 0 or 1, not {other}"), "0, 1", other));
            [1, 1]
        }
    };
    let sides = sides.map(|side| u32::try_from(side).ok().filter(|side| *side > 0));
    let fits = |width: u32, height: u32| u64::from(width) * u64::from(height) <= pixels;
    match sides {
        [Some(width), Some(height)] if fits(width, height) => bad.into_result(|| [width, height]).map_err(ApiError::from),
        _ => {
            let message = format!("the enlarged picture must have from 1 to {pixels} pixels");
            bad.push(Violation::new("upscaling_resize", message, format!("at most {pixels} pixels"), "more"));
            Err(bad.into())
        }
    }
}

/// The picture as a model for super-resolution draws it.
async fn drawn(app: &App, guest: &Guest, catalogue: &Catalogue, model: &str, picture: Raster) -> Result<Raster, ApiError> {
    let found = catalogue.models.iter().find(|known| known.id == model && known.tasks.contains(&Task::SuperResolution));
    let found = found.ok_or_else(|| not_found("Upscaler", model))?;
    let draft = Draft { model: Some(found.id.clone()), lr_image: Some(picture), ..Draft::new(Task::SuperResolution) };
    let submission = Submission::new(draft.check(catalogue)?, Terms::default());
    let call = Call::start(app, &guest.access, &guest.caller, submission).await?;
    let output = call.finished().await?.into_iter().next().ok_or_else(ApiError::internal)?;
    Ok(output.image)
}

/// The reading of a body, for `fuzz/`: all but the drawing.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(body: &Body, pixels: u64) -> Result<(), ApiError> {
    let (_, extra): (Map<String, Value>, Extra) = body.read()?;
    let Ok(picture) = codec::decode(&extra.image, pixels) else { return Ok(()) };
    let [width, height] = size(&extra, &picture, pixels)?;
    assert!(u64::from(width) * u64::from(height) <= pixels, "no more pixels than allowed");
    Ok(())
}

/// Each pixel repeated.
fn repeated(picture: &Raster, width: u32, height: u32) -> Raster {
    let Some(image) = RgbImage::from_raw(picture.width(), picture.height(), picture.data().to_vec()) else {
        return picture.clone();
    };
    let image = imageops::resize(&image, width, height, FilterType::Nearest);
    Raster::new(width, height, image.into_raw()).unwrap_or_else(|_| picture.clone())
}
