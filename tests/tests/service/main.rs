//! The service from outside, over real sockets, in front of a fake device.

mod admin;
mod client;
mod house;
mod load;

use base64::Engine;
use ldm_engine::Limits;
use serde_json::{Value, json};

use client::{fetch, head};
use house::House;

fn one_at_a_time() -> Limits {
    Limits { queue: 2, running: 1, ..Limits::default() }
}

async fn house() -> House {
    House::ready(Limits::default()).await
}

/// The texts in a PNG.
fn texts(file: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let wide = info.utf8_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap()));
    latin.chain(wide).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_comes_back_with_everything_that_made_it() {
    let house = house().await;
    let answer = house.post("/v1/txt2img", "*/*", json!({ "prompt": "a cat", "seed": 7, "steps": 2, "images": 3 })).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let json = answer.json();
    let ids: Vec<_> = json["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(answer.header("x-job-id"), ids.join(","));
    for (i, image) in json["images"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&image["seed"], &image["id"]), (&json!(7 + i), &json!(ids[i])));
    }
    let again = house.post("/v1/txt2img", "*/*", json["parameters"].clone()).await.json();
    assert_eq!(again["parameters"], json["parameters"]);
    for i in 0..3 {
        assert_eq!(again["images"][i]["b64"], json["images"][i]["b64"], "picture {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_picture_says_how_it_was_made() {
    let house = house().await;
    for prompt in ["a café, (red:1.2)", "猫と月"] {
        let asked = json!({ "prompt": prompt, "negative_prompt": "dogs", "sampler": "Euler Karras", "steps": 4, "guidance": 7 });
        let answer = house.post("/v1/txt2img", "image/png", asked).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "image/png"));
        let seed = answer.header("x-seed");
        let texts = texts(&answer.body);
        let text = |keyword: &str| texts.iter().find(|(known, _)| known == keyword).map(|(_, text)| text.as_str()).unwrap();
        let head = format!(
            "{prompt}\nNegative prompt: dogs\nSteps: 4, Sampler: Euler, Schedule type: Karras, CFG scale: 7, Seed: {seed}, \
             Size: 64x64, Model: fake, Version: latentd "
        );
        assert!(text("parameters").starts_with(&head), "{}", text("parameters"));
        let parameters: Value = serde_json::from_str(text("latentd")).unwrap();
        let again = house.post("/v1/txt2img", "image/png", parameters).await;
        assert_eq!(again.body, answer.body, "the parameters in a picture make it again, byte for byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_the_way_to_the_picture() {
    let mut house = House::ready(one_at_a_time()).await;
    house.control.steps.close();
    let before = house.sent("/v1/txt2img", "*/*", json!({ "seed": 1, "steps": 1 })).await;
    house.control.steps.wait_blocked();
    let asked = json!({ "seed": 2, "steps": 3, "preview_every": 2 });
    let mut stream = house.stream("/v1/txt2img", asked.clone()).await;
    assert_eq!((stream.status, stream.header("content-type")), (200, "text/event-stream"));
    assert_eq!((stream.header("cache-control"), stream.header("x-accel-buffering")), ("no-cache", "no"));
    let id = stream.header("x-job-id").to_owned();

    let queued = stream.event().await.unwrap();
    assert_eq!((queued.name.as_str(), queued.data), ("queued", json!({ "image": 0, "position": 0 })));
    house.control.steps.allow(1);
    assert_eq!(head(before).await.status, 200);

    let mut told = Vec::new();
    for step in 1..=3 {
        house.control.steps.allow(1);
        // The step is told before the next one is let through, so none is lost.
        loop {
            let event = stream.event().await.unwrap();
            let here = event.data["step"] == json!(step) && event.name == "progress";
            told.push((event.name, event.data));
            if here || told.last().unwrap().0 == "result" {
                break;
            }
        }
    }
    let mut result = told.iter().find(|(name, _)| name == "result").cloned();
    while let Some(event) = stream.event().await {
        assert!(result.is_none(), "nothing comes after the result");
        if event.name == "result" {
            result = Some((event.name.clone(), event.data.clone()));
        }
        told.push((event.name, event.data));
    }
    let steps: Vec<_> = told.iter().filter(|(_, data)| data["stage"] == "step").map(|(_, data)| data["step"].clone()).collect();
    assert!(steps.starts_with(&[json!(1), json!(2)]), "{steps:?}");
    let previews: Vec<_> = told.iter().filter(|(name, _)| name == "preview").map(|(_, data)| data).collect();
    assert_eq!((previews.len(), &previews[0]["step"], &previews[0]["mime"]), (1, &json!(2), &json!("image/jpeg")));
    let result = result.expect("a result").1;
    assert_eq!(result["ids"], json!([id]));

    house.control.steps.open();
    let synchronous = house.post("/v1/txt2img", "*/*", asked).await.json();
    assert_eq!(result["images"][0]["b64"], synchronous["images"][0]["b64"]);
    assert_eq!(result["parameters"], synchronous["parameters"]);
    house.load_is(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_pictures_ends_once() {
    let house = house().await;
    let mut stream = house.stream("/v1/txt2img", json!({ "seed": 1, "steps": 2, "images": 3 })).await;
    let mut last = stream.event().await.unwrap();
    while let Some(event) = stream.event().await {
        assert!(["queued", "progress"].contains(&last.name.as_str()), "{last:?}");
        last = event;
    }
    assert_eq!((last.name.as_str(), last.data["images"].as_array().unwrap().len()), ("result", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_ends_with_the_error() {
    let mut house = house().await;
    let mut stream = house.stream("/v1/txt2img", json!({ "prompt": "!nan@2", "images": 2 })).await;
    let request = stream.header("x-request-id").to_owned();
    let mut last = None;
    while let Some(event) = stream.event().await {
        last = Some(event);
    }
    let last = last.unwrap();
    assert_eq!((last.name.as_str(), &last.data["error"]["code"]), ("error", &json!("not_finite")));
    assert_eq!(last.data["error"]["request_id"], json!(request));
    house.load_is(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_cancels() {
    let mut house = House::ready(one_at_a_time()).await;
    for (accept, seed, status) in [("application/json", 1, 499), ("image/png", 2, 499), ("text/event-stream", 3, 200)] {
        house.control.steps.close();
        let before = count(&house, status);
        let mut connection = house.sent("/v1/txt2img", accept, json!({ "seed": seed, "steps": 100 })).await;
        if status == 200 {
            let mut stream = head(connection).await;
            stream.event().await.unwrap();
            house.control.steps.wait_blocked();
            drop(stream);
        } else {
            house.control.steps.wait_blocked();
            tokio::io::AsyncWriteExt::shutdown(&mut connection).await.unwrap();
            drop(connection);
        }
        // The record of a request is written when nobody holds it any more, its tickets included.
        house.counted(&format!(r#"latentd_requests_total{{route="/v1/txt2img",status="{status}"}} {}"#, before + 1)).await;
        house.control.steps.open();
        house.load_is(0, 0).await;
        assert_eq!(house.control.steps_of(seed), 1, "{accept}: the step under way was the last");
    }
    let text = house.get("/metrics").await.text();
    assert!(text.contains(r#"latentd_jobs_total{model="fake",outcome="cancelled",reason="none",task="txt2img"} 3"#), "{text}");
    assert_eq!(house.post("/v1/txt2img", "*/*", json!({})).await.status, 200);
}

/// A picture of a hundred million pixels in a hundred bytes.
fn bomb() -> String {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 10_000, 10_000).write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x01]).unwrap();
    drop(writer);
    base64::prelude::BASE64_STANDARD.encode(file)
}

/// How many requests for pictures were answered so.
fn count(house: &House, status: u16) -> u32 {
    let start = format!(r#"latentd_requests_total{{route="/v1/txt2img",status="{status}"}} "#);
    house.metrics.text().lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn full_is_an_answer() {
    let mut house = House::ready(one_at_a_time()).await;
    house.control.steps.close();
    let first = house.sent("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    house.load_is(0, 1).await;
    let second = house.sent("/v1/txt2img", "*/*", json!({ "steps": 1 })).await;
    house.load_is(1, 1).await;
    for (path, body) in [("/v1/txt2img", json!({})), ("/v1/img2img", json!({ "init_image": "not even looked at" }))] {
        let refused = house.post(path, "*/*", body).await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(house.get("/readyz").await.status, 200, "full is not unready");
    let text = house.get("/metrics").await.text();
    for line in [
        r#"latentd_jobs_unfinished{state="waiting"} 1"#,
        r#"latentd_jobs_unfinished{state="running"} 1"#,
        r#"latentd_rejected_total{reason="queue_full"} 2"#,
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
    house.control.steps.open();
    assert_eq!((head(first).await.status, head(second).await.status), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_after_loading_and_until_the_end() {
    let mut house = House::loading(Limits::default(), |control| {
        control.loading.close();
        control.steps.close();
    })
    .await;
    house.control.loading.wait_blocked();
    assert_eq!(house.get("/livez").await.status, 200);
    for (path, code) in [("/readyz", "loading"), ("/v1/models", "loading")] {
        let answer = house.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, code), "{path}");
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(house.post("/v1/txt2img", "*/*", json!({})).await.code(), "loading");

    house.control.loading.open();
    house.control.steps.wait_blocked();
    assert_eq!(house.get("/readyz").await.code(), "warming_up");
    house.control.steps.open();
    house.service.wait_ready().await.unwrap();
    let workers = json!([{ "name": "device", "state": "ready" }]);
    assert_eq!(house.get("/readyz").await.json(), json!({ "status": "ready", "workers": workers }));

    house.control.steps.close();
    let call = house.sent("/v1/txt2img", "*/*", json!({ "seed": 1, "steps": 2 })).await;
    house.load_is(0, 1).await;
    let mut stream = house.stream("/v1/txt2img", json!({ "seed": 2, "steps": 2 })).await;
    house.load_is(1, 1).await;
    house.stop();
    while house.service.readiness() == ldm_engine::Readiness::Ready {
        tokio::task::yield_now().await;
    }
    assert_eq!((house.get("/readyz").await.code(), house.get("/livez").await.status), ("draining".to_owned(), 200));
    let late = house.post("/v1/txt2img", "*/*", json!({})).await;
    assert_eq!((late.status, late.code().as_str()), (503, "draining"));
    house.control.steps.open();
    assert_eq!(head(call).await.status, 200, "an accepted call is answered");
    let mut last = None;
    while let Some(event) = stream.event().await {
        last = Some(event.name);
    }
    assert_eq!(last.as_deref(), Some("result"), "an open stream ends with its result");
    house.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_job_alone() {
    let house = house().await;
    let broken = house.post("/v1/txt2img", "*/*", json!({ "prompt": "!panic@2", "steps": 3 })).await;
    assert_eq!((broken.status, broken.code().as_str(), broken.header("x-should-retry")), (500, "panicked", "false"));
    assert_eq!(broken.header("x-job-id").len(), 36);
    assert_eq!(house.post("/v1/txt2img", "*/*", json!({ "prompt": "a cat" })).await.status, 200);
    let text = house.get("/metrics").await.text();
    assert!(text.contains(r#"latentd_jobs_total{model="fake",outcome="failed",reason="panicked",task="txt2img"} 1"#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_what_happened() {
    let house = house().await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 3, "images": 2 })).await;
    house.post("/v1/txt2img", "*/*", json!({ "steps": 0 })).await;
    house.get("/nowhere").await;
    for line in [
        r#"latentd_requests_total{route="/v1/txt2img",status="200"} 1"#,
        r#"latentd_requests_total{route="/v1/txt2img",status="422"} 1"#,
        r#"latentd_requests_total{route="unmatched",status="404"} 1"#,
        r#"latentd_request_seconds_count{route="/v1/txt2img"} 2"#,
        r#"latentd_jobs_total{model="fake",outcome="finished",reason="none",task="txt2img"} 2"#,
        r#"latentd_rejected_total{reason="invalid_request"} 1"#,
        r#"latentd_stage_seconds_count{stage="queue"} 2"#,
        r#"latentd_stage_seconds_count{stage="prepare"} 2"#,
        r#"latentd_stage_seconds_count{stage="decode"} 2"#,
        r#"latentd_stage_seconds_count{stage="image"} 2"#,
        r#"latentd_jobs_unfinished{state="waiting"} 0"#,
        r#"latentd_jobs_unfinished{state="running"} 0"#,
    ] {
        house.counted(line).await;
    }
    let answer = house.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    for name in ["latentd_steps_total", "latentd_batch_rows_bucket", "latentd_stage_seconds_bucket", "latentd_build_info"] {
        assert!(answer.text().contains(name), "{name}");
    }
    assert!(answer.text().contains(r#"le="600""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_survived() {
    let house = house().await;
    for (body, status) in [(&b"\x00\xff garbage"[..], 400), (b"{\"steps\":", 400), (b"[]", 422), (&[b'x'; 2 << 20], 413)] {
        let answer = fetch(house.at, "POST", "/v1/img2img", "*/*", body).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"));
        assert!(!answer.code().is_empty() && answer.json()["error"]["request_id"] == answer.header("x-request-id"));
    }
    let answer = house.post("/v1/img2img", "*/*", json!({ "init_image": bomb() })).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "picture_too_large"));
    assert_eq!(house.post("/v1/txt2img", "*/*", json!({})).await.status, 200);
}
