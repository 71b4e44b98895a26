//! The dialect through the router, against a fake device: what is refused and how, and what an answer holds.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use ldm_core::Task;
use ldm_engine::Limits;
use ldm_engine::fake::FakeOptions;
use serde_json::{Value, json};

use crate::app;
use crate::codec::base64;
use crate::testing::{get, post, ready, send, started};

/// A picture of that size, as requests carry it.
pub(super) fn picture(width: u32, height: u32) -> String {
    base64(crate::testing::picture(width, height))
}

async fn router() -> Router {
    app(ready().await.0)
}

#[tokio::test]
async fn every_field_is_checked_and_named() {
    let router = router().await;
    let long = "x".repeat(4001);
    let (txt, img) = ("/v1/txt2img", "/v1/img2img");
    let table = [
        (txt, "model", json!("other")),
        (txt, "model", json!(1)),
        (txt, "prompt", json!(long)),
        (txt, "prompt", json!(["a cat"])),
        (txt, "negative_prompt", json!(long)),
        (txt, "negative_prompt", json!({})),
        (txt, "width", json!(63)),
        (txt, "width", json!(2048)),
        (txt, "width", json!("64")),
        (txt, "height", json!(-8)),
        (txt, "height", json!(64.5)),
        (txt, "steps", json!(0)),
        (txt, "steps", json!(151)),
        (txt, "steps", json!("20")),
        (txt, "steps", json!(1e300)),
        (txt, "sampler", json!("uniform")),
        (txt, "sampler", json!(false)),
        (txt, "schedule", json!("linear")),
        (txt, "schedule", json!(3)),
        (txt, "guidance", json!(-1)),
        (txt, "guidance", json!(51)),
        (txt, "guidance", json!("7")),
        (txt, "eta", json!(-0.5)),
        (txt, "eta", json!(0.5)),
        (txt, "eta", json!([])),
        (txt, "seed", json!(-2)),
        (txt, "seed", json!(1u64 << 53)),
        (txt, "seed", json!(u64::MAX)),
        (txt, "seed", json!("1")),
        (txt, "loras", json!("ink")),
        (txt, "loras[0].name", json!([{}])),
        (txt, "loras[0].name", json!(["ink"])),
        (txt, "loras[0].name", json!([{"name": 1}])),
        (txt, "loras[0].name", json!([{"name": "other"}])),
        (txt, "loras[1].name", json!([{"name": "ink"}, {"name": "ink"}])),
        (txt, "loras[1].strength", json!([{"name": "ink"}, {"name": "moss", "strength": 4.5}])),
        (txt, "loras[0].strength", json!([{"name": "ink", "strength": "half"}])),
        (txt, "loras[0].weight", json!([{"name": "ink", "weight": 0.5}])),
        (txt, "images", json!(0)),
        (txt, "images", json!(9)),
        (txt, "images", json!(true)),
        (txt, "preview_every", json!(0)),
        (txt, "preview_every", json!("no")),
        (txt, "format", json!("gif")),
        (txt, "format", json!(1)),
        (txt, "priority", json!("urgent")),
        (txt, "priority", json!(1)),
        (txt, "deadline_ms", json!(0)),
        (txt, "deadline_ms", json!(86_400_001)),
        (img, "deadline_ms", json!(1.5)),
        (txt, "quality", json!(0)),
        (txt, "quality", json!(101)),
        (txt, "quality", json!("best")),
        (txt, "init_image", json!(picture(8, 8))),
        (txt, "strength", json!(0.5)),
        (txt, "strength", json!("half")),
        (img, "init_image", json!(7)),
        (img, "init_image", json!("%%%")),
        (img, "init_image", json!("aGVsbG8=")),
        (img, "init_image", json!("data:image/png;base64,")),
        (img, "init_image", json!("https://example.org/cat.png")),
        (img, "init_image", Value::Null),
        (img, "strength", json!(0)),
        (img, "strength", json!(1.01)),
        (img, "strength", json!(0.001)),
        (img, "strength", json!("half")),
    ];
    for (path, field, value) in table {
        let mut body = json!({ "prompt": "a cat", "steps": 2 });
        if path == img {
            body["init_image"] = json!(picture(8, 8));
        }
        body[field.split('[').next().unwrap()] = value.clone();
        let answer = post(&router, path, body.to_string()).await;
        assert_eq!(answer.status, 422, "{path} {field} = {value}");
        assert_eq!(
            (answer.code(), answer.fields()),
            ("invalid_request".to_owned(), vec![field.to_owned()]),
            "{path} {field} = {value}"
        );
        let violation = &answer.json()["error"]["violations"][0];
        assert!(violation["limit"].is_string() && violation["message"].as_str().unwrap().contains(field), "{violation}");
    }
}

#[tokio::test]
async fn one_answer_lists_all_that_is_wrong() {
    let body = json!({
        "model": "other", "width": 1, "steps": "many", "guidance": 99, "init_image": "%%%", "strength": 2, "stepz": 3, "format": "gif",
    });
    let answer = post(&router().await, "/v1/img2img", body.to_string()).await;
    let mut fields = answer.fields();
    fields.sort();
    assert_eq!(fields, ["format", "guidance", "init_image", "model", "steps", "stepz", "strength", "width"]);
}

#[tokio::test]
async fn unknown_fields_hear_the_nearest_name() {
    let router = router().await;
    let table = [
        ("stpes", Some("steps")),
        ("negativePrompt", Some("negative_prompt")),
        ("cfg_scale", Some("guidance")),
        ("num_inference_steps", Some("steps")),
        ("scheduler", Some("schedule")),
        ("n", Some("images")),
        ("zzz", None),
    ];
    for (field, nearest) in table {
        let answer = post(&router, "/v1/txt2img", json!({ field: 1 }).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field.to_owned()]));
        let message = answer.json()["error"]["violations"][0]["message"].as_str().unwrap().to_owned();
        match nearest {
            Some(name) => assert!(message.contains(&format!("`{name}`")), "{message}"),
            None => assert!(!message.contains("did you mean"), "{message}"),
        }
    }
}

#[tokio::test]
async fn null_is_the_same_as_nothing() {
    let fields = [
        "model",
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "steps",
        "sampler",
        "schedule",
        "guidance",
        "eta",
        "loras",
        "images",
        "preview_every",
        "format",
        "quality",
        "priority",
        "deadline_ms",
        "strength",
        "init_image",
    ];
    let mut body: serde_json::Map<String, Value> = fields.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
    body.insert("seed".to_owned(), json!(5));
    let router = router().await;
    let nulls = post(&router, "/v1/txt2img", Value::Object(body).to_string()).await;
    let nothing = post(&router, "/v1/txt2img", r#"{"seed": 5.0}"#).await;
    assert_eq!(nulls.status, 200, "{}", nulls.json());
    assert_eq!(nulls.json()["parameters"], nothing.json()["parameters"]);
    assert_eq!(nulls.json()["images"][0]["b64"], nothing.json()["images"][0]["b64"]);
}

#[tokio::test]
async fn loras_are_listed_and_come_back() {
    let router = router().await;
    let models = get(&router, "/v1/models").await.json();
    assert_eq!(models["models"][0]["loras"], json!(["ink", "moss"]));
    let body = json!({ "seed": 5, "loras": [{"name": "moss"}, {"name": "ink", "strength": -0.5}] });
    let answer = post(&router, "/v1/txt2img", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let parameters = &answer.json()["parameters"];
    assert_eq!(parameters["loras"], json!([{"name": "moss", "strength": 1.0}, {"name": "ink", "strength": -0.5}]));
    // The count, once, and the seven that repeat the first.
    let many = post(&router, "/v1/txt2img", json!({ "loras": vec![json!({"name": "ink"}); 900] }).to_string()).await;
    assert_eq!((many.fields()[0].as_str(), many.fields().len()), ("loras", 8));
    let again = post(&router, "/v1/txt2img", parameters.to_string()).await;
    assert_eq!(again.json()["parameters"], *parameters);
}

#[tokio::test]
async fn bodies_that_are_no_requests() {
    let router = router().await;
    let table: [(&[u8], u16, &str); 7] = [
        (b"", 400, "malformed_json"),
        (b"{\"steps\": }", 400, "malformed_json"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b"{} {}", 400, "malformed_json"),
        (b"{\"guidance\": 1e999}", 422, "invalid_request"),
        (b"[1]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
    ];
    for (body, status, code) in table {
        let answer = post(&router, "/v1/txt2img", body.to_vec()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{}", String::from_utf8_lossy(body));
    }
    let placed = post(&router, "/v1/txt2img", "{\n  \"steps\": }").await;
    assert!(placed.json()["error"]["message"].as_str().unwrap().contains("line 2 column 12"), "{}", placed.json());
    let nested = post(&router, "/v1/txt2img", "[".repeat(10_000)).await;
    assert_eq!(nested.code(), "malformed_json");
    let large = post(&router, "/v1/txt2img", format!("{{\"prompt\": \"{}\"}}", "x".repeat(70_000))).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "body_too_large"));
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")] {
        let mut request = Request::post("/v1/txt2img");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let answer = send(&router, request.body(Body::from("{}")).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"), "{kind:?}");
    }
    let charset = Request::post("/v1/txt2img").header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(send(&router, charset.body(Body::from("{}")).unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_picture_over_the_limit_is_413_and_the_rest_is_listed_too() {
    let body = json!({ "init_image": picture(257, 256), "steps": 0 });
    let answer = post(&router().await, "/v1/img2img", body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "picture_too_large"));
    assert_eq!(answer.fields(), ["init_image", "steps"]);
}

#[tokio::test]
async fn parameters_say_everything_and_can_be_posted_back() {
    let router = router().await;
    let asked = json!({
        "prompt": "a cat", "negative_prompt": "dogs", "sampler": "DPM++ 2M Karras", "guidance": 0.1 + 0.2, "images": 2, "steps": 3,
        "format": "jpeg", "init_image": picture(8, 8), "strength": 0.7, "seed": 9_007_199_254_740_991_i64,
    });
    let answer = post(&router, "/v1/img2img", asked.to_string()).await.json();
    let expected = json!({
        "model": "fake", "prompt": "a cat", "negative_prompt": "dogs", "width": 64, "height": 64, "steps": 3, "sampler": "dpmpp_2m",
        "schedule": "karras", "guidance": 0.1 + 0.2, "eta": 0.0, "seed": 9_007_199_254_740_991_i64, "images": 2, "strength": 0.7,
        "rounding": "round", "format": "jpeg", "quality": 90,
    });
    assert_eq!(answer["parameters"], expected);
    assert_eq!((&answer["images"][1]["seed"], &answer["images"][1]["mime"]), (&json!(0), &json!("image/jpeg")));
    assert_eq!(answer["ids"][1], answer["images"][1]["id"]);
    assert!(answer["total_ms"].is_number() && answer["images"][0]["timings"]["steps_ms"].is_number());

    let mut again = answer["parameters"].clone();
    again["init_image"] = asked["init_image"].clone();
    let again = post(&router, "/v1/img2img", again.to_string()).await.json();
    for i in 0..2 {
        assert_eq!(again["images"][i]["b64"], answer["images"][i]["b64"]);
    }
    assert_eq!(again["parameters"], answer["parameters"]);
}

#[tokio::test]
async fn the_accepted_form_is_given() {
    let router = router().await;
    let ask = async |accept: &str, body: Value| {
        let request =
            Request::post("/v1/txt2img").header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, accept);
        send(&router, request.body(Body::from(body.to_string())).unwrap()).await
    };
    for (accept, said, mime, magic) in [
        ("image/png", Value::Null, "image/png", &b"\x89PNG"[..]),
        ("image/*", Value::Null, "image/png", b"\x89PNG"),
        ("image/*", json!("webp"), "image/webp", b"RIFF"),
        ("image/jpeg", json!("jpg"), "image/jpeg", b"\xff\xd8\xff"),
        ("image/webp", Value::Null, "image/webp", b"RIFF"),
    ] {
        let answer = ask(accept, json!({ "seed": 3, "format": said })).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, mime), "{accept}");
        assert!(answer.body.starts_with(magic), "{accept}");
        assert_eq!((answer.header("x-seed"), answer.header("x-job-id").len()), ("3", 36));
    }
    assert_eq!(ask("image/png", json!({ "format": "webp" })).await.fields(), ["format"]);
    assert_eq!(ask("image/png", json!({ "images": 2 })).await.fields(), ["images"]);
    let refused = ask("text/html", json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (406, "not_acceptable"));
}

#[tokio::test]
async fn failures_carry_their_reason() {
    let router = router().await;
    for (prompt, status, code) in [
        ("!panic@1", 500, "panicked"),
        ("!nan@decode", 500, "not_finite"),
        ("!fail@prepare", 500, "out_of_memory"),
        ("!unsupported@price", 422, "unsupported"),
    ] {
        let answer = post(&router, "/v1/txt2img", json!({ "prompt": prompt, "images": 2 }).to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{prompt}");
        assert_eq!(answer.header("x-job-id").split(',').count(), 2);
        assert_eq!(answer.headers.contains_key("x-should-retry"), status == 500);
    }
    let more = started(Limits { queue: 1, running: 1, ..Limits::default() }, FakeOptions::default()).0;
    more.service.wait_ready().await.unwrap();
    let answer = post(&app(more), "/v1/txt2img", r#"{"images": 2}"#).await;
    assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec!["images".to_owned()]));
}

#[tokio::test]
async fn models_and_samplers_are_listed() {
    let router = router().await;
    let models = get(&router, "/v1/models").await.json();
    let tasks = json!(Task::ALL.map(Task::name));
    assert_eq!((&models["models"][0]["id"], &models["models"][0]["tasks"]), (&json!("fake"), &tasks));
    assert_eq!((&models["models"][0]["defaults"]["width"], &models["bounds"]["images"]), (&json!(64), &json!(8)));
    let samplers = get(&router, "/v1/samplers").await.json();
    assert_eq!(samplers["samplers"][4]["label"], "DPM++ 2M");
    assert_eq!(samplers["samplers"][4]["aliases"][0], json!({ "name": "DPM++ 2M Karras", "schedule": "karras" }));
}
