//! Hostile input through the router: what it is answered with, and that it is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, header};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::tests::picture;
use crate::app;
use crate::codec::base64;
use crate::testing::{Answer, png_chunk, post, ready, send};

async fn router() -> Router {
    app(ready().await.0)
}

/// Posts `{"prompt": "a cat", "steps": 1, FIELD: VALUE}` with the value as it stands.
async fn ask(router: &Router, field: &str, value: &str) -> Answer {
    let mut members = vec![("prompt", "\"a cat\""), ("steps", "1")];
    members.retain(|(known, _)| *known != field);
    members.push((field, value));
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    post(router, "/v1/txt2img", format!("{{{}}}", members.join(", "))).await
}

#[tokio::test]
async fn numbers_beyond_every_bound_are_named() {
    let router = router().await;
    let fields = ["width", "height", "steps", "guidance", "eta", "seed", "images", "quality", "preview_every", "deadline_ms"];
    let numbers =
        ["1e999", "-1e999", "1e308", "-1e308", "18446744073709551616", "99999999999999999999999999", "-9223372036854775809"];
    for field in fields {
        for number in numbers {
            let answer = ask(&router, field, number).await;
            let mut fields = answer.fields();
            // Samplers that take no `eta` say so too.
            fields.dedup();
            assert_eq!((answer.status.as_u16(), fields), (422, vec![field.to_owned()]), "{field} = {number}");
        }
        for word in ["NaN", "Infinity", "-Infinity", "0x10", "1_000", "+1", "01", ".5", "1.", "١"] {
            let answer = ask(&router, field, word).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "malformed_json"), "{field} = {word}");
        }
    }
    // As small as numbers get, they are numbers.
    assert_eq!(ask(&router, "eta", "1e-400").await.status, 200);
    assert_eq!(ask(&router, "eta", "-0").await.status, 200);
}

#[tokio::test]
async fn prompts_of_every_script_are_taken_and_long_ones_refused() {
    let router = router().await;
    for prompt in [
        "",
        "قطة على سجادة",
        "\u{202e}tac a\u{202c}",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "a\0b",
        "e\u{301}\u{327}",
        "\u{feff}\u{ffff}\u{10ffff}",
        "\r\n\t\u{7f}",
        "<script>",
    ] {
        let answer = ask(&router, "prompt", &json!(prompt).to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["parameters"]["prompt"]), (200, &json!(prompt)), "{prompt:?}");
    }
    // Ten thousand tokens, by words and by letters.
    for prompt in ["cat ".repeat(10_000), "🐈".repeat(10_000)] {
        for field in ["prompt", "negative_prompt"] {
            let answer = ask(&router, field, &json!(prompt).to_string()).await;
            assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field.to_owned()]));
            assert!(answer.body.len() < 2000, "a prompt is not sent back in full");
        }
    }
    for broken in [r#""\ud800""#, r#""\udc00\ud800""#, r#""\ud83d\ud83d""#] {
        let answer = ask(&router, "prompt", broken).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec!["prompt".to_owned()]), "{broken}");
    }
    for malformed in ["\"\\x00\"", "\"\n\"", "'a cat'", "\"a"] {
        assert_eq!(ask(&router, "prompt", malformed).await.status, 400, "{malformed:?}");
    }
    let latin1 = post(&router, "/v1/txt2img", &b"{\"prompt\": \"gr\xfcn\"}"[..]).await;
    assert_eq!((latin1.status.as_u16(), latin1.code().as_str()), (400, "malformed_json"));
}

#[tokio::test]
async fn nested_and_repeated_json_is_refused() {
    let router = router().await;
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
    for value in [deep("[", "]"), deep("{\"a\":", "}")] {
        for field in ["prompt", "steps", "loras", "seed", "init_image", "zzz"] {
            let answer = ask(&router, field, &value).await;
            assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field.to_owned()]), "{field}");
        }
        // In the entry of a list, too, it is the list that cannot be read.
        assert_eq!(ask(&router, "loras", &format!("[{{\"name\": {value}}}]")).await.fields(), ["loras"]);
    }
    let body = deep("[", "]");
    assert_eq!(post(&router, "/v1/txt2img", body).await.fields(), ["body"]);
    assert_eq!(post(&router, "/v1/txt2img", "[".repeat(10_000)).await.code(), "malformed_json");
    let twice = r#"{"prompt": "a cat", "seed": 1, "steps": 1, "seed": 2, "s\u0065ed": 3}"#;
    assert_eq!(post(&router, "/v1/txt2img", twice).await.fields(), ["seed", "seed"]);
    // A thousand unknown fields are a thousand violations, and no more work than that.
    let many: Vec<_> = (0..1000).map(|i| format!("\"x{i}\": 1")).collect();
    assert_eq!(post(&router, "/v1/txt2img", format!("{{{}}}", many.join(","))).await.fields().len(), 1000);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read_to_its_end() {
    let router = router().await;
    for (path, kind) in [("/v1/txt2img", "application/json"), ("/v1/img2img", "application/json"), ("/v1/png-info", "image/png")]
    {
        for declared in [true, false] {
            let sent = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&sent);
            // 100 MiB, a mebibyte at a time.
            let chunks = stream::iter(0..100).map(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 1 << 20]))
            });
            let mut request = Request::post(path).header(header::CONTENT_TYPE, kind);
            if declared {
                request = request.header(header::CONTENT_LENGTH, 100 << 20);
            }
            let answer = send(&router, request.body(Body::from_stream(chunks)).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"), "{path}");
            assert!(sent.load(Ordering::Relaxed) <= 2, "{path} read {} MiB", sent.load(Ordering::Relaxed));
        }
    }
}

/// A PNG whose header says that it is so large, with ten kilobytes after it.
fn claimed(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", &header), &png_chunk(b"IDAT", &[0; 10_000]), &png_chunk(b"IEND", b"")]
        .concat()
}

#[tokio::test]
async fn hostile_pictures_are_refused_by_name() {
    let router = router().await;
    let whole = picture(8, 8);
    let cut = &whole[..whole.len() / 2];
    let table = [
        (base64(claimed(30_000, 30_000)), 413, "picture_too_large", "30000x30000, more than 65536 pixels"),
        (base64(claimed(u32::MAX >> 1, u32::MAX >> 1)), 413, "picture_too_large", "2147483647x2147483647"),
        (base64(claimed(0, 8)), 422, "invalid_request", "no PNG, JPEG or WebP"),
        (base64(claimed(8, 8)), 422, "invalid_request", "no PNG, JPEG or WebP"),
        (cut.to_owned(), 422, "invalid_request", "`init_image`"),
        (base64(b"GIF89a\x01\0\x01\0\0\0\0;"), 422, "invalid_request", "begins like none"),
        (base64(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>"), 422, "invalid_request", "begins like none"),
        (base64(b"BM\0\0"), 422, "invalid_request", "begins like none"),
        (String::new(), 422, "invalid_request", "begins like none"),
        ("data:image/png;base64".to_owned(), 422, "invalid_request", "not base64"),
        (format!("data:image/png,{whole}"), 422, "invalid_request", "not base64"),
        (format!("data:;base64;{whole}"), 422, "invalid_request", "not base64"),
        (format!("data:image/png;base64,{whole},{whole}"), 422, "invalid_request", "not base64"),
        (format!("{whole}\u{0}"), 422, "invalid_request", "not base64"),
        (whole.replace('/', "_"), if whole.contains('/') { 422 } else { 200 }, "invalid_request", "not base64"),
        ("file:///etc/passwd".to_owned(), 422, "invalid_request", "not base64"),
        ("http://169.254.169.254/latest/meta-data".to_owned(), 422, "invalid_request", "not base64"),
        ("======".to_owned(), 422, "invalid_request", "not base64"),
        ("🐈".repeat(1000), 422, "invalid_request", "not base64"),
    ];
    for (text, status, code, said) in table {
        let shown = text.chars().take(40).collect::<String>();
        for path in ["/v1/img2img", "/v1/estimate"] {
            let body = json!({ "task": "img2img", "steps": 2, "init_image": text });
            let mut body = body;
            if path == "/v1/img2img" {
                body.as_object_mut().unwrap().remove("task");
            }
            let answer = post(&router, path, body.to_string()).await;
            assert_eq!(answer.status.as_u16(), status, "{shown}");
            if status != 200 {
                assert_eq!((answer.code().as_str(), answer.fields()), (code, vec!["init_image".to_owned()]), "{shown}");
                let message = answer.json()["error"]["violations"][0]["message"].as_str().unwrap().to_owned();
                assert!(message.contains(said) && answer.body.len() < 2000, "{shown}: {message}");
            }
        }
    }
    for text in [
        format!("data:image/png;base64,{whole}"),
        format!("DATA:IMAGE/PNG;BASE64,{whole}"),
        format!("data:;base64,{whole}"),
        format!("data:text/html;charset=utf-8;base64,{whole}"),
        format!(" \n{whole}\r\n"),
        format!("\tdata:image/png;base64, {whole}"),
        whole.trim_end_matches('=').to_owned(),
    ] {
        let answer = post(&router, "/v1/img2img", json!({ "steps": 2, "init_image": text }).to_string()).await;
        assert_eq!(answer.status, 200, "{text}");
    }
}

#[tokio::test]
async fn what_texts_unpack_to_is_bounded() {
    let router = router().await;
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_ztxt_chunk("parameters".to_owned(), "x".repeat(8 << 20)).unwrap();
    encoder.write_header().unwrap().write_image_data(&[7; 192]).unwrap();
    assert!(bomb.len() < 40_000, "{}", bomb.len());
    // Who wants the pixels does not unpack the texts.
    let body = json!({ "steps": 2, "init_image": base64(&bomb) });
    assert_eq!(post(&router, "/v1/img2img", body.to_string()).await.status, 200);
    let answer = post(&router, "/v1/png-info", json!({ "image": base64(&bomb) }).to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec!["image".to_owned()]));
    let message = &answer.json()["error"]["violations"][0]["message"];
    assert!(message.as_str().unwrap().contains("its text \"parameters\" does not unpack"), "{message}");
}
