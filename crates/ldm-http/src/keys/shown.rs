//! What a request shows of itself: `authorization: Bearer`, `Basic`, or `x-api-key`.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Headers of one name that are looked at.
const MOST: usize = 2;

/// What was shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// What could be a key.
    pub(super) secrets: Vec<Vec<u8>>,
    /// Something was shown, if only something that is no key.
    pub(super) any: bool,
}

/// What the headers show. An empty header shows nothing: some front ends send one when no key is set.
///
/// `basic`: whether HTTP Basic counts, which browsers send by themselves once somebody has typed it in.
pub(super) fn shown(headers: &HeaderMap, basic: bool) -> Shown {
    let mut shown = Shown::default();
    for value in headers.get_all(header::AUTHORIZATION).iter().take(MOST) {
        let text = value.as_bytes().trim_ascii();
        let (scheme, rest) = match text.iter().position(u8::is_ascii_whitespace) {
            Some(at) => (&text[..at], text[at..].trim_ascii()),
            None => (text, &b""[..]),
        };
        let bearer = scheme.eq_ignore_ascii_case(b"bearer");
        // `Bearer` with nothing behind it is what clients send whose key is empty.
        let is_empty = text.is_empty() || bearer && rest.is_empty();
        shown.any |= !is_empty;
        if bearer {
            shown.secrets.extend(Some(rest.to_vec()).filter(|rest| !rest.is_empty()));
        } else if scheme.eq_ignore_ascii_case(b"basic") && basic {
            shown.secrets.extend(of_basic(rest));
        }
    }
    for value in headers.get_all("x-api-key").iter().take(MOST) {
        let text = value.as_bytes().trim_ascii();
        shown.any |= !text.is_empty();
        shown.secrets.extend(Some(text.to_vec()).filter(|text| !text.is_empty()));
    }
    shown
}

/// The password and the name of HTTP Basic: clients that have a field for one of them alone differ in which.
fn of_basic(encoded: &[u8]) -> Vec<Vec<u8>> {
    let Ok(pair) = BASE64_STANDARD.decode(encoded) else { return Vec::new() };
    let (name, password) = match pair.iter().position(|byte| *byte == b':') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (&pair[..], &b""[..]),
    };
    [password, name].into_iter().filter(|text| !text.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> (Vec<String>, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let Shown { secrets, any } = shown(&headers, true);
        (secrets.into_iter().map(|secret| String::from_utf8(secret).unwrap()).collect(), any)
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        let basic = |text: &str| format!("basic {}", BASE64_STANDARD.encode(text));
        type Row<'a> = (&'a [(&'static str, &'a str)], &'a [&'a str], bool);
        let table: [Row<'_>; 11] = [
            (&[], &[], false),
            (&[("authorization", "")], &[], false),
            (&[("authorization", "Bearer ")], &[], false),
            (&[("authorization", "Bearer k1")], &["k1"], true),
            (&[("authorization", "bearer   k1")], &["k1"], true),
            (&[("x-api-key", "k1")], &["k1"], true),
            (&[("x-api-key", " ")], &[], false),
            (&[("authorization", &basic("name:k1"))], &["k1", "name"], true),
            (&[("authorization", &basic("k1:"))], &["k1"], true),
            (&[("authorization", "Basic %%%")], &[], true),
            (&[("authorization", "Digest x"), ("x-api-key", "k2")], &["k2"], true),
        ];
        for (headers, secrets, any) in table {
            assert_eq!(of(headers), (secrets.iter().map(|secret| (*secret).to_owned()).collect(), any), "{headers:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&basic("a:b")).unwrap());
        assert_eq!(shown(&headers, false), Shown { secrets: Vec::new(), any: true });
    }
}
