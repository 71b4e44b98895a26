//! Pictures of named jobs as they are fetched, and jobs that are kept no longer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, Retention};
use ldm_engine::objects::Objects;
use serde_json::json;

use super::tests::{as_other, ended, other, put, small};
use crate::app;
use crate::testing::{Answer, get, house, ready, send};

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
    let (ring, door) = other();
    let router = app(state.named(node).door(door));
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
        assert_eq!(as_other(&router, &ring, "GET", path).await.status, 404, "none of theirs");
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
