//! How much is too much: rates, places, and what is not even read.

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;
use tower::ServiceExt;

use super::rate::Peer;
use super::testing::{Ring, ask, behind, picture, request, small};
use super::{Door, Rate};
use crate::testing::send;

#[tokio::test]
async fn too_many_requests_hear_when_there_is_room() {
    let ring = Ring::new(&[("alice", "rate = 1\nburst = 2"), ("bob", "rate = 1\nburst = 2")]);
    let (router, ..) = behind(Door::default().keys(ring.keys())).await;
    let alice = ring.secret("alice");
    for left in ["1", "0"] {
        let answer = ask(&router, alice, "POST", "/v1/txt2img", "{\"steps\": 1}").await;
        assert_eq!((answer.status.as_u16(), answer.header("ratelimit-remaining")), (200, left));
        assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=1;w=60;burst=2");
    }
    for path in ["/v1/txt2img", "/v1/images/generations"] {
        let late = ask(&router, alice, "POST", path, "{}").await;
        assert_eq!((late.status.as_u16(), &late.json()["error"]["code"]), (429, &json!("rate_limited")), "{path}");
        let wait: u64 = late.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait) && late.header("ratelimit").starts_with("\"requests\";r=0;t="), "{wait}");
    }
    let late = ask(&router, alice, "POST", "/sdapi/v1/txt2img", "{}").await;
    assert_eq!((late.status.as_u16(), &late.json()["error"]), (429, &json!("rate_limited")));
    // Looking and stopping go on, and others have buckets of their own.
    assert_eq!(ask(&router, alice, "GET", "/v1/jobs", "").await.status, 200);
    assert_eq!(ask(&router, alice, "POST", "/sdapi/v1/interrupt", "").await.status, 200);
    assert_eq!(ask(&router, ring.secret("bob"), "POST", "/v1/txt2img", "{\"steps\": 1}").await.status, 200);
}

#[tokio::test]
async fn addresses_have_a_rate_where_there_is_no_key() {
    let one = std::num::NonZeroU32::MIN;
    let (router, ..) = behind(Door::default().peer_rate(Some(Rate { per_minute: one, burst: one }))).await;
    let from = async |address: &str| {
        let mut request = request("POST", "/v1/txt2img", &[], "{\"steps\": 1}");
        request.extensions_mut().insert(Peer(address.parse().unwrap()));
        send(&router, request).await.status.as_u16()
    };
    assert_eq!((from("10.0.0.1").await, from("10.0.0.1").await, from("10.0.0.2").await), (200, 429, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_so_many_unfinished_jobs_and_no_more() {
    let ring = Ring::new(&[("alice", "concurrency = 2"), ("bob", "")]);
    let (router, _, control) = behind(Door::default().keys(ring.keys())).await;
    let alice = ring.secret("alice");
    control.steps.close();
    let named = ask(&router, alice, "POST", "/v1/jobs", &small()).await;
    let headers = [("x-api-key", alice), ("accept", "text/event-stream")];
    let passing = router.clone().oneshot(request("POST", "/v1/txt2img", &headers, &picture())).await.unwrap();
    assert_eq!((named.status.as_u16(), passing.status().as_u16()), (202, 200));
    for (path, body) in [("/v1/txt2img", picture()), ("/v1/jobs", small())] {
        let full = ask(&router, alice, "POST", path, &body).await;
        assert_eq!((full.status.as_u16(), full.code().as_str()), (429, "too_many_jobs"), "{path}");
        assert!(full.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    let full = ask(&router, alice, "POST", "/sdapi/v1/txt2img", &picture()).await;
    assert_eq!((full.status.as_u16(), &full.json()["error"]), (429, &json!("too_many_jobs")));
    let three = json!({ "images": 3, "steps": 1 }).to_string();
    assert_eq!(ask(&router, alice, "POST", "/v1/txt2img", &three).await.fields(), ["images"], "waiting does not help");
    assert_eq!(ask(&router, ring.secret("bob"), "POST", "/v1/jobs", &small()).await.status, 202);

    // Whoever goes gives the place back.
    drop(passing);
    let headers = [("x-api-key", alice), ("accept", "text/event-stream")];
    let again = router.clone().oneshot(request("POST", "/v1/txt2img", &headers, &picture())).await.unwrap();
    assert_eq!(again.status(), 200);
    control.steps.open();
}

#[tokio::test]
async fn what_is_declared_too_large_is_not_read() {
    let (router, ..) = behind(Door::default()).await;
    let request = Request::post("/v1/txt2img").header(header::CONTENT_LENGTH, "104857600");
    // A body that never comes.
    let body = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = send(&router, request.body(body).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));
}
