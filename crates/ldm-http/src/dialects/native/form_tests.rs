//! Forms through the router: the same fields as in JSON, with the same answers, and pictures as files.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

use crate::app;
use crate::testing::{Answer, Parts, form, picture, post, ready, send};

async fn ask(router: &Router, path: &str, parts: &Parts<'_>) -> Answer {
    let (kind, body) = form(parts);
    send(router, Request::post(path).header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_form_says_what_json_says() {
    let router = app(ready().await.0);
    let file = picture(8, 8);
    let said = [
        ("prompt", None, "a cat, 3".as_bytes()),
        ("negative_prompt", None, b"3"),
        ("steps", None, b"3"),
        ("seed", None, b"7.0"),
        ("guidance", None, b" 2.5"),
        ("strength", None, b"0.5"),
        ("width", None, b""),
        ("loras", None, br#"[{"name": "ink", "strength": 0.5}]"#),
        ("format", None, b"webp"),
        ("init_image", Some("cat.png"), file.as_slice()),
    ];
    let form = ask(&router, "/v1/img2img", &said).await;
    assert_eq!(form.status, 200, "{}", form.json());
    let body = json!({
        "prompt": "a cat, 3", "negative_prompt": "3", "steps": 3, "seed": 7, "guidance": 2.5, "strength": 0.5, "format": "webp",
        "loras": [{"name": "ink", "strength": 0.5}], "init_image": crate::codec::base64(&file),
    });
    let json = post(&router, "/v1/img2img", body.to_string()).await;
    assert_eq!(form.json()["parameters"], json.json()["parameters"]);
    assert_eq!(form.json()["images"][0]["b64"], json.json()["images"][0]["b64"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_form_has_the_names_that_json_has() {
    let router = app(ready().await.0);
    let base64 = crate::codec::base64(picture(8, 8));
    type Row<'a> = (&'a str, Option<&'a str>, &'a [u8], u16, &'a str);
    let table: [Row<'_>; 12] = [
        ("steps", None, b"many", 422, "steps"),
        ("steps", None, b"2.5", 422, "steps"),
        ("steps", None, b"\"2\"", 422, "steps"),
        ("prompt", None, b"\xff", 422, "prompt"),
        ("prompt", Some("prompt.txt"), b"\xff", 422, "prompt"),
        ("loras", None, b"ink", 422, "loras"),
        ("loras", Some("loras.json"), br#"[{"name": "other"}]"#, 422, "loras[0].name"),
        ("stepz", None, b"3", 422, "stepz"),
        ("picture", Some("a.png"), b"\x89PNG", 422, "picture"),
        ("init_image", Some("a.png"), b"\x89PNG", 422, "init_image"),
        ("init_image", Some("a.png"), b"", 422, "init_image"),
        ("init_image", None, base64.as_bytes(), 200, ""),
    ];
    let good = picture(8, 8);
    for (field, filename, bytes, status, wrong) in table {
        let mut parts = vec![(field, filename, bytes)];
        if field != "init_image" {
            parts.push(("init_image", Some("cat.png"), &good));
        }
        let answer = ask(&router, "/v1/img2img", &parts).await;
        assert_eq!(answer.status.as_u16(), status, "{field}: {}", answer.json());
        if status != 200 {
            assert_eq!(answer.fields(), [wrong], "{}", answer.json());
        }
    }
    let twice = ask(&router, "/v1/txt2img", &[("steps", None, b"2"), ("steps", None, b"3")]).await;
    assert_eq!((twice.status.as_u16(), twice.fields()), (422, vec!["steps".to_owned()]));
    let large = ask(&router, "/v1/img2img", &[("init_image", Some("a.png"), &picture(257, 256)), ("steps", None, b"0")]).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "picture_too_large"));
    assert_eq!(large.fields(), ["init_image", "steps"]);
    let larger = ask(&router, "/v1/img2img", &[("init_image", Some("a.png"), &[0; 70_000])]).await;
    assert_eq!((larger.status.as_u16(), larger.code().as_str()), (413, "body_too_large"));
}
