//! Named jobs over HTTP, on the fake device and a ledger in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, Retention};
use ldm_engine::objects::Objects;
use serde_json::{Value, json};

use crate::app;
use crate::caller::{Caller, Identity};
use crate::testing::{Answer, get, house, post, ready, send};

async fn put(router: &Router, path: &str, body: Value) -> Answer {
    let request = Request::put(path).header(header::CONTENT_TYPE, "application/json");
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

async fn keyed(router: &Router, key: &str, body: Value) -> Answer {
    let request = Request::post("/v1/jobs").header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key);
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

/// Asks until the job has ended.
async fn ended(router: &Router, path: &str) -> Value {
    loop {
        let job = get(router, path).await.json();
        if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn small(seed: u64) -> Value {
    json!({ "task": "txt2img", "prompt": "a cat", "seed": seed, "steps": 2, "width": 64, "height": 64 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_handed_in_looked_at_and_fetched() {
    let (router, _) = house().await;
    let body = json!({ "task": "txt2img", "seed": 5, "steps": 2, "width": 64, "height": 64, "images": 2 });
    let accepted = post(&router, "/v1/jobs", body.to_string()).await;
    assert_eq!(accepted.status, 202, "{}", accepted.json());
    let place = accepted.header("location").to_owned();
    assert_eq!(place, format!("/v1/jobs/{}", accepted.json()["id"].as_str().unwrap()));
    assert!(accepted.header("retry-after").parse::<u64>().unwrap() >= 1);
    let job = ended(&router, &place).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let images = job["images"].as_array().unwrap();
    assert_eq!(images.iter().map(|image| image["parameters"]["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 6]);
    for image in images {
        let picture = get(&router, image["url"].as_str().unwrap()).await;
        assert_eq!((picture.status.as_u16(), picture.header("content-type")), (200, "image/png"));
        assert_eq!(picture.body.len() as u64, image["bytes"]);
        assert_eq!(picture.header("etag"), format!("\"{}\"", image["sha256"].as_str().unwrap()));
        let raster = crate::read_picture(&picture.body, 1 << 20).unwrap();
        let seed = image["parameters"]["seed"].as_u64().unwrap();
        assert_eq!(raster, ldm_engine::fake::FakeExecutor::picture(seed, 64, 64));
    }
    assert_eq!(get(&router, &format!("{place}/images/2")).await.code(), "no_such_image");
    let listed = get(&router, "/v1/jobs?limit=1").await.json();
    assert_eq!(listed["jobs"][0]["id"], job["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_name_is_the_same_job() {
    let (router, control) = house().await;
    let first = put(&router, "/v1/jobs/mine", small(1)).await;
    assert_eq!(first.status, 202);
    ended(&router, "/v1/jobs/mine").await;
    let again = put(&router, "/v1/jobs/mine", small(1)).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &first.json()["id"]));
    let other = put(&router, "/v1/jobs/mine", small(2)).await;
    assert_eq!((other.status.as_u16(), other.code().as_str(), other.header("x-should-retry")), (409, "conflict", "false"));
    let (one, two) = (keyed(&router, "k-1", small(3)).await, keyed(&router, "k-1", small(3)).await);
    assert_eq!(one.json()["id"], two.json()["id"]);
    assert_eq!(keyed(&router, "k-1", small(4)).await.status, 409);
    ended(&router, one.header("location")).await;
    assert_eq!(control.preparations().len(), 2);
    assert_eq!(keyed(&router, "no blanks", small(3)).await.fields(), ["idempotency-key"]);
    assert_eq!(put(&router, "/v1/jobs/a%20b", small(1)).await.fields(), ["job"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_stopped_and_what_is_not_there_is_not() {
    let (router, control) = house().await;
    control.steps.close();
    let place = post(&router, "/v1/jobs", small(1).to_string()).await.header("location").to_owned();
    control.steps.wait_blocked();
    assert_eq!(get(&router, &place).await.json()["state"], "running");
    assert_eq!(post(&router, &format!("{place}/cancel"), "").await.status, 200);
    let job = ended(&router, &place).await;
    assert_eq!(job["state"], "canceled");
    control.steps.open();
    assert_eq!(post(&router, &format!("{place}/cancel"), "").await.json()["state"], "canceled", "once more is the same");
    assert_eq!(get(&router, &format!("{place}/images/0")).await.code(), "no_such_image");
    for path in ["/v1/jobs/0192f0c1-2b3c-7d4e-8f50-61728394a5b6", "/v1/jobs/nobody"] {
        assert_eq!(get(&router, path).await.code(), "no_such_job");
    }
    assert_eq!(get(&router, "/v1/jobs?before=x&limit=0&state=queued,lost").await.fields(), ["before", "limit", "state"]);
    let failed = json!({ "task": "txt2img", "prompt": "!nan@1", "steps": 2, "width": 64, "height": 64 });
    let place = post(&router, "/v1/jobs", failed.to_string()).await.header("location").to_owned();
    let job = ended(&router, &place).await;
    assert_eq!((job["state"].as_str().unwrap(), job["error"]["code"].as_str().unwrap()), ("failed", "not_finite"));
    assert_eq!(post(&router, "/v1/jobs", "{}").await.fields(), ["task"]);
}

#[tokio::test]
async fn without_a_ledger_there_are_no_named_jobs() {
    let router = app(ready().await.0);
    assert_eq!(post(&router, "/v1/jobs", small(1).to_string()).await.code(), "not_found");
}

/// As `caller` of that name would ask.
async fn as_tenant(router: &Router, tenant: &str, method: &str, path: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let tenant = ldm_core::Tenant::new(tenant);
    request.extensions_mut().insert(Caller::new(Identity { tenant, ..Identity::default() }));
    send(router, request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_job_is_not_there() {
    let (router, control) = house().await;
    control.steps.close();
    let place = put(&router, "/v1/jobs/mine", small(1)).await.header("location").to_owned();
    control.steps.wait_blocked();
    for path in [place.as_str(), "/v1/jobs/mine"] {
        for (method, rest) in [("GET", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/images/0")] {
            let answer = as_tenant(&router, "other", method, &format!("{path}{rest}")).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "no_such_job"), "{method} {path}{rest}");
        }
    }
    assert_eq!(as_tenant(&router, "other", "GET", "/v1/jobs").await.json()["jobs"], json!([]));
    assert_eq!(get(&router, &place).await.json()["state"], "running", "nobody stopped it");
    control.steps.open();
    assert_eq!(ended(&router, &place).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_says_how_far_it_is_and_when_it_was() {
    let (router, control) = house().await;
    control.steps.close();
    let body = json!({ "task": "txt2img", "steps": 4, "width": 64, "height": 64 });
    let place = post(&router, "/v1/jobs", body.to_string()).await.header("location").to_owned();
    control.steps.wait_blocked();
    control.steps.allow(2);
    control.steps.wait_blocked();
    let job = loop {
        let job = get(&router, &place).await.json();
        if job["step"] == 2 {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!((&job["state"], &job["steps"], &job["progress"]), (&json!("running"), &json!(4), &json!(0.475)));
    assert!(job["eta_ms"].is_u64() && job["started_ms"].as_u64() >= job["created_ms"].as_u64(), "{job}");
    assert_eq!((&job["ended_ms"], &job["expires_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(get(&router, "/v1/jobs").await.json()["jobs"][0]["step"], 2);
    control.steps.open();
    let job = ended(&router, &place).await;
    assert_eq!((&job["progress"], &job["eta_ms"], &job["step"]), (&json!(1.0), &Value::Null, &Value::Null));
    assert_eq!(job["expires_ms"].as_u64().unwrap() - job["ended_ms"].as_u64().unwrap(), 24 * 3600 * 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_the_states_that_are_asked_for() {
    let (router, control) = house().await;
    let good = put(&router, "/v1/jobs/good", small(1)).await;
    ended(&router, "/v1/jobs/good").await;
    control.steps.close();
    let stopped = put(&router, "/v1/jobs/stopped", small(2)).await;
    post(&router, "/v1/jobs/stopped/cancel", "").await;
    control.steps.open();
    ended(&router, "/v1/jobs/stopped").await;
    let ids = async |states: &str| {
        let page = get(&router, &format!("/v1/jobs?state={states}")).await.json();
        page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect::<Vec<_>>()
    };
    let (good, stopped) = (good.json()["id"].clone(), stopped.json()["id"].clone());
    assert_eq!(ids("succeeded").await, [good.clone()]);
    assert_eq!(ids("canceled,failed").await, [stopped.clone()]);
    assert_eq!(ids("succeeded,canceled").await, [stopped, good]);
    assert_eq!(ids("queued").await.len() + ids("running").await.len() + ids("expired").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_may_look_like_an_id() {
    let (router, _) = house().await;
    let path = "/v1/jobs/0192f0c1-2b3c-7d4e-8f50-61728394a5b6";
    let made = put(&router, path, small(1)).await;
    assert_ne!(made.header("location"), path);
    assert_eq!(ended(&router, path).await["id"], made.json()["id"]);
}

async fn fetched(router: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    send(router, request.body(Body::empty()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_comes_as_it_is_liked() {
    let (router, control) = house().await;
    let mut body = small(7);
    body["format"] = json!("jpeg");
    body["quality"] = json!(60);
    put(&router, "/v1/jobs/mine", body).await;
    let job = ended(&router, "/v1/jobs/mine").await;
    let parameters = &job["images"][0]["parameters"];
    assert_eq!((&parameters["format"], &parameters["quality"]), (&json!("jpeg"), &json!(60)));
    let path = "/v1/jobs/mine/images/0";
    let digest = job["images"][0]["sha256"].as_str().unwrap();
    let kinds = [
        ("", "image/jpeg", format!("\"{digest}-jpeg-60\"")),
        ("*/*", "image/jpeg", format!("\"{digest}-jpeg-60\"")),
        ("image/png", "image/png", format!("\"{digest}\"")),
        ("image/webp,image/*;q=0.5", "image/webp", format!("\"{digest}-webp\"")),
    ];
    for (accept, mime, tag) in kinds {
        let headers: &[(&str, &str)] = if accept.is_empty() { &[] } else { &[("accept", accept)] };
        let picture = fetched(&router, path, headers).await;
        assert_eq!((picture.status.as_u16(), picture.header("content-type"), picture.header("etag")), (200, mime, tag.as_str()));
        assert_eq!((picture.header("cache-control"), picture.header("vary")), ("private, no-cache", "accept"));
        let raster = crate::read_picture(&picture.body, 1 << 20).unwrap();
        assert_eq!((raster.width(), raster.height()), (64, 64));
        let same = raster == ldm_engine::fake::FakeExecutor::picture(7, 64, 64);
        assert_eq!(same, mime != "image/jpeg", "lossless but for JPEG");
        let said = crate::metadata::read(&picture.body).unwrap();
        assert!(said.parameters.unwrap().starts_with("a cat\nSteps: 2, "));
        assert_eq!(said.made.unwrap()["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(said.latentd.unwrap()["format"], mime.trim_start_matches("image/"));

        for known in [tag.clone(), format!("W/{tag}"), "*".to_owned(), format!("\"x\", {tag}")] {
            let headers = [("accept", if accept.is_empty() { "*/*" } else { accept }), ("if-none-match", known.as_str())];
            let same = fetched(&router, path, &headers).await;
            assert_eq!((same.status.as_u16(), same.header("etag"), same.body.len()), (304, tag.as_str(), 0), "{known}");
        }
        let other = [("accept", if accept.is_empty() { "*/*" } else { accept }), ("if-none-match", "\"x\"")];
        assert_eq!(fetched(&router, path, &other).await.status, 200);
    }
    assert_eq!(fetched(&router, path, &[("accept", "application/json")]).await.code(), "not_acceptable");
    for index in ["1", "-1", "x"] {
        let absent = get(&router, &format!("/v1/jobs/mine/images/{index}")).await;
        assert_eq!((absent.status.as_u16(), absent.code().as_str()), (404, "no_such_image"));
        assert!(absent.json()["error"]["message"].as_str().unwrap().contains("0 to 0"));
    }
    control.steps.close();
    put(&router, "/v1/jobs/slow", small(8)).await;
    let early = get(&router, "/v1/jobs/slow/images/0").await;
    assert_eq!((early.status.as_u16(), early.code().as_str(), early.header("retry-after")), (409, "not_finished", "1"));
    assert_eq!(get(&router, "/v1/jobs/slow/images/1").await.code(), "no_such_image", "there will be one");
    control.steps.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_and_is_not_any_more_is_gone() {
    let (state, _) = ready().await;
    let keep = Retention { count: 1, ..Retention::default() };
    let node = crate::testing::node_with(&state, Arc::new(Memory::new(LedgerLimits::default())), Objects::memory(), keep, 4);
    let objects = node.objects().clone();
    let router = app(state.named(node));
    let first = put(&router, "/v1/jobs/first", small(1)).await.header("location").to_owned();
    ended(&router, &first).await;
    put(&router, "/v1/jobs/second", small(2)).await;
    ended(&router, "/v1/jobs/second").await;
    while get(&router, &first).await.status == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for path in [first.as_str(), "/v1/jobs/first"] {
        for rest in ["", "/images/0", "/events"] {
            let answer = get(&router, &format!("{path}{rest}")).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (410, "gone"), "{path}{rest}");
        }
        assert_eq!(as_tenant(&router, "other", "GET", path).await.status, 404, "none of theirs");
    }
    assert_eq!(get(&router, "/v1/jobs/second/images/0").await.status, 200);
    // A record whose picture somebody deleted.
    let id = get(&router, "/v1/jobs/second").await.json()["id"].as_str().unwrap().parse().unwrap();
    objects.delete(&ldm_engine::objects::output_key(id, 0)).await.unwrap();
    assert_eq!(get(&router, "/v1/jobs/second/images/0").await.code(), "gone");
    // The name is free again.
    assert_eq!(put(&router, "/v1/jobs/first", small(3)).await.status, 202);
}

/// Bytes of ended jobs are bounded, whatever their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_beyond_the_bound_go_the_oldest_first() {
    let (state, _) = ready().await;
    let ledger: Arc<dyn Ledger> = Arc::new(Memory::new(LedgerLimits::default()));
    let wide = crate::testing::node_with(&state, Arc::clone(&ledger), Objects::memory(), Retention::default(), 4);
    let objects = wide.objects().clone();
    let router = app(state.clone().named(wide));
    let mut ids = Vec::new();
    for seed in 1..=4 {
        let job = put(&router, &format!("/v1/jobs/n{seed}"), small(seed)).await;
        ended(&router, job.header("location")).await;
        ids.push(job.header("location").to_owned());
    }
    let bytes = get(&router, &ids[3]).await.json()["images"][0]["bytes"].as_u64().unwrap();
    // Room for two pictures with what is kept beside them, which is less than another.
    let keep = Retention { bytes: 2 * bytes + 6_000, ..Retention::default() };
    assert!(bytes > 6_000, "a picture has {bytes} bytes");
    let _narrow = crate::testing::node_with(&state, ledger, objects.clone(), keep, 4);
    while get(&router, &ids[1]).await.status == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(get(&router, &ids[0]).await.status, 410);
    assert_eq!(get(&router, &format!("{}/images/0", ids[3])).await.status, 200);
}
