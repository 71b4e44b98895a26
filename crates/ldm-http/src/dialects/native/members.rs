//! The members of a JSON object, each read by itself, so that one that cannot be read is named and the others are still heard.

use std::borrow::Cow;
use std::fmt;

use ldm_core::{Violation, Violations};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Reads a body that is a JSON object; a member that stands there twice or is no value that can be held is a violation.
pub(super) fn read(body: &[u8]) -> Result<(Map<String, Value>, Violations), ApiError> {
    let said: Body<'_> = serde_json::from_slice(body).map_err(|error| ApiError::malformed(&error))?;
    let members = match said {
        Body::Object(members) => members,
        Body::Other(other) => {
            let message = format!("the body must be a JSON object, not {other}");
            return Err(Violations(vec![Violation::new("body", message, "an object", other)]).into());
        }
    };
    let (mut read, mut bad) = (Map::new(), Violations::default());
    for (name, raw) in members {
        if read.contains_key(&*name) {
            bad.push(Violation::new(&name, format!("`{name}` stands there more than once"), "once", raw));
            continue;
        }
        // Numbers beyond every bound, half a surrogate pair, lists in lists in lists.
        let value = serde_json::from_str(raw.get()).unwrap_or_else(|error| {
            bad.push(Violation::new(&name, format!("`{name}` cannot be read: {}", reason(&error)), "a JSON value", raw));
            Value::Null
        });
        read.insert(name.into_owned(), value);
    }
    Ok((read, bad))
}

/// The error without its place, which is one within the member.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// A body of JSON: the members of an object as they stand there, or what it is instead.
enum Body<'a> {
    Object(Vec<(Cow<'a, str>, &'a RawValue)>),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Members)
    }
}

struct Members;

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Members {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Ok(Body::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Body<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Body::Other("an array"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Body<'de>, E> {
        Ok(Body::Other("a string"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Body<'de>, E> {
        Ok(Body::Other("a boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Body<'de>, E> {
        Ok(Body::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Body<'de>, E> {
        Ok(Body::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Body<'de>, E> {
        Ok(Body::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Body<'de>, E> {
        Ok(Body::Other("null"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_one_by_one() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let body = format!(
            r#"{{"a": 1e999, "b": "\ud800", "c": {deep}, "d": "ok \u00e9", "\u0065": [1, {{"x": null}}], "d": 2, "f": -1e400, "g": 1e308}}"#
        );
        let (read, bad) = super::read(body.as_bytes()).unwrap();
        let named: Vec<_> = bad.0.iter().map(|bad| (bad.field.as_str(), bad.message.as_str())).collect();
        assert_eq!(
            named,
            [
                ("a", "`a` cannot be read: number out of range"),
                ("b", "`b` cannot be read: unexpected end of hex escape"),
                ("c", "`c` cannot be read: recursion limit exceeded"),
                ("d", "`d` stands there more than once"),
                ("f", "`f` cannot be read: number out of range"),
            ]
        );
        assert_eq!((&read["d"], &read["e"]), (&serde_json::json!("ok é"), &serde_json::json!([1, { "x": null }])));
        assert_eq!((&read["a"], &read["g"]), (&Value::Null, &serde_json::json!(1e308)));
    }

    #[test]
    fn what_is_no_object_hears_what_it_is() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for (body, said) in [
            ("[1, 2]", "an array"),
            (&*deep, "an array"),
            ("\"text\"", "a string"),
            ("true", "a boolean"),
            ("7", "a number"),
            ("-7", "a number"),
            ("7.5", "a number"),
            ("null", "null"),
        ] {
            let error = super::read(body.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.message), ("invalid_request", format!("the body must be a JSON object, not {said}")));
        }
        for body in [
            "",
            "{",
            "{}x",
            "{\"a\": NaN}",
            "{\"a\": Infinity}",
            "{a: 1}",
            "{\"a\": 1,}",
            "{\"a\": \"\n\"}",
            "\u{feff}{}",
            "1e999",
        ] {
            assert_eq!(super::read(body.as_bytes()).unwrap_err().code, "malformed_json", "{body}");
        }
        assert_eq!(super::read(b"{\"a\": \"\xff\"}").unwrap_err().code, "malformed_json");
    }
}
