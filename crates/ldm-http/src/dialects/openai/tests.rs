//! OpenAI's dialect on the fake device.

use axum::body::Body;
use axum::http::{Request, header};
use ldm_engine::fake::FakeExecutor;
use serde_json::{Value, json};

use crate::codec::{Encoding, Format, base64, encode};
use crate::testing::{Answer, form, get, house, post, send};
use crate::{app, read_picture};

const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";

async fn generate(body: Value) -> Answer {
    post(&house().await.0, GENERATIONS, body.to_string()).await
}

async fn edit(parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
    let (kind, body) = form(parts);
    let request = Request::post(EDITS).header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
    send(&house().await.0, request).await
}

/// A PNG whose left half is transparent, or of which nothing is.
fn picture(width: u32, height: u32, transparent: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().unwrap();
    let alpha = |x: u32| if transparent && x < width / 2 { 0 } else { 255 };
    let pixels: Vec<u8> = (0..height).flat_map(|_| (0..width).flat_map(|x| [9, 9, 9, alpha(x)])).collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    file
}

fn opaque(width: u32, height: u32) -> Vec<u8> {
    let raster = ldm_core::Raster::filled(width, height, [9; 3]);
    encode(&raster, Encoding { format: Format::Png, quality: None }, None).unwrap()
}

fn decoded(image: &Value) -> ldm_core::Raster {
    crate::codec::decode(image["b64_json"].as_str().unwrap(), 1 << 20).unwrap()
}

#[tokio::test]
async fn a_generation_looks_like_openais() {
    let body = json!({
        "prompt": "two words", "n": 2, "size": "64x128", "response_format": null, "user": "me", "model": "fake", "seed": 5,
        "num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "dogs", "moderation": "low", "unknown": [1],
    });
    let answer = generate(body).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(answer.header("x-job-id").split(',').count(), 2);
    let json = answer.json();
    assert!(json["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&json["size"], &json["output_format"], &json["background"]), (&json!("64x128"), &json!("png"), &json!("opaque")));
    let usage = json!({
        "input_tokens": 3, "input_tokens_details": { "text_tokens": 3, "image_tokens": 0 }, "output_tokens": 64, "total_tokens": 67
    });
    assert_eq!(json["usage"], usage);
    for (image, seed) in json["data"].as_array().unwrap().iter().zip([5, 6]) {
        assert_eq!(decoded(image), FakeExecutor::picture(seed, 64, 128));
        assert_eq!((&image["seed"], image.get("url")), (&json!(seed), None));
    }
}

#[tokio::test]
async fn a_url_is_a_data_url_and_formats_are_kept() {
    let answer = generate(json!({ "prompt": "x", "response_format": "url", "output_format": "webp", "seed": 1 })).await.json();
    let url = answer["data"][0]["url"].as_str().unwrap();
    assert!(url.starts_with("data:image/webp;base64,UklGR"), "{url}");
    assert_eq!(crate::codec::decode(url, 1 << 20).unwrap(), FakeExecutor::picture(1, 64, 64));
    let jpeg = generate(json!({ "prompt": "x", "output_format": "jpeg", "output_compression": 0 })).await.json();
    assert!(jpeg["data"][0]["b64_json"].as_str().unwrap().starts_with("/9j/"));
}

#[tokio::test]
async fn what_is_wrong_is_named_by_openais_names() {
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({ "prompt": "x", "n": 0 }), "n"),
        (json!({ "prompt": "x", "n": 11 }), "n"),
        (json!({ "prompt": "x", "n": 9 }), "n"),
        (json!({ "prompt": "x", "n": "two" }), "n"),
        (json!({ "prompt": "x", "size": "big" }), "size"),
        (json!({ "prompt": "x", "size": "65x64" }), "width"),
        (json!({ "prompt": "x", "num_inference_steps": 0 }), "num_inference_steps"),
        (json!({ "prompt": "x", "guidance_scale": 1e9 }), "guidance_scale"),
        (json!({ "prompt": "x", "sampler": "none" }), "sampler"),
        (json!({ "prompt": "x", "scheduler": "none" }), "scheduler"),
        (json!({ "prompt": "x", "output_format": "gif" }), "output_format"),
        (json!({ "prompt": "x", "output_compression": 101 }), "output_compression"),
        (json!({ "prompt": "x", "response_format": "file" }), "response_format"),
        (json!({ "prompt": "x", "background": "transparent" }), "background"),
        (json!({ "prompt": "x", "partial_images": 4 }), "partial_images"),
        (json!({ "prompt": "x".repeat(5000) }), "prompt"),
    ] {
        let answer = generate(body.clone()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), &error["param"]), (400, &json!(param)), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(&format!("`{param}`")), "{error}");
    }
    let unknown = generate(json!({ "prompt": "x", "model": "dall-e-9" })).await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "model_not_found"));
    let failed = generate(json!({ "prompt": "!nan@1" })).await;
    assert_eq!((failed.status.as_u16(), failed.header("x-should-retry")), (500, "false"));
    assert_eq!(failed.json()["error"]["type"], "server_error");
}

#[tokio::test]
async fn an_edit_paints_where_the_mask_is_transparent() {
    let (image, mask) = (opaque(64, 64), picture(64, 64, true));
    let answer = edit(&[
        ("image", Some("image.png"), &image),
        ("mask", Some("mask.png"), &mask),
        ("prompt", None, b"a cat"),
        ("n", None, b"1"),
        ("seed", None, b"3"),
        ("model", None, b""),
    ])
    .await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(decoded(&answer.json()["data"][0]), FakeExecutor::picture(3, 64, 64));

    // Without a mask the picture's own transparency is one, and without that all of it is painted over.
    for image in [picture(64, 64, true), picture(64, 64, false)] {
        let answer = edit(&[("image[]", Some("image.png"), &image), ("prompt", None, b"a cat")]).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!(answer.json()["usage"]["input_tokens_details"]["image_tokens"], 16);
    }
}

#[tokio::test]
async fn wrong_edits_are_refused() {
    let (image, small, plain) = (opaque(64, 64), picture(32, 32, true), opaque(64, 64));
    let prompt = ("prompt", None, b"x".as_slice());
    for (parts, param) in [
        (vec![prompt], "image"),
        (vec![prompt, ("image", Some("i"), &image[..]), ("mask", Some("m"), &small[..])], "mask"),
        (vec![prompt, ("image", Some("i"), &image[..]), ("mask", Some("m"), &plain[..])], "mask"),
        (vec![prompt, ("image", Some("i"), &b"GIF89a"[..])], "image"),
        (vec![prompt, ("image[]", Some("i"), &image[..]), ("image[]", Some("j"), &image[..])], "image"),
        (vec![("image", Some("i"), &image[..])], "prompt"),
        (vec![prompt, ("image", Some("i"), &image[..]), ("n", None, b"two")], "n"),
        (vec![prompt, ("picture", Some("i"), &image[..])], "picture"),
    ] {
        let answer = edit(&parts).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!(param)), "{}", answer.json());
    }
}

#[tokio::test]
async fn edits_in_json_take_data_urls_alone() {
    let router = house().await.0;
    let url = format!("data:image/png;base64,{}", base64(opaque(64, 64)));
    let body = json!({ "prompt": "x", "seed": 2, "images": [{ "image_url": url }] });
    let answer = post(&router, EDITS, body.to_string()).await;
    assert_eq!(decoded(&answer.json()["data"][0]), FakeExecutor::picture(2, 64, 64));
    for image in [json!({ "image_url": "http://169.254.169.254/" }), json!({ "file_id": "file-1" }), json!({})] {
        let answer = post(&router, EDITS, json!({ "prompt": "x", "images": [image] }).to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!("images[0]")), "{}", answer.json());
    }
}

/// Names and data of a stream's events.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let event = |block: &str| {
        let name = block.lines().find_map(|line| line.strip_prefix("event: "))?;
        let data = block.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some((name.to_owned(), serde_json::from_str(data).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn a_stream_ends_with_each_picture_completed() {
    let answer = generate(json!({ "prompt": "x", "stream": true, "partial_images": 0, "n": 2, "seed": 7 })).await;
    let events = events(&answer);
    assert_eq!(events.len(), 2, "{events:?}");
    for (name, data) in &events {
        assert_eq!((name.as_str(), &data["type"]), ("image_generation.completed", &json!("image_generation.completed")));
        let index = data["image_index"].as_u64().unwrap();
        assert_eq!(decoded(data), FakeExecutor::picture(7 + index, 64, 64));
        assert!(data["usage"]["total_tokens"].is_number() && data["created_at"].is_number());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_pictures_come_before_the_last() {
    let image = opaque(64, 64);
    let answer = edit(&[
        ("image", Some("i.png"), &image),
        ("prompt", None, b"x"),
        ("stream", None, b"True"),
        ("partial_images", None, b"2"),
        ("num_inference_steps", None, b"30"),
    ])
    .await;
    let events = events(&answer);
    let (last, partial) = events.split_last().unwrap();
    assert_eq!(last.0, "image_edit.completed");
    // Progress may be skipped when it comes faster than it is read.
    assert!(partial.len() <= 2, "{events:?}");
    for (index, (name, data)) in partial.iter().enumerate() {
        assert_eq!((name.as_str(), &data["partial_image_index"]), ("image_edit.partial_image", &json!(index)));
        assert!(read_picture(&base64_bytes(data), 1 << 20).is_ok());
    }
}

fn base64_bytes(data: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(data["b64_json"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_failure_in_a_stream_is_its_last_event() {
    let answer = generate(json!({ "prompt": "!nan@1", "stream": true })).await;
    let events = events(&answer);
    assert_eq!((answer.status.as_u16(), events.len(), events[0].0.as_str()), (200, 1, "error"));
    assert_eq!(events[0].1["error"]["code"], "not_finite");
    let refused = generate(json!({ "prompt": "x", "stream": true, "n": 0 })).await;
    assert_eq!(refused.status, 400, "what is wrong from the start is no stream");
}

#[tokio::test]
async fn models_are_listed_as_openais() {
    let router = app(crate::testing::ready().await.0);
    let list = get(&router, "/v1/models").await.json();
    assert_eq!(
        (&list["object"], &list["data"][0]["id"], &list["data"][0]["object"]),
        (&json!("list"), &json!("fake"), &json!("model"))
    );
    assert_eq!(get(&router, "/v1/models/fake").await.json(), list["data"][0]);
    let none = get(&router, "/v1/models/none").await;
    assert_eq!((none.status.as_u16(), none.code().as_str()), (404, "model_not_found"));
}
