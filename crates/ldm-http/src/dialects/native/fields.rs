//! The fields of a body, taken one by one, so that one answer can list everything that is wrong with them.

use std::collections::BTreeMap;

use axum::body::Bytes;
use ldm_core::{Lora, Task, Violation, Violations};
use serde_json::{Map, Value};

use super::body::Body;
use super::{members, routes};
use crate::codec::{self, Format, Unreadable};
use crate::error::ApiError;
use crate::multipart::Part;

/// Names that other services have for our fields.
const ELSEWHERE: [(&str, &str); 27] = [
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
    ("image", "lr_image"),
    ("mask_image", "mask"),
    ("inpainting_fill", "fill"),
    ("inpainting_mask_invert", "invert_mask"),
    ("inpaint_full_res", "only_masked"),
    ("inpaint_full_res_padding", "padding"),
    ("upscale", "scale"),
    ("class_label", "class"),
    ("class_labels", "class"),
    ("depth", "depth_map"),
    ("semantic", "semantic_map"),
    ("neighbors", "neighbours"),
    ("bbox", "boxes"),
];

/// A picture's file as it came.
pub(super) enum Source {
    /// As a part of a form.
    File(Bytes),
    /// In base64.
    Text(String),
}

/// The fields of a body that nobody has taken yet, and what was wrong with those that were taken.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// Those that came as files.
    files: BTreeMap<String, Bytes>,
    /// Whether all that is left is text, as forms have it.
    is_form: bool,
    known: Vec<&'static str>,
    pub(super) bad: Violations,
}

impl Fields {
    pub(super) fn of(body: Body) -> Result<Self, ApiError> {
        match body {
            Body::Json(bytes) => Self::json(&bytes),
            Body::Form(parts) => Self::form(parts),
        }
    }

    fn json(body: &[u8]) -> Result<Self, ApiError> {
        let (left, bad) = members::read(body)?;
        Ok(Self { bad, ..Self::new(left, false) })
    }

    fn form(parts: Vec<Part>) -> Result<Self, ApiError> {
        let mut fields = Self::new(Map::new(), true);
        for part in parts {
            if fields.left.contains_key(&part.name) || fields.files.contains_key(&part.name) {
                let message = format!("`{}` is said more than once", part.name);
                fields.bad.push(Violation::new(&part.name, message, "one part", "several"));
            } else if part.is_file() {
                fields.files.insert(part.name, part.bytes);
            } else {
                let text = part.text()?.to_owned();
                fields.left.insert(part.name, Value::String(text));
            }
        }
        Ok(fields)
    }

    pub(super) fn new(left: Map<String, Value>, is_form: bool) -> Self {
        Self { left, files: BTreeMap::new(), is_form, known: Vec::new(), bad: Violations::default() }
    }

    /// The field as it came, unless it is absent or null; in a form, empty is the same.
    fn take_raw(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        let value = match self.files.remove(field) {
            None => self.left.remove(field)?,
            Some(file) => match String::from_utf8(file.into()) {
                Ok(text) => Value::String(text),
                Err(_) => {
                    let message = format!("`{field}` must be a text, not a file of other bytes");
                    self.bad.push(Violation::new(field, message, "text in UTF-8", "a file"));
                    return None;
                }
            },
        };
        let is_empty = value.is_null() || (self.is_form && value == "");
        (!is_empty).then_some(value)
    }

    /// The field's value, unless it is absent or null. What a form says is read as JSON.
    pub(super) fn take(&mut self, field: &'static str) -> Option<Value> {
        match self.take_raw(field)? {
            Value::String(text) if self.is_form => {
                let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                (!value.is_null()).then_some(value)
            }
            value => Some(value),
        }
    }

    pub(super) fn text(&mut self, field: &'static str) -> Option<String> {
        match self.take_raw(field)? {
            Value::String(text) => Some(text),
            other => self.wrong(field, "a string", &other),
        }
    }

    /// A file that must be there, sent as such or as text in base64.
    pub(super) fn file(&mut self, field: &'static str) -> Option<Bytes> {
        if let Some(file) = self.files.remove(field) {
            self.known.push(field);
            return Some(file);
        }
        let Some(text) = self.text(field) else {
            if !self.bad.0.iter().any(|bad| bad.field == field) {
                self.bad.push(Violation::missing(field));
            }
            return None;
        };
        let refused = |error: Unreadable| self.bad.push(Violation::new(field, format!("`{field}` {error}"), "base64", &text));
        codec::unwrapped(&text).map(Bytes::from).map_err(refused).ok()
    }

    /// A whole number; `20.0` is one too.
    pub(super) fn whole(&mut self, field: &'static str) -> Option<i64> {
        let value = self.take(field)?;
        let exact = |number: f64| number.fract() == 0.0 && number.abs() <= ldm_core::MAX_SEED as f64;
        match value.as_i64().or_else(|| value.as_f64().filter(|&number| exact(number)).map(|number| number as i64)) {
            Some(number) => Some(number),
            None => self.wrong(field, "a whole number", &value),
        }
    }

    pub(super) fn real(&mut self, field: &'static str) -> Option<f64> {
        let value = self.take(field)?;
        match value.as_f64() {
            Some(number) => Some(number),
            None => self.wrong(field, "a number", &value),
        }
    }

    /// `[{"name": …, "strength": …}]`; of what is wrong the rest of the entry is still read.
    pub(super) fn loras(&mut self) -> Vec<Lora> {
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

    pub(super) fn quality(&mut self) -> Option<u8> {
        let quality = self.whole("quality")?;
        if (1..=100).contains(&quality) {
            return u8::try_from(quality).ok();
        }
        let message = format!("`quality` must be from 1 to 100, not {quality}");
        self.bad.push(Violation::new("quality", message, "1..=100", quality));
        None
    }

    pub(super) fn format(&mut self) -> Option<Format> {
        let name = self.text("format")?;
        let format = Format::named(&name);
        if format.is_none() {
            let known = Format::ALL.map(Format::name).join(", ");
            self.bad.push(Violation::new("format", format!("`format` names none that is written: {name:?}"), known, name));
        }
        format
    }

    /// A picture's file, sent as such or as text in base64; what is no base64 is named.
    pub(super) fn source(&mut self, field: &'static str) -> Option<Source> {
        match self.files.remove(field) {
            Some(file) => {
                self.known.push(field);
                Some(Source::File(file))
            }
            None => self.text(field).map(Source::Text),
        }
    }

    /// A task that a route takes.
    pub(super) fn task(&mut self, served: &[Task]) -> Option<Task> {
        let known = || served.iter().map(|&task| routes::word(task)).collect::<Vec<_>>().join(", ");
        let Some(name) = self.text("task") else {
            if !self.bad.0.iter().any(|bad| bad.field == "task") {
                self.bad.push(Violation { limit: Some(known()), ..Violation::missing("task") });
            }
            return None;
        };
        let task = served.iter().copied().find(|&task| task.name() == name || routes::word(task) == name);
        if task.is_none() {
            self.bad.push(Violation::new("task", format!("`task` must be one of {}, not {name:?}", known()), known(), name));
        }
        task
    }

    /// A field of another task; a picture in it is not unpacked only to be refused.
    pub(super) fn stranger(&mut self, field: &'static str, task: Task, owner: Task) {
        let file = self.files.remove(field).is_some();
        let value = self.left.remove(field).filter(|value| !value.is_null());
        let said = value.is_some_and(|value| !self.is_form || value != "");
        if said || file {
            let (task, route) = (routes::word(task), routes::word(owner));
            let message = format!("{task} takes no `{field}`; post to /v1/{route}");
            self.bad.push(Violation::new(field, message, "absent", "something"));
        }
    }

    /// A value of the wrong kind.
    pub(super) fn wrong<T>(&mut self, field: &str, wanted: &str, value: &Value) -> Option<T> {
        let message = format!("`{field}` must be {wanted}, not {}", kind(value));
        self.bad.push(Violation::new(field, message, wanted, value));
        None
    }

    /// Everything that was wrong; what nobody took is unknown.
    pub(super) fn finish(mut self) -> Violations {
        let files = self.files.keys().map(|field| (field, "a file".to_owned()));
        for (field, value) in self.left.iter().map(|(field, value)| (field, value.to_string())).chain(files) {
            // One that could not be read has been named.
            if self.bad.0.iter().any(|bad| bad.field == *field) {
                continue;
            }
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
        Value::Number(number) if number.is_i64() => "a number",
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
