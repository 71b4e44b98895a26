//! Calls that outlive their connection, and those that do not, as their ids show them.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use futures_util::StreamExt;
use ldm_engine::fake::FakeExecutor;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::testing::{get, house, post, send};

fn asked(body: Value, leaving: &str) -> Request<Body> {
    let request = Request::post("/v1/txt2img").header(header::CONTENT_TYPE, "application/json");
    request.header("x-on-disconnect", leaving).body(Body::from(body.to_string())).unwrap()
}

fn small() -> Value {
    json!({ "seed": 4, "steps": 3, "width": 64, "height": 64 })
}

/// Asks until the job has ended.
async fn ended(router: &Router, id: &str) -> Value {
    loop {
        let job = get(router, &format!("/v1/jobs/{id}")).await.json();
        if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cut_off_leaves_its_picture_under_its_id() {
    let (router, control) = house().await;
    control.steps.close();
    let response = router.clone().oneshot(asked(small(), "continue")).await.unwrap();
    // The headers come while the picture is still being made.
    assert_eq!(
        (response.status().as_u16(), &response.headers()[header::CONTENT_TYPE]),
        (200, &"application/json".parse().unwrap())
    );
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    drop(response);
    control.steps.wait_blocked();
    control.steps.open();
    let job = ended(&router, &id).await;
    assert_eq!((job["state"].as_str().unwrap(), job["kept"].as_bool().unwrap()), ("succeeded", true), "{job}");
    let picture = get(&router, job["images"][0]["url"].as_str().unwrap()).await;
    assert_eq!(crate::read_picture(&picture.body, 1 << 20).unwrap(), FakeExecutor::picture(4, 64, 64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_outlive_its_client_answers_like_any_other() {
    let (router, _) = house().await;
    let two = json!({ "seed": 4, "steps": 3, "width": 64, "height": 64, "images": 2 });
    let kept = send(&router, asked(two.clone(), "continue")).await;
    let usual = send(&router, asked(two, "cancel")).await;
    let pictures = |answer: &crate::testing::Answer| {
        let images = answer.json()["images"].as_array().unwrap().clone();
        images.into_iter().map(|image| (image["seed"].clone(), image["sha256"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(pictures(&kept), pictures(&usual));
    assert_eq!((kept.header("x-job-id").len(), usual.header("x-job-id").split(',').count()), (36, 2));

    // What fails after the headers have gone says so in the body, and with the job.
    let failed = send(&router, asked(json!({ "prompt": "!nan@1", "steps": 2 }), "continue")).await;
    assert_eq!((failed.status.as_u16(), failed.code().as_str()), (200, "not_finite"));
    assert_eq!(ended(&router, failed.header("x-job-id")).await["error"]["code"], "not_finite");

    let wrong = send(&router, asked(small(), "perhaps")).await;
    assert_eq!((wrong.status.as_u16(), wrong.fields()), (422, vec!["x-on-disconnect".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_a_job_that_can_be_looked_at_and_stopped() {
    let (router, control) = house().await;
    control.steps.close();
    let request = Request::post("/v1/txt2img").header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::ACCEPT, "text/event-stream").body(Body::from(small().to_string())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    let mut events = response.into_body().into_data_stream();
    control.steps.wait_blocked();
    let job = get(&router, &format!("/v1/jobs/{id}")).await.json();
    assert_eq!((job["state"].as_str().unwrap(), job["kept"].as_bool().unwrap()), ("running", false), "{job}");
    assert_eq!(get(&router, "/v1/jobs").await.json()["jobs"][0]["id"], id.as_str());
    assert_eq!(post(&router, &format!("/v1/jobs/{id}/cancel"), "").await.status, 200);
    control.steps.open();
    let mut text = String::new();
    while let Some(chunk) = events.next().await {
        text += std::str::from_utf8(&chunk.unwrap()).unwrap();
    }
    assert!(text.contains("event: error") && text.contains(r#""code":"cancelled""#), "{text}");
    assert_eq!(ended(&router, &id).await["state"], "canceled");
    assert_eq!(get(&router, &format!("/v1/jobs/{id}/images/0")).await.code(), "no_such_image");
}
