//! `POST /v1/png-info`: what a picture's file says of how it was made.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use ldm_core::{Violation, Violations};

use super::body::{self, Body};
use super::fields::Fields;
use super::wire::PngInfo;
use crate::App;
use crate::codec::Unreadable;
use crate::error::ApiError;
use crate::metadata::{self, Found};
use crate::multipart::is_multipart;
use crate::negotiate::{is_json, kind};

/// The field that has the picture.
const IMAGE: &str = "image";

pub(super) async fn png_info(State(app): State<App>, upload: Upload) -> Result<Json<PngInfo>, ApiError> {
    let found = app.codec.run(move || upload.look()).await.flatten();
    let found = found.inspect_err(|error| app.metrics.rejected(error.code))?;
    Ok(Json(PngInfo::of(found)))
}

/// A picture's file, as it may come.
#[derive(Debug)]
pub(super) enum Upload {
    /// In a field of JSON or of a form.
    Field(Body),
    /// As the body itself.
    File(Bytes),
}

impl FromRequest<App> for Upload {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let headers = request.headers();
        if is_json(headers) || is_multipart(headers) {
            return Body::from_request(request, app).await.map(Self::Field);
        }
        let kind = kind(headers);
        let read = match kind.starts_with("image/") || kind == "application/octet-stream" {
            true => body::bytes(request, app).await.map(Self::File),
            false => {
                let message = "send a picture, a form or JSON with one, and say which in the header `content-type`";
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
            }
        };
        read.inspect_err(|error| app.metrics.rejected(error.code))
    }
}

impl Upload {
    /// What the file says.
    pub(super) fn look(self) -> Result<Found, ApiError> {
        let file = match self {
            Self::File(file) => file,
            Self::Field(body) => {
                let mut fields = Fields::of(body)?;
                let file = fields.file(IMAGE);
                let bad = fields.finish();
                file.filter(|_| bad.is_empty()).ok_or(bad)?
            }
        };
        let unreadable = |error: Unreadable| {
            let limit = "PNG, JPEG or WebP";
            Violations(vec![Violation::new(IMAGE, format!("`{IMAGE}` {error}"), limit, format!("{} bytes", file.len()))])
        };
        Ok(metadata::read(&file).map_err(unreadable)?)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::{Request, header};
    use serde_json::{Value, json};

    use crate::app;
    use crate::codec::base64;
    use crate::testing::{Answer, form, post, ready, send};

    async fn sent(router: &Router, kind: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post("/v1/png-info").header(header::CONTENT_TYPE, kind);
        send(router, request.body(body.into()).unwrap()).await
    }

    #[tokio::test]
    async fn a_picture_says_how_to_make_it_again() {
        let router = app(ready().await.0);
        for (format, quality) in [("png", Value::Null), ("jpeg", json!(70)), ("webp", Value::Null), ("webp", json!(70))] {
            let asked =
                json!({ "prompt": "a cat, 猫", "negative_prompt": "dogs", "steps": 2, "format": format, "quality": quality });
            let made = post(&router, "/v1/txt2img", asked.to_string()).await.json();
            let said = post(&router, "/v1/png-info", json!({ "image": made["images"][0]["b64"] }).to_string()).await;
            assert_eq!(said.status, 200);
            let said = said.json();
            assert_eq!((&said["format"], &said["width"], &said["height"]), (&json!(format), &json!(64), &json!(64)));
            assert_eq!(said["latentd"], made["parameters"]);
            assert_eq!(said["engine"]["sha256"], made["images"][0]["sha256"]);
            let infotext = &said["infotext"];
            assert_eq!((&infotext["prompt"], &infotext["negative_prompt"]), (&json!("a cat, 猫"), &json!("dogs")));
            assert_eq!((&infotext["settings"]["Steps"], &infotext["settings"]["Size"]), (&json!("2"), &json!("64x64")));
            assert!(said["parameters"].as_str().unwrap().starts_with("a cat, 猫\nNegative prompt: dogs\nSteps: 2, "));
            let again = post(&router, "/v1/txt2img", said["latentd"].to_string()).await.json();
            assert_eq!(again["images"][0]["b64"], made["images"][0]["b64"], "{format}");
        }
    }

    #[tokio::test]
    async fn a_file_comes_as_it_is_or_in_base64() {
        let router = app(ready().await.0);
        let file = include_bytes!("../../../../../tests/goldens/pictures/said.webp");
        let url = format!("data:image/webp;base64,{}", base64(file));
        let (kind, whole) = form(&[("image", Some("a.webp"), &file[..])]);
        let (text_kind, text) = form(&[("image", None, url.as_bytes())]);
        let answers = [
            sent(&router, &kind, whole).await,
            sent(&router, &text_kind, text).await,
            sent(&router, "image/webp", &file[..]).await,
            sent(&router, "application/octet-stream", &file[..]).await,
            sent(&router, "application/json", json!({ "image": base64(file) }).to_string()).await,
            sent(&router, "application/json", json!({ "image": url }).to_string()).await,
        ];
        for answer in answers {
            assert_eq!(answer.status, 200);
            assert_eq!(
                (&answer.json()["width"], &answer.json()["infotext"]["settings"]["Sampler"]),
                (&json!(13), &json!("Euler a"))
            );
            assert_eq!((&answer.json()["latentd"], &answer.json()["engine"]), (&Value::Null, &Value::Null));
        }
    }

    #[tokio::test]
    async fn what_is_no_picture_is_refused_by_name() {
        let router = app(ready().await.0);
        let (json, png) = ("application/json", "image/png");
        let table = [
            (png, &b""[..], 422, "invalid_request", "image"),
            (png, b"GIF89a", 422, "invalid_request", "image"),
            (png, b"\x89PNG\r\n\x1a\n", 422, "invalid_request", "image"),
            (json, b"{}", 422, "invalid_request", "image"),
            (json, b"{\"image\": 1}", 422, "invalid_request", "image"),
            (json, b"{\"image\": \"%\", \"x\": 1}", 422, "invalid_request", "image x"),
            (json, b"{\"image\": \"%\"}", 422, "invalid_request", "image"),
            (json, b"{", 400, "malformed_json", ""),
            ("text/plain", b"", 415, "unsupported_media_type", ""),
        ];
        for (kind, body, status, code, fields) in table {
            let answer = sent(&router, kind, body).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{kind} {body:?}");
            assert_eq!(answer.fields().join(" "), fields, "{kind} {body:?}");
        }
        let twice: [(&str, Option<&str>, &[u8]); 2] = [("image", Some("a"), b"x"), ("image", Some("b"), b"y")];
        for (parts, fields) in
            [(&twice[..], &["image"][..]), (&[], &["image"]), (&[("mask", Some("a"), b"x")], &["image", "mask"])]
        {
            let (kind, body) = form(parts);
            let answer = sent(&router, &kind, body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.fields()),
                (422, fields.iter().map(|field| (*field).to_owned()).collect())
            );
        }
        assert_eq!(sent(&router, png, vec![0; 70_000]).await.status, 413);
    }
}
