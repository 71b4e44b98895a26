//! From a body to an order: what was said, field by field, until nothing is wrong or everything that is wrong is known.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request as HttpRequest};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use ldm_core::{Catalogue, Draft, Lora, Raster, Request, Task, Violation, Violations};
use serde_json::{Map, Value};

use crate::App;
use crate::codec::{self, Encoding, Format, Unreadable};
use crate::error::ApiError;
use crate::negotiate::Form;

/// Bodies beyond this are parsed off the runtime's threads.
const SMALL: usize = 64 << 10;
/// JPEG quality when the request does not say.
const QUALITY: u8 = 90;
/// Names that other services have for our fields.
const ELSEWHERE: [(&str, &str); 14] = [
    ("cfg_scale", "guidance"),
    ("guidance_scale", "guidance"),
    ("num_inference_steps", "steps"),
    ("n", "images"),
    ("batch_size", "images"),
    ("num_images", "images"),
    ("num_images_per_prompt", "images"),
    ("sampler_name", "sampler"),
    ("scheduler", "schedule"),
    ("denoising_strength", "strength"),
    ("image", "init_image"),
    ("init_images", "init_image"),
    ("output_format", "format"),
    ("output_compression", "quality"),
];

/// A body that says it is JSON.
pub(super) struct Body(Bytes);

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: HttpRequest, app: &App) -> Result<Self, ApiError> {
        let read = async {
            if !is_json(request.headers()) {
                let message = "send the header `content-type: application/json`";
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
            }
            Bytes::from_request(request, app).await.map(Body).map_err(|rejection| match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    let message = format!("the body is larger than {} bytes", app.limits.body_bytes);
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
                }
                _ => ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body could not be read to its end"),
            })
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = said.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// What a body asks for, checked.
#[derive(Debug)]
pub(super) struct Order {
    /// One per picture.
    pub(super) requests: Vec<Request>,
    /// How the pictures are to be written.
    pub(super) encoding: Encoding,
    /// What it was checked against.
    pub(super) catalogue: Arc<Catalogue>,
}

impl Order {
    /// Reads a body, if jobs are taken now.
    pub(super) async fn read(app: &App, task: Task, form: Form, Body(body): Body) -> Result<Self, ApiError> {
        let read = async {
            let catalogue = app.open()?;
            let pixels = app.limits.pixels;
            let small = task == Task::Txt2Img && body.len() <= SMALL;
            if small {
                return Self::parse(task, &body, form, catalogue, pixels);
            }
            // Unpacking a picture for a queue that is full would be work for nothing.
            let load = app.service.load();
            if load.queued + load.running >= load.limit {
                return Err(ApiError::full(load.limit, Duration::from_secs(1)));
            }
            app.codec.run(move || Self::parse(task, &body, form, catalogue, pixels)).await?
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }

    /// All of the reading that needs no runtime.
    fn parse(task: Task, body: &[u8], form: Form, catalogue: Arc<Catalogue>, pixels: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::of(body)?;
        let encoding = encoding(&mut fields, form);
        let (draft, too_large) = draft(&mut fields, task, pixels);
        let mut bad = fields.finish();
        let images = draft.images.unwrap_or(1);
        if matches!(form, Form::Picture(_)) && images > 1 {
            let message = "a raw picture is one picture; accept application/json for several";
            bad.push(Violation::new("images", message, "1 when a picture is accepted", images));
        }
        let checked = draft.check(&catalogue);
        if let Err(more) = &checked {
            // Where reading failed already, the check can only say that nothing was said.
            let news = more.0.iter().filter(|more| !bad.0.iter().any(|bad| bad.field == more.field));
            let news: Vec<_> = news.cloned().collect();
            bad.0.extend(news);
        }
        match checked {
            Ok(requests) if bad.is_empty() => Ok(Self { requests, encoding, catalogue }),
            _ if too_large => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(ApiError { status, code: "picture_too_large", ..bad.into() })
            }
            _ => Err(bad.into()),
        }
    }
}

/// How pictures are to be written: as the body says, unless what is accepted says so.
fn encoding(fields: &mut Fields, form: Form) -> Encoding {
    let quality = fields.quality().unwrap_or(QUALITY);
    let said = fields.format();
    let format = match (form, said) {
        (Form::Picture(Some(accepted)), Some(said)) if said != accepted => {
            let message = format!("`format` says {}, the header `accept` says {}", said.name(), accepted.name());
            fields.bad.push(Violation::new("format", message, accepted.name(), said.name()));
            accepted
        }
        (Form::Picture(Some(accepted)), _) => accepted,
        (_, said) => said.unwrap_or(Format::Png),
    };
    Encoding { format, quality }
}

/// What was said, and whether a picture in it was too large.
fn draft(fields: &mut Fields, task: Task, pixels: u64) -> (Draft, bool) {
    let mut too_large = false;
    let init_image = match task {
        Task::Img2Img => fields.picture("init_image", pixels, &mut too_large),
        _ => fields.no_picture("init_image"),
    };
    let draft = Draft {
        task,
        model: fields.text("model"),
        prompt: fields.text("prompt"),
        negative_prompt: fields.text("negative_prompt"),
        width: fields.whole("width"),
        height: fields.whole("height"),
        steps: fields.whole("steps"),
        sampler: fields.text("sampler"),
        schedule: fields.text("schedule"),
        guidance: fields.real("guidance"),
        eta: fields.real("eta"),
        seed: fields.whole("seed"),
        loras: fields.loras(),
        images: fields.whole("images"),
        preview_every: fields.whole("preview_every"),
        init_image,
        strength: fields.real("strength"),
        ..Draft::new(task)
    };
    (draft, too_large)
}

/// The fields of a body that nobody has taken yet, and what was wrong with those that were taken.
struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    bad: Violations,
}

impl Fields {
    fn of(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {error}")))?;
        match value {
            Value::Object(left) => Ok(Self { left, known: Vec::new(), bad: Violations::default() }),
            other => {
                let message = format!("the body must be a JSON object, not {}", kind(&other));
                Err(Violations(vec![Violation::new("body", message, "an object", kind(&other))]).into())
            }
        }
    }

    /// The field's value, unless it is absent or null.
    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &'static str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            other => self.wrong(field, "a string", &other),
        }
    }

    /// A whole number; `20.0` is one too.
    fn whole(&mut self, field: &'static str) -> Option<i64> {
        let value = self.take(field)?;
        let exact = |number: f64| number.fract() == 0.0 && number.abs() <= ldm_core::MAX_SEED as f64;
        match value.as_i64().or_else(|| value.as_f64().filter(|&number| exact(number)).map(|number| number as i64)) {
            Some(number) => Some(number),
            None => self.wrong(field, "a whole number", &value),
        }
    }

    fn real(&mut self, field: &'static str) -> Option<f64> {
        let value = self.take(field)?;
        match value.as_f64() {
            Some(number) => Some(number),
            None => self.wrong(field, "a number", &value),
        }
    }

    /// `[{"name": …, "strength": …}]`; of what is wrong the rest of the entry is still read.
    fn loras(&mut self) -> Vec<Lora> {
        let entries = match self.take("loras") {
            None => return Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(other) => {
                return self.wrong("loras", "an array of objects with `name` and `strength`", &other).unwrap_or_default();
            }
        };
        let (count, most) = (entries.len(), Lora::MOST);
        if count > most {
            let message = format!("`loras` must hold at most {most}, not {count}");
            self.bad.push(Violation::new("loras", message, format!("at most {most}"), count));
        }
        entries.into_iter().take(most).enumerate().map(|(index, entry)| self.lora(index, entry)).collect()
    }

    fn lora(&mut self, index: usize, entry: Value) -> Lora {
        let place = format!("loras[{index}]");
        let mut left = match entry {
            Value::Object(left) => left,
            other => {
                let name: Option<String> =
                    self.wrong(&format!("{place}.name"), "in an object with `name` and `strength`", &other);
                return Lora::new(name.unwrap_or_default());
            }
        };
        let mut take = |field: &str| left.remove(field).filter(|value| !value.is_null());
        let (name, strength) = (take("name"), take("strength"));
        let name = match name {
            Some(Value::String(name)) => Some(name),
            Some(other) => self.wrong(&format!("{place}.name"), "a string", &other),
            None => {
                self.bad.push(Violation::missing(&format!("{place}.name")));
                None
            }
        };
        let strength = match strength.as_ref().map(|value| (value.as_f64(), value)) {
            None => None,
            Some((Some(number), _)) => Some(number),
            Some((None, other)) => self.wrong(&format!("{place}.strength"), "a number", other),
        };
        for (field, value) in &left {
            let hint = nearest(field, &["name", "strength"]).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let full = format!("{place}.{field}");
            let message = format!("there is no field `{full}`{hint}");
            self.bad.push(Violation::new(&full, message, "name, strength", value));
        }
        let lora = Lora::new(name.unwrap_or_default());
        Lora { strength: strength.unwrap_or(lora.strength), ..lora }
    }

    fn quality(&mut self) -> Option<u8> {
        let quality = self.whole("quality")?;
        if (1..=100).contains(&quality) {
            return u8::try_from(quality).ok();
        }
        let message = format!("`quality` must be from 1 to 100, not {quality}");
        self.bad.push(Violation::new("quality", message, "1..=100", quality));
        None
    }

    fn format(&mut self) -> Option<Format> {
        let name = self.text("format")?;
        let format = Format::named(&name);
        if format.is_none() {
            let known = Format::ALL.map(Format::name).join(", ");
            self.bad.push(Violation::new("format", format!("`format` names none that is written: {name:?}"), known, name));
        }
        format
    }

    fn picture(&mut self, field: &'static str, pixels: u64, too_large: &mut bool) -> Option<Raster> {
        let text = self.text(field)?;
        match codec::decode(&text, pixels) {
            Ok(picture) => Some(picture),
            Err(unreadable) => {
                let limit = match unreadable {
                    Unreadable::TooLarge { limit, .. } => format!("at most {limit} pixels"),
                    _ => "PNG, JPEG or WebP in base64".to_owned(),
                };
                *too_large |= matches!(unreadable, Unreadable::TooLarge { .. });
                self.bad.push(Violation::new(field, format!("`{field}` {unreadable}"), limit, text));
                None
            }
        }
    }

    /// This task takes no picture; it is not unpacked only to be refused.
    fn no_picture(&mut self, field: &'static str) -> Option<Raster> {
        if self.take(field).is_some() {
            let message = format!("txt2img takes no `{field}`; post to /v1/img2img");
            self.bad.push(Violation::new(field, message, "absent", "a picture"));
        }
        None
    }

    fn wrong<T>(&mut self, field: &str, wanted: &str, value: &Value) -> Option<T> {
        let message = format!("`{field}` must be {wanted}, not {}", kind(value));
        self.bad.push(Violation::new(field, message, wanted, value));
        None
    }

    /// Everything that was wrong; what nobody took is unknown.
    fn finish(mut self) -> Violations {
        for (field, value) in &self.left {
            let nearest = nearest(field, &self.known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let message = format!("there is no field {field:?}{nearest}");
            self.bad.push(Violation::new(field, message, self.known.join(", "), value));
        }
        self.bad
    }
}

/// What a JSON value is, in a sentence.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction or beyond bounds",
        Value::Number(_) => "a number beyond bounds",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The field that was probably meant.
fn nearest(field: &str, known: &[&'static str]) -> Option<&'static str> {
    let folded = field.to_lowercase().replace('-', "_");
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, ours)| *theirs == folded && known.contains(ours)) {
        return Some(ours);
    }
    let distance = |name: &&'static str| strsim::damerau_levenshtein(&folded, name);
    let (edits, name) = known.iter().map(|name| (distance(name), *name)).min()?;
    (edits <= 1 + name.len() / 4).then_some(name)
}
