//! What a client accepts, and what it gets of that: JSON, a raw picture, or a stream of events.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use crate::codec::Format;
use crate::error::ApiError;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `application/json`.
    Json,
    /// The picture itself; `None` leaves its format to the body's `format`.
    Picture(Option<Format>),
    /// `text/event-stream`.
    Events,
}

/// Every form, the one preferred among equals first.
const FORMS: [(&str, &str, Form); 5] = [
    ("application", "json", Form::Json),
    ("image", "png", Form::Picture(Some(Format::Png))),
    ("image", "jpeg", Form::Picture(Some(Format::Jpeg))),
    ("image", "webp", Form::Picture(Some(Format::WebP))),
    ("text", "event-stream", Form::Events),
];

/// How well a form is liked: by quality, by how exactly it is named, by how early it is named.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Liking {
    quality: f32,
    exactness: u8,
    place: isize,
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        choose(&parts.headers).ok_or_else(|| {
            let message = "an answer can be application/json, image/png, image/jpeg, image/webp or text/event-stream";
            ApiError::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)
        })
    }
}

/// Whether the body says that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = kind(headers);
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The media type that the body says it has, without parameters; empty if it says none.
pub(crate) fn kind(headers: &HeaderMap) -> String {
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    said.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The form that is liked best, if any is; JSON when nothing was said.
fn choose(headers: &HeaderMap) -> Option<Form> {
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    let ranges: Vec<_> = accept.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
    if ranges.is_empty() {
        return Some(Form::Json);
    }
    let mut best: Option<(Liking, Form)> = None;
    for (kind, subtype, form) in FORMS {
        let likings = ranges.iter().enumerate().filter_map(|(place, range)| liking(range, place, kind, subtype));
        // The range that names the form most exactly speaks for it.
        let Some(liking) = likings.reduce(|a, b| if b.exactness > a.exactness { b } else { a }) else { continue };
        if liking.quality > 0.0 && best.is_none_or(|(best, _)| liking > best) {
            let wild = matches!(form, Form::Picture(_)) && liking.exactness == 1;
            best = Some((liking, if wild { Form::Picture(None) } else { form }));
        }
    }
    best.map(|(_, form)| form)
}

/// The format of a picture that is liked best; `own` among equals, and when nothing was said.
pub(crate) fn picture(headers: &HeaderMap, own: Format) -> Option<Format> {
    let accept: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    let ranges: Vec<_> = accept.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
    if ranges.is_empty() {
        return Some(own);
    }
    let mut best: Option<(Liking, Format)> = None;
    for format in std::iter::once(own).chain(Format::ALL) {
        let subtype = format.mime().trim_start_matches("image/");
        let likings = ranges.iter().enumerate().filter_map(|(place, range)| liking(range, place, "image", subtype));
        let Some(liking) = likings.reduce(|a, b| if b.exactness > a.exactness { b } else { a }) else { continue };
        if liking.quality > 0.0 && best.is_none_or(|(best, _)| liking > best) {
            best = Some((liking, format));
        }
    }
    best.map(|(_, format)| format)
}

/// How well `range`, the one at `place`, likes `kind/subtype`; `None` if it does not speak of it.
fn liking(range: &str, place: usize, kind: &str, subtype: &str) -> Option<Liking> {
    let mut parts = range.split(';').map(str::trim);
    let (wanted_kind, wanted_subtype) = parts.next()?.split_once('/')?;
    let exactness = match (wanted_kind, wanted_subtype) {
        ("*", "*") => 0,
        (wanted, "*") if wanted.eq_ignore_ascii_case(kind) => 1,
        (wanted, sub) if wanted.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
        _ => return None,
    };
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let quality = quality.map_or(1.0, |quality| quality.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0));
    Some(Liking { quality, exactness, place: -(place as isize) })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_best_liked_format_of_a_picture_wins_and_its_own_among_equals() {
        use Format::{Jpeg, Png, WebP};
        let browser = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5";
        let table = [
            ("", Jpeg, Some(Jpeg)),
            ("*/*", Jpeg, Some(Jpeg)),
            ("image/*", WebP, Some(WebP)),
            ("image/png", Jpeg, Some(Png)),
            ("image/png, image/webp", Jpeg, Some(Png)),
            ("image/png;q=0.5, image/webp", Png, Some(WebP)),
            ("image/jpeg;q=0, image/*", Jpeg, Some(Png)),
            (browser, Png, Some(WebP)),
            ("application/json", Png, None),
            ("image/gif", Png, None),
        ];
        for (accept, own, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(picture(&headers, own), expected, "{accept}");
        }
    }

    #[test]
    fn the_best_liked_form_wins() {
        use Form::{Events, Json, Picture};
        let png = Some(Picture(Some(Format::Png)));
        let jpeg = Some(Picture(Some(Format::Jpeg)));
        let table = [
            ("", Some(Json)),
            ("*/*", Some(Json)),
            ("application/*", Some(Json)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Json)),
            ("image/*", Some(Picture(None))),
            ("image/png", png),
            ("IMAGE/PNG", png),
            ("image/jpeg, image/png", jpeg),
            ("image/jpeg;q=0.5, image/png", png),
            ("image/*, image/jpeg;q=0.1", Some(Picture(None))),
            ("image/*;q=0.3, image/jpeg;q=0.9", jpeg),
            ("image/webp, */*", Some(Picture(Some(Format::WebP)))),
            ("image/png;q=0, */*", Some(Json)),
            ("text/event-stream", Some(Events)),
            ("application/json, text/event-stream", Some(Json)),
            ("text/event-stream, application/json;q=0.9", Some(Events)),
            ("text/html", None),
            ("image/png;q=0", None),
            ("image/gif, nonsense", None),
        ];
        for (accept, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(choose(&headers), expected, "{accept}");
        }
        assert_eq!(choose(&HeaderMap::new()), Some(Json));
    }
}
