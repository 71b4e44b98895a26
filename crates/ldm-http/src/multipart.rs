//! `multipart/form-data`, read whole and bounded: its parts, in the order in which they came.

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode};
use ldm_core::{Violation, Violations};

use crate::App;
use crate::error::ApiError;
use crate::negotiate::kind;

/// Parts at most.
const MOST_PARTS: usize = 64;
/// Bytes of a part's name at most, and of its file's name.
const MOST_NAME: usize = 256;
/// Bytes of a part that is no file at most. Files are bounded by the body alone.
const MOST_TEXT: usize = 1 << 20;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The field's name.
    pub(crate) name: String,
    /// The file's name; a part that has one is a file.
    pub(crate) filename: Option<String>,
    /// The media type that it is said to have.
    pub(crate) content_type: Option<String>,
    /// What it holds.
    pub(crate) bytes: Bytes,
}

impl Part {
    /// Whether it is a file, and not a field's text.
    pub(crate) fn is_file(&self) -> bool {
        self.filename.is_some()
    }

    /// What it holds, as text.
    pub(crate) fn text(&self) -> Result<&str, ApiError> {
        std::str::from_utf8(&self.bytes).map_err(|_| {
            let message = format!("`{}` is no text in UTF-8; a file needs a filename", self.name);
            Violations(vec![Violation::new(&self.name, message, "text in UTF-8", "other bytes")]).into()
        })
    }
}

/// Whether the body says that it is `multipart/form-data`.
pub(crate) fn is_multipart(headers: &HeaderMap) -> bool {
    kind(headers) == "multipart/form-data"
}

/// Reads a body whose headers say that it is `multipart/form-data`: at most 64 parts, names of 256 bytes, texts of 1 MiB, and all of
/// it within the limit on bodies.
pub(crate) async fn read(request: Request, app: &App) -> Result<Vec<Part>, ApiError> {
    let wrong = |error: &MultipartError| refused(error, app);
    let body = Multipart::from_request(request, app).await;
    let mut body = body.map_err(|_| malformed("the header `content-type` names no boundary"))?;
    let mut parts = Vec::new();
    while let Some(field) = body.next_field().await.map_err(|error| wrong(&error))? {
        if parts.len() == MOST_PARTS {
            let message = format!("the body has more than {MOST_PARTS} parts");
            return Err(Violations(vec![Violation::new("body", message, format!("at most {MOST_PARTS} parts"), "more")]).into());
        }
        parts.push(part(field, wrong).await?);
    }
    Ok(parts)
}

async fn part(mut field: Field<'_>, wrong: impl Fn(&MultipartError) -> ApiError) -> Result<Part, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let filename = field.file_name().map(str::to_owned);
    let content_type = field.content_type().map(str::to_owned);
    if name.is_empty() {
        return Err(malformed("a part has no name"));
    }
    if name.len().max(filename.as_ref().map_or(0, String::len)) > MOST_NAME {
        return Err(malformed(&format!("the name of a part has more than {MOST_NAME} bytes")));
    }
    if filename.is_some() {
        let bytes = field.bytes().await.map_err(|error| wrong(&error))?;
        return Ok(Part { name, filename, content_type, bytes });
    }
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| wrong(&error))? {
        if text.len() + chunk.len() > MOST_TEXT {
            let message =
                format!("`{name}` is a text of more than {MOST_TEXT} bytes; a picture may be sent as a file, with a filename");
            let limit = format!("at most {MOST_TEXT} bytes of text");
            return Err(Violations(vec![Violation::new(&name, message, limit, "more")]).into());
        }
        text.extend_from_slice(&chunk);
    }
    Ok(Part { name, filename, content_type, bytes: text.into() })
}

fn malformed(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "malformed_multipart", format!("the body is no multipart/form-data: {message}"))
}

fn refused(error: &MultipartError, app: &App) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.limits.body_bytes),
        _ => malformed(&error.body_text()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header;

    use super::*;
    use crate::testing::{form, ready};

    async fn parts(kind: &str, body: impl Into<Body>) -> Result<Vec<Part>, ApiError> {
        let request = Request::post("/").header(header::CONTENT_TYPE, kind).body(body.into()).unwrap();
        assert!(is_multipart(request.headers()), "{kind}");
        read(request, &ready().await.0).await
    }

    #[tokio::test]
    async fn parts_come_in_order_as_they_were_sent() {
        let (kind, body) = form(&[
            ("prompt", None, b"a cat\r\n--X".as_slice()),
            ("image[]", Some("a.png"), b"\x89PNG\xff"),
            ("image[]", Some(""), b""),
            ("prompt", None, "Möwe".as_bytes()),
        ]);
        let parts = parts(&kind, body).await.unwrap();
        let seen: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.is_file(), &part.bytes[..])).collect();
        assert_eq!(
            seen,
            [
                ("prompt", false, &b"a cat\r\n--X"[..]),
                ("image[]", true, b"\x89PNG\xff"),
                ("image[]", true, b""),
                ("prompt", false, "Möwe".as_bytes()),
            ]
        );
        assert_eq!(parts[1].content_type.as_deref(), Some("application/octet-stream"));
        assert_eq!((parts[3].text(), parts[1].text().map_err(|error| error.code)), (Ok("Möwe"), Err("invalid_request")));
    }

    #[tokio::test]
    async fn what_is_no_form_or_too_much_of_one_is_refused() {
        let (kind, body) = form(&[("prompt", None, b"a cat".as_slice())]);
        let many: Vec<_> = (0..65).map(|_| ("seed", None, b"1".as_slice())).collect();
        let long = "n".repeat(257);
        let nameless = "--B\r\ncontent-disposition: form-data\r\n\r\n1\r\n--B--\r\n";
        let table = [
            ("multipart/form-data", body.clone(), 400, "malformed_multipart"),
            (&kind, body[..body.len() - 20].to_vec(), 400, "malformed_multipart"),
            (&kind, b"nothing of the kind".to_vec(), 400, "malformed_multipart"),
            ("multipart/form-data; boundary=B", nameless.as_bytes().to_vec(), 400, "malformed_multipart"),
            (&kind, form(&[(&long, None, b"1")]).1, 400, "malformed_multipart"),
            (&kind, form(&many).1, 422, "invalid_request"),
        ];
        for (kind, body, status, code) in table {
            let error = parts(kind, body).await.unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (status, code), "{}", error.message);
        }
    }
}
