//! The service under load, seen from outside: terms, refusals, estimates, where the time went, what is measured.

use std::collections::BTreeSet;

use base64::Engine;
use ldm_engine::Limits;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::{Answer, fetch_with, head};
use crate::house::House;

/// The first violation's field, limit and value.
fn violation(answer: &Answer) -> [Value; 3] {
    let json = answer.json();
    ["field", "limit", "value"].map(|key| json["error"]["violations"][0][key].clone())
}

/// The refusal's code; its `Retry-After` must be what the body says, in whole seconds.
fn later(answer: &Answer) -> String {
    let ms = answer.json()["error"]["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("no time: {}", answer.text()));
    assert_eq!(answer.header("retry-after").parse(), Ok(ms.div_ceil(1000).max(1)), "{}", answer.text());
    answer.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_are_taken_and_bounded() {
    let house = House::ready(Limits::default()).await;
    let good = json!({ "steps": 1, "priority": "batch", "deadline_ms": 60_000 });
    assert_eq!(house.post("/v1/txt2img", "*/*", good).await.status, 200);
    house.counted(r#"latentd_jobs_accepted_total{priority="batch",task="txt2img"} 1"#).await;
    for (field, value, limit) in [
        ("priority", json!("urgent"), "interactive, batch"),
        ("priority", json!(1), "a string"),
        ("deadline_ms", json!(0), "1..=86400000"),
        ("deadline_ms", json!(86_400_001), "1..=86400000"),
        ("deadline_ms", json!("soon"), "a whole number"),
    ] {
        for path in ["/v1/txt2img", "/v1/estimate"] {
            let mut body = json!({ field: value });
            if path == "/v1/estimate" {
                body["task"] = json!("txt2img");
            }
            let answer = house.post(path, "*/*", body).await;
            let said = value.as_str().map_or(value.to_string(), str::to_owned);
            let [named, bound, given] = violation(&answer);
            assert_eq!((answer.status, named, bound), (422, json!(field), json!(limit)), "{path} {value}");
            assert_eq!(given.as_str().unwrap().trim_matches('"'), said, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    let mut house = House::ready(Limits { running: 1, ..Limits::default() }).await;
    // Never measured, so it is thought to take a good while.
    let hopeless = house.post("/v1/txt2img", "*/*", json!({ "steps": 150, "width": 512, "height": 512, "deadline_ms": 5 })).await;
    assert_eq!((hopeless.status, hopeless.header("retry-after")), (422, ""));
    let [field, limit, value] = violation(&hopeless);
    assert_eq!((field, value), (json!("deadline_ms"), json!("5")));
    assert!(limit.as_str().unwrap().starts_with("at least "), "{limit}");

    house.control.steps.close();
    let large = json!({ "steps": 150, "width": 512, "height": 512 });
    let running = house.sent("/v1/txt2img", "*/*", large.clone()).await;
    house.load_is(0, 1).await;
    let waiting = house.sent("/v1/txt2img", "*/*", large).await;
    house.load_is(1, 1).await;
    let behind = house.post("/v1/txt2img", "*/*", json!({ "steps": 1, "deadline_ms": 1000 })).await;
    assert_eq!((behind.status, later(&behind).as_str()), (429, "deadline_unreachable"));
    house.control.steps.open();
    assert_eq!((head(running).await.status, head(waiting).await.status), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_ends_the_job() {
    let mut house = House::ready(Limits { running: 1, ..Limits::default() }).await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 20 })).await;
    house.control.steps.close();
    let late = house.sent("/v1/txt2img", "*/*", json!({ "steps": 5, "deadline_ms": 400 })).await;
    house.load_is(0, 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(450)).await;
    house.control.steps.open();
    assert_eq!(head(late).await.status, 504);
    house.counted(r#"latentd_jobs_total{model="fake",outcome="failed",reason="deadline_exceeded",task="txt2img"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bound_has_its_own_word() {
    let mut house = House::ready(Limits { per_tenant: 1, bytes: 20_000, ..Limits::default() }).await;
    house.control.steps.close();
    let first = house.sent("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    house.load_is(0, 1).await;
    let tenant = house.post("/v1/txt2img", "*/*", json!({ "steps": 1, "width": 64 })).await;
    // Both bounds are in the way; bytes are looked at first.
    assert_eq!((tenant.status, later(&tenant).as_str()), (429, "no_memory_for_pictures"));
    let never = house.post("/v1/txt2img", "*/*", json!({ "width": 512, "height": 512 })).await;
    assert_eq!((never.status, never.header("retry-after")), (422, ""), "waiting does not help");
    house.control.steps.open();
    assert_eq!(head(first).await.status, 200);

    let mut house = House::ready(Limits { per_tenant: 1, ..Limits::default() }).await;
    house.control.steps.close();
    let first = house.sent("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    house.load_is(0, 1).await;
    let second = house.post("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    assert_eq!((second.status, later(&second).as_str()), (429, "too_many_jobs"));
    house.control.steps.open();
    assert_eq!(head(first).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_runs_nothing() {
    let house = House::ready(Limits::default()).await;
    let body = json!({ "task": "txt2img", "steps": 10, "images": 3, "prompt": "a cat" });
    let answer = house.post("/v1/estimate", "*/*", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["task"], &json["model"], &json["images"]), (&json!("txt2img"), &json!("fake"), &json!(3)));
    assert_eq!((&json["rows"], &json["network_calls"]), (&json!(2), &json!(30)));
    assert_eq!(json["held_bytes"], json!(3 * (64 * 64 * 3 + "a cat".len())));
    let times = [&json["queue_ms"], &json["time_ms"]["p50"], &json["time_ms"]["p95"]].map(|time| time.as_f64().unwrap());
    assert!(times.is_sorted() && times[1] > 0.0, "{times:?}");
    assert!(house.control.calls().is_empty(), "the device was not asked");
    assert_eq!(answer.header("x-job-id"), "");

    for (task, limit) in [(Value::Null, "txt2img, img2img"), (json!("dream"), "txt2img, img2img"), (json!(1), "a string")] {
        let answer = house.post("/v1/estimate", "*/*", json!({ "task": task })).await;
        let [field, bound, _] = violation(&answer);
        assert_eq!((answer.status, field, bound), (422, json!("task"), json!(limit)));
    }
    let answer = house.post("/v1/estimate", "*/*", json!({ "task": "img2img", "steps": 0 })).await;
    let fields: Vec<_> = answer.json()["error"]["violations"].as_array().unwrap().iter().map(|it| it["field"].clone()).collect();
    assert!(fields.contains(&json!("init_image")) && fields.contains(&json!("steps")), "{fields:?}");
}

/// The names in a `Server-Timing`, each with a duration.
fn stages(text: &str) -> Vec<&str> {
    let stage = |part: &'_ str| part.split_once(";dur=").unwrap_or_else(|| panic!("{part}")).1.parse::<f64>().unwrap();
    text.split(", ").inspect(|part| assert!(stage(part) >= 0.0)).map(|part| part.split(';').next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_where_the_time_went() {
    let house = House::ready(Limits::default()).await;
    let all = ["queue", "prepare", "denoise", "decode", "image", "total"];
    for accept in ["application/json", "image/png", "image/jpeg"] {
        let answer = house.post("/v1/txt2img", accept, json!({ "steps": 2 })).await;
        assert_eq!(stages(answer.header("server-timing")), all, "{accept}");
    }
    for path in ["/livez", "/v1/models", "/nowhere", "/metrics"] {
        assert_eq!(stages(house.get(path).await.header("server-timing")), ["total"], "{path}");
    }
    assert_eq!(stages(house.post("/v1/txt2img", "*/*", json!({ "steps": 0 })).await.header("server-timing")), ["total"]);
    for (prompt, name, expected) in [("a cat", "result", &all[..]), ("!nan@1", "error", &["total"])] {
        let mut stream = house.stream("/v1/txt2img", json!({ "prompt": prompt, "steps": 2 })).await;
        let mut last = stream.event().await.unwrap();
        while let Some(event) = stream.event().await {
            last = event;
        }
        assert_eq!(last.name, name);
        assert_eq!(stages(last.data["server_timing"].as_str().unwrap()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on() {
    let house = House::ready(Limits::default()).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(fetch_with(house.at, "GET", "/livez", &[("traceparent", parent)], b"").await.header("traceparent"), parent);
    assert_eq!(fetch_with(house.at, "GET", "/livez", &[("traceparent", "nonsense")], b"").await.header("traceparent"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_what_made_it_and_what_came_out() {
    let house = House::ready(Limits::default()).await;
    let asked = json!({ "seed": 5, "steps": 2 });
    let json = house.post("/v1/txt2img", "*/*", asked.clone()).await.json();
    let file = base64::prelude::BASE64_STANDARD.decode(json["images"][0]["b64"].as_str().unwrap()).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let mut pixels = vec![0; 64 * 64 * 3];
    reader.next_frame(&mut pixels).unwrap();
    let digest: String = Sha256::digest(&pixels).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(json["images"][0]["sha256"], json!(digest));
    let weights = "0f".repeat(32);
    let engine = &json["engine"];
    assert_eq!((&engine["weights"], &engine["dtype"], &engine["device"]), (&json!(weights), &json!("f32"), &json!("cpu")));
    assert_eq!((&engine["determinism"], engine["version"].is_string()), (&json!("fast"), true));

    let raw = house.post("/v1/txt2img", "image/webp", asked).await;
    for (name, value) in [
        ("x-picture-sha256", digest.as_str()),
        ("x-model-weights", &weights),
        ("x-dtype", "f32"),
        ("x-device", "cpu"),
        ("x-determinism", "fast"),
        ("x-engine-version", engine["version"].as_str().unwrap()),
    ] {
        assert_eq!(raw.header(name), value, "{name}");
    }
    let texts = crate::texts(&file);
    let made = texts.iter().find(|(keyword, _)| keyword == "latentd-made").map(|(_, text)| text.as_str()).unwrap();
    let mut expected = engine.clone();
    expected["sha256"] = json!(digest);
    assert_eq!(serde_json::from_str::<Value>(made).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let documented: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();

    let mut house = House::ready(Limits { running: 1, ..Limits::default() }).await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 2, "prompt": "a secret !nan@2" })).await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 0 })).await;
    house.control.steps.close();
    let first = house.sent("/v1/txt2img", "*/*", json!({ "steps": 150 })).await;
    house.load_is(0, 1).await;
    let second = house.sent("/v1/txt2img", "*/*", json!({ "steps": 1, "priority": "batch" })).await;
    house.load_is(1, 1).await;
    let text = loop {
        // Between two steps the worker takes in what has come.
        house.control.steps.allow(1);
        house.control.steps.wait_blocked();
        let text = house.get("/metrics").await.text();
        if text.contains("latentd_queue_depth{priority=\"batch\",worker=\"device\"} 1") {
            break text;
        }
    };
    house.control.steps.open();
    assert_eq!((head(first).await.status, head(second).await.status), (200, 200));

    let served: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(served.difference(&documented).collect::<Vec<_>>(), Vec::<&&str>::new());
    // What has not happened has no value yet.
    let quiet = |name: &&&str| {
        ["model_load", "model_evict", "worker_re", "faults_", "connections_cut"].iter().any(|part| name.contains(part))
    };
    let missing: Vec<_> = documented.difference(&served).filter(|name| name.starts_with("latentd_") && !quiet(name)).collect();
    assert_eq!(missing, Vec::<&&str>::new(), "{text}");
    for line in [
        r#"latentd_queue_depth{priority="batch",worker="device"} 1"#,
        r#"latentd_queue_depth{priority="interactive",worker="device"} 0"#,
        r#"latentd_worker_ready{worker="device"} 1"#,
        r#"latentd_model_loaded{model="fake",worker="device"} 1"#,
        r#"latentd_model_bytes{worker="device"} 100"#,
        "latentd_wasted_steps_total 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
    let value = |name: &str| -> f64 { text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap() };
    assert!(value(r#"latentd_queue_oldest_wait_seconds{priority="batch",worker="device"}"#) > 0.0);
    assert_eq!(value(r#"latentd_outstanding_seconds{worker="device"}"#), value("latentd_backlog_seconds"));
    assert!(value("latentd_backlog_seconds") > 0.0 && value("process_resident_memory_bytes") > 1e6);
    assert!(!text.contains("secret"), "prompts are nobody's business");
}
