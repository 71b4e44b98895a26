//! Named jobs over HTTP, on the fake device and a ledger in memory.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::app;
use crate::caller::{Caller, Identity};
use crate::testing::{Answer, get, house, post, ready, send};

pub(super) async fn put(router: &Router, path: &str, body: Value) -> Answer {
    let request = Request::put(path).header(header::CONTENT_TYPE, "application/json");
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

async fn keyed(router: &Router, key: &str, body: Value) -> Answer {
    let request = Request::post("/v1/jobs").header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key);
    send(router, request.body(Body::from(body.to_string())).unwrap()).await
}

/// Asks until the job has ended.
pub(super) async fn ended(router: &Router, path: &str) -> Value {
    loop {
        let job = get(router, path).await.json();
        if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn small(seed: u64) -> Value {
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
pub(super) async fn as_tenant(router: &Router, tenant: &str, method: &str, path: &str) -> Answer {
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
    assert_eq!(ids("succeeded").await, std::slice::from_ref(&good));
    assert_eq!(ids("canceled,failed").await, std::slice::from_ref(&stopped));
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
