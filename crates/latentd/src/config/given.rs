//! A value as somebody gave it, typed in the file or as text elsewhere, and the readings of it that settings want.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::DeValue;

/// A value as it was given.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// By an environment variable or a flag.
    Text(&'a str),
}

/// What the value must be; the error of every reading.
pub(super) type Expected = String;

impl Given<'_> {
    /// A whole number in `range`.
    pub(super) fn whole<T>(&self, range: RangeInclusive<T>) -> Result<T, Expected>
    where
        T: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let number = match self {
            Given::Toml(DeValue::Integer(digits)) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            Given::Toml(_) => None,
            Given::Text(text) => text.parse().ok(),
        };
        let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
        number.ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }

    /// A number in `range`.
    pub(super) fn real(&self, range: RangeInclusive<f64>) -> Result<f64, Expected> {
        let number: Option<f64> = match self {
            Given::Toml(DeValue::Integer(digits)) if digits.radix() == 10 => digits.as_str().parse().ok(),
            Given::Toml(DeValue::Float(digits)) => digits.as_str().parse().ok(),
            Given::Toml(_) => None,
            Given::Text(text) => text.parse().ok(),
        };
        let number = number.filter(|number| range.contains(number));
        number.ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
    }

    /// Yes or no.
    pub(super) fn flag(&self) -> Result<bool, Expected> {
        let flag = match self {
            Given::Toml(DeValue::Boolean(flag)) => Some(*flag),
            Given::Toml(_) => None,
            Given::Text(text) => text.parse().ok(),
        };
        flag.ok_or_else(|| "true or false".to_owned())
    }

    /// A text that reads as a `T`; `allowed` says which do.
    pub(super) fn parsed<T: FromStr>(&self, allowed: &str) -> Result<T, Expected> {
        self.text().and_then(|text| text.parse().ok()).ok_or_else(|| allowed.to_owned())
    }

    /// A list of texts, between commas when it is not typed, each of which must be `good`.
    pub(super) fn list(&self, allowed: &str, good: impl Fn(&str) -> bool) -> Result<Vec<String>, Expected> {
        let items: Option<Vec<&str>> = match self {
            Given::Toml(DeValue::Array(items)) => items.iter().map(|item| item.get_ref().as_str()).collect(),
            Given::Toml(_) => None,
            Given::Text(text) => Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
        };
        let items = items.filter(|items| items.iter().all(|item| good(item)));
        items.map(|items| items.into_iter().map(str::to_owned).collect()).ok_or_else(|| allowed.to_owned())
    }

    /// A text as it is.
    pub(super) fn words(&self) -> Result<String, Expected> {
        self.text().map(str::to_owned).ok_or_else(|| "a text".to_owned())
    }

    fn text(&self) -> Option<&str> {
        match self {
            Given::Toml(value) => value.as_str(),
            Given::Text(text) => Some(text),
        }
    }
}

/// As a person would write it in a complaint.
impl Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Toml(DeValue::String(text)) => write!(f, "{text:?}"),
            Given::Toml(DeValue::Integer(digits)) => f.write_str(digits.as_str()),
            Given::Toml(DeValue::Float(digits)) => f.write_str(digits.as_str()),
            Given::Toml(DeValue::Boolean(value)) => value.fmt(f),
            Given::Toml(DeValue::Datetime(value)) => value.fmt(f),
            Given::Toml(DeValue::Array(items)) => {
                let items: Vec<_> = items.iter().map(|item| Given::Toml(item.get_ref()).to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Given::Toml(DeValue::Table(_)) => f.write_str("a table"),
            Given::Text(text) => write!(f, "{text:?}"),
        }
    }
}
