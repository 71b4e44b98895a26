//! Model cards: one description of a model, whatever it was read from. Ours are TOML files in `config/models`; published YAML
//! sidecars lower to the same struct ([`Card::from_yaml`]).

mod builtin;
mod fields;
mod model;
mod serving;
mod write;
mod yaml;

pub use builtin::{BUILTIN, builtin, builtins};
pub use model::{
    Conditioner, ConditionerKind, ConditioningKey, Ddconfig, Diffusion, Ema, FirstStage, Layer, Model, NumClasses,
    Parameterization, Scale, Schedule, Sequential, Unet,
};
pub use serving::{Defaults, Rounding, Serving, Task};
pub use yaml::{Node, Sidecar};

use fields::Fields;
use serde_json::Value;

/// A description that is not read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CardError {
    /// Not TOML or YAML, or too large.
    #[error("{0}")]
    Syntax(String),
    /// A key that nobody knows.
    #[error("{path}.{key} is not known{}", nearest.as_ref().map(|known| format!("; did you mean {known}?")).unwrap_or_default())]
    Unknown {
        /// The table.
        path: String,
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A key that must be there.
    #[error("{path}.{key} is missing")]
    Missing {
        /// The table.
        path: String,
        /// The key.
        key: String,
    },
    /// A value of the wrong type, or outside of what is possible.
    #[error("{path}.{key}: {what}")]
    Value {
        /// The table.
        path: String,
        /// The key.
        key: String,
        /// What is wrong, with the value.
        what: String,
    },
}

/// A model: what it is made of, and how it is served unless a request says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Its name, as in the tables of the documentation: `cin256-v2`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// Where its values were read.
    pub source: String,
    /// Its networks.
    pub model: Model,
    /// How it is served.
    pub serving: Serving,
}

impl Card {
    /// Reads one of our cards.
    ///
    /// # Errors
    /// When it is not TOML, a key is missing or not known (the error names the nearest that is), or a value is impossible.
    pub fn from_toml(text: &str) -> Result<Self, CardError> {
        let value: Value = toml::from_str(text).map_err(|error| CardError::Syntax(error.to_string()))?;
        let mut fields = Fields::new("card", value)?;
        let name: String = fields.required("name")?;
        let title = fields.required("title")?;
        let source = fields.required("source")?;
        let model = Model::from_card(&mut fields)?;
        let serving = Serving::from_card(&mut fields, &model)?;
        fields.finish()?;
        Ok(Self { name, title, source, model, serving })
    }

    /// Reads a published sidecar, lowered to a card; how it is served follows from the model ([`Serving::of`]).
    ///
    /// # Errors
    /// When it is not YAML, or describes anything that is not known: a class, a key, a value.
    pub fn from_yaml(name: &str, text: &str) -> Result<Self, CardError> {
        let sidecar = Sidecar::from_yaml(text)?;
        let model = sidecar.lower()?;
        let serving = Serving::of(&model);
        Ok(Self {
            name: name.to_owned(),
            title: name.to_owned(),
            source: format!("{} (sidecar)", sidecar.model.target),
            model,
            serving,
        })
    }
}

/// What two descriptions differ in: the path of each value, and the two values.
pub fn differences(a: &impl serde::Serialize, b: &impl serde::Serialize) -> Vec<(String, String, String)> {
    fn walk(path: &str, a: &Value, b: &Value, found: &mut Vec<(String, String, String)>) {
        match (a, b) {
            (Value::Object(left), Value::Object(right)) => {
                let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null), found);
                }
            }
            _ if a == b => {}
            _ => found.push((path.to_owned(), a.to_string(), b.to_string())),
        }
    }
    let mut found = Vec::new();
    // Descriptions are plain data: they always become JSON.
    let json = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
    walk("", &json(serde_json::to_value(a)), &json(serde_json::to_value(b)), &mut found);
    found
}
