//! A table that is read key by key. Keys nobody asked for are errors in the end, with the nearest that somebody did ask for.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::CardError;

pub(super) struct Fields {
    path: String,
    map: Map<String, Value>,
    known: Vec<String>,
}

impl Fields {
    pub(super) fn new(path: &str, value: Value) -> Result<Self, CardError> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map, known: Vec::new() }),
            other => {
                let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
                Err(CardError::Value {
                    path: above.to_owned(),
                    key: key.to_owned(),
                    what: format!("{} is no table", short(&other)),
                })
            }
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The value as it is; null is none.
    pub(super) fn raw(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.map.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, CardError> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let shown = short(&value);
        serde_json::from_value(value).map(Some).map_err(|error| self.wrong(key, format!("{shown}: {error}")))
    }

    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, CardError> {
        self.optional(key)?.ok_or_else(|| CardError::Missing { path: self.path.clone(), key: key.to_owned() })
    }

    pub(super) fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T, CardError> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    pub(super) fn table(&mut self, key: &str) -> Result<Option<Self>, CardError> {
        let path = format!("{}.{key}", self.path);
        self.raw(key).map(|value| Self::new(&path, value)).transpose()
    }

    pub(super) fn required_table(&mut self, key: &str) -> Result<Self, CardError> {
        self.table(key)?.ok_or_else(|| CardError::Missing { path: self.path.clone(), key: key.to_owned() })
    }

    /// Keys that say nothing about how a model is run.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.raw(key);
        }
    }

    /// A key that may be there, but only with the value that the networks have anyway.
    pub(super) fn only(&mut self, key: &str, value: &Value) -> Result<(), CardError> {
        match self.raw(key) {
            Some(found) if found != *value => Err(self.wrong(key, format!("{} is not supported, only {value}", short(&found)))),
            _ => Ok(()),
        }
    }

    pub(super) fn wrong(&self, key: &str, what: impl Into<String>) -> CardError {
        CardError::Value { path: self.path.clone(), key: key.to_owned(), what: what.into() }
    }

    /// # Errors
    /// When a key is left over.
    pub(super) fn finish(self) -> Result<(), CardError> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        const ALIKE: f64 = 0.7;
        let likeness = |known: &String| strsim::jaro_winkler(known, key);
        let nearest = self.known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let nearest = nearest.filter(|known| likeness(known) >= ALIKE).cloned();
        Err(CardError::Unknown { path: self.path, key: crate::pickle::shown(key), nearest })
    }
}

/// A value as JSON, cut; JSON escapes what would break a line.
fn short(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = value.to_string();
    let cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}
