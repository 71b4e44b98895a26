//! Fields of other kinds than texts and numbers: pictures, maps, words, lists, objects within objects.

use base64::Engine;
use ldm_core::task::{Bbox, HiresDraft, MaskingDraft, Upscaler};
use ldm_core::{Plane, Raster, Violation};
use serde_json::Value;

use super::fields::{Fields, Source};
use crate::codec::{self, BASE64, Picture, Unreadable};

/// Boxes and embeddings that are read; how many a model takes is for the check to say.
const MOST: usize = 4096;

/// Bounds on pictures, and whether one was over them.
pub(super) struct Pixels {
    /// Pixels of a picture at most.
    pub(super) limit: u64,
    /// One had more.
    pub(super) exceeded: bool,
}

impl Fields {
    pub(super) fn picture(&mut self, field: &'static str, pixels: &mut Pixels) -> Option<Raster> {
        self.unpacked(field, pixels, codec::read_picture)
    }

    /// The picture with what it says of transparency.
    pub(super) fn picture_with_alpha(&mut self, field: &'static str, pixels: &mut Pixels) -> Option<Picture> {
        self.unpacked(field, pixels, codec::read_with_alpha)
    }

    /// One channel: grey levels, or colours by their brightness.
    pub(super) fn plane(&mut self, field: &'static str, pixels: &mut Pixels) -> Option<Plane> {
        self.unpacked(field, pixels, codec::read_plane)
    }

    /// A map of classes.
    pub(super) fn labels(&mut self, field: &'static str, pixels: &mut Pixels) -> Option<Plane> {
        self.unpacked(field, pixels, codec::read_labels)
    }

    fn unpacked<T>(
        &mut self,
        field: &'static str,
        pixels: &mut Pixels,
        read: impl FnOnce(&[u8], u64) -> Result<T, Unreadable>,
    ) -> Option<T> {
        let (read, said) = match self.source(field)? {
            Source::File(file) => (read(&file, pixels.limit), format!("a file of {} bytes", file.len())),
            Source::Text(text) => (codec::unwrapped(&text).and_then(|file| read(&file, pixels.limit)), text),
        };
        match read {
            Ok(read) => Some(read),
            Err(unreadable) => {
                let limit = match unreadable {
                    Unreadable::TooLarge { limit, .. } => format!("at most {limit} pixels"),
                    _ => "PNG, JPEG or WebP in base64".to_owned(),
                };
                pixels.exceeded |= matches!(unreadable, Unreadable::TooLarge { .. });
                self.bad.push(Violation::new(field, format!("`{field}` {unreadable}"), limit, said));
                None
            }
        }
    }

    pub(super) fn truth(&mut self, field: &'static str) -> Option<bool> {
        match self.take(field)? {
            Value::Bool(truth) => Some(truth),
            other => self.wrong(field, "true or false", &other),
        }
    }

    /// One of the values that have a name.
    pub(super) fn choice<T: Copy>(&mut self, field: &'static str, all: &[T], name: impl Fn(T) -> &'static str) -> Option<T> {
        let said = self.text(field)?;
        let found = all.iter().copied().find(|&one| name(one) == said);
        if found.is_none() {
            let known = all.iter().map(|&one| name(one)).collect::<Vec<_>>().join(", ");
            self.bad.push(Violation::new(field, format!("`{field}` must be one of {known}, not {said:?}"), known, said));
        }
        found
    }

    /// A whole number from 0 on.
    pub(super) fn natural(&mut self, field: &'static str) -> Option<u64> {
        let number = self.whole(field)?;
        if !(0..=ldm_core::MAX_SEED).contains(&number) {
            let limit = format!("0..={}", ldm_core::MAX_SEED);
            self.bad.push(Violation::new(field, format!("`{field}` must be {limit}, not {number}"), limit, number));
            return None;
        }
        Some(number.unsigned_abs())
    }

    /// A number, or two: across and down.
    pub(super) fn one_or_two(&mut self, field: &'static str) -> Option<[f64; 2]> {
        let value = self.take(field)?;
        let both = match &value {
            Value::Array(pair) if pair.len() == 2 => pair[0].as_f64().zip(pair[1].as_f64()).map(|(x, y)| [x, y]),
            one => one.as_f64().map(|one| [one; 2]),
        };
        both.or_else(|| self.wrong(field, "a number, or an array of two", &value))
    }

    /// Two numbers; a second one that is null is infinite.
    pub(super) fn interval(&mut self, field: &'static str) -> Option<(f64, f64)> {
        let value = self.take(field)?;
        let ends = match value.as_array().map(Vec::as_slice) {
            Some([low, Value::Null]) => low.as_f64().map(|low| (low, f64::INFINITY)),
            Some([low, high]) => low.as_f64().zip(high.as_f64()),
            _ => None,
        };
        ends.or_else(|| self.wrong(field, "an array of two numbers", &value))
    }

    /// What only inpainting says of its mask.
    pub(super) fn masking(&mut self) -> MaskingDraft {
        MaskingDraft {
            blur: self.one_or_two("mask_blur"),
            invert: self.truth("invert_mask"),
            only_masked: self.truth("only_masked"),
            padding: self.whole("padding"),
            fill: self.choice("fill", &ldm_core::task::Fill::ALL, ldm_core::task::Fill::name),
            composite: self.truth("composite"),
        }
    }

    /// A second pass.
    pub(super) fn hires(&mut self) -> Option<HiresDraft> {
        let value = self.take("hires")?;
        self.nested("hires", value, |fields| HiresDraft {
            width: fields.whole("width"),
            height: fields.whole("height"),
            scale: fields.real("scale"),
            steps: fields.whole("steps"),
            strength: fields.real("strength"),
            upscaler: fields.choice("upscaler", &Upscaler::ALL, Upscaler::name).unwrap_or_default(),
        })
    }

    /// `[{"label": …, "x": …, "y": …, "width": …, "height": …}]`, places in fractions of the picture.
    pub(super) fn boxes(&mut self) -> Option<Vec<Bbox>> {
        let entries = self.list("boxes", "an array of objects with `label`, `x`, `y`, `width` and `height`")?;
        let read = |fields: &mut Fields| {
            let label = fields.whole("label");
            let label = fields.needed("label", label).unwrap_or_default();
            let bbox = ["x", "y", "width", "height"].map(|side| {
                let at = fields.real(side);
                fields.needed(side, at).unwrap_or_default()
            });
            let mut flag = |field| fields.truth(field).unwrap_or(false);
            let [is_occluded, is_group_of] = ["is_occluded", "is_group_of"].map(&mut flag);
            let [is_depiction, is_inside] = ["is_depiction", "is_inside"].map(&mut flag);
            Bbox { label, bbox, is_occluded, is_group_of, is_depiction, is_inside }
        };
        let boxes = entries.into_iter().enumerate().map(|(index, entry)| self.nested(&format!("boxes[{index}]"), entry, read));
        Some(boxes.collect::<Vec<_>>().into_iter().flatten().collect())
    }

    /// Embeddings: each an array of numbers, or 32-bit floats, little-endian, in base64.
    pub(super) fn neighbours(&mut self) -> Option<Vec<Vec<f32>>> {
        let entries = self.list("neighbours", "an array of embeddings")?;
        let mut read = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match embedding(entry) {
                Some(embedding) => read.push(embedding),
                None => {
                    let wanted = "an array of numbers, or 32-bit floats in base64";
                    let _: Option<()> = self.wrong(&format!("neighbours[{index}]"), wanted, entry);
                }
            }
        }
        // What is wrong has been named; the check would count what is left.
        (read.len() == entries.len()).then_some(read)
    }

    fn list(&mut self, field: &'static str, wanted: &str) -> Option<Vec<Value>> {
        match self.take(field)? {
            Value::Array(entries) if entries.len() > MOST => {
                let message = format!("`{field}` must hold at most {MOST} entries, not {}", entries.len());
                self.bad.push(Violation::new(field, message, format!("at most {MOST}"), entries.len()));
                None
            }
            Value::Array(entries) => Some(entries),
            other => self.wrong(field, wanted, &other),
        }
    }

    /// Names the field that has to be there, unless something else was wrong with it.
    fn needed<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.bad.0.iter().any(|bad| bad.field == field) {
            self.bad.push(Violation::missing(field));
        }
        value
    }

    /// An object within the body, read as the body is; its fields are named with `place` before them.
    fn nested<T>(&mut self, place: &str, value: Value, read: impl FnOnce(&mut Fields) -> T) -> Option<T> {
        let Value::Object(left) = value else { return self.wrong(place, "an object", &value) };
        let mut inner = Fields::new(left, false);
        let read = read(&mut inner);
        for bad in inner.finish().0 {
            let field = format!("{place}.{}", bad.field);
            let message = bad.message.replace(&format!("`{}`", bad.field), &format!("`{field}`"));
            let message = message.replace(&format!("{:?}", bad.field), &format!("{field:?}"));
            self.bad.push(Violation { field, message, ..bad });
        }
        Some(read)
    }
}

fn embedding(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(numbers) => numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect(),
        Value::String(text) => {
            let bytes = BASE64.decode(text).ok()?;
            let (numbers, rest) = bytes.as_chunks::<4>();
            rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
        }
        _ => None,
    }
}
