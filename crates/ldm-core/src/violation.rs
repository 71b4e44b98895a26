//! What was wrong with a draft: every violation at once, each naming the field, the limit and the value.

use std::fmt;

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field as the client spells it, for example `steps`.
    pub field: String,
    /// A sentence for a person.
    pub message: String,
    /// What is allowed, for example `1..=150`.
    pub limit: Option<String>,
    /// What was given, shortened when long.
    pub value: Option<String>,
}

impl Violation {
    /// A violation of `limit` by `value`; `message` says it as a sentence.
    pub fn new(field: &str, message: impl Into<String>, limit: impl fmt::Display, value: impl fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            message: message.into(),
            limit: Some(limit.to_string()),
            value: Some(shorten(&value.to_string())),
        }
    }

    /// A required field is missing.
    pub fn missing(field: &str) -> Self {
        Self { field: field.to_owned(), message: format!("`{field}` is required"), limit: Some("required".into()), value: None }
    }
}

/// At most 80 characters of a value that is echoed back.
fn shorten(text: &str) -> String {
    const LIMIT: usize = 80;
    match text.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// All that is wrong with a draft; never empty when it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Adds one.
    pub fn push(&mut self, violation: Violation) {
        self.0.push(violation);
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok(value)` if nothing was wrong, else all violations.
    pub fn into_result<T>(self, value: impl FnOnce() -> T) -> Result<T, Violations> {
        if self.is_empty() { Ok(value()) } else { Err(self) }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&violation.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}
