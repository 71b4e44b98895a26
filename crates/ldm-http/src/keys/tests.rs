//! Who is let in, and what is whose: through all routes, on the fake device.

use axum::http::header;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::testing::{Ring, ask, behind, picture, request, small};
use super::{Door, Secret};
use crate::testing::send;

#[tokio::test]
async fn without_a_good_key_nothing_is_served_but_health() {
    let ring = Ring::new(&[("alice", ""), ("old", "expires = 2020-01-01T00:00:00Z")]);
    let (router, _, control) = behind(Door::default().keys(ring.keys())).await;
    for path in ["/livez", "/readyz", "/healthz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/internal/ping"] {
        assert_eq!(send(&router, request("GET", path, &[], "")).await.status, 200, "{path}");
    }
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    let wrong = Secret::new().unwrap().secret;
    let shows: [Vec<(&str, String)>; 7] = [
        vec![],
        vec![("authorization", String::new())],
        vec![("authorization", "Bearer ".to_owned())],
        vec![("authorization", format!("Bearer {wrong}"))],
        vec![("x-api-key", wrong)],
        vec![("authorization", basic("alice:alice"))],
        vec![("authorization", format!("Bearer {}", ring.secret("old")))],
    ];
    for headers in &shows {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for (method, path) in [
            ("GET", "/v1/models"),
            ("POST", "/v1/txt2img"),
            ("POST", "/v1/images/generations"),
            ("GET", "/v1/jobs"),
            ("GET", "/v2/models/fake"),
            ("GET", "/metrics"),
            ("GET", "/v1/admin/models"),
            ("GET", "/nowhere"),
        ] {
            let answer = send(&router, request(method, path, &headers, "{}")).await;
            let known = path.starts_with("/v1/admin/");
            let expected = if known { (403, "admin_off") } else { (401, "unauthorized") };
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), expected, "{path} {headers:?}");
            let challenge = if known { "" } else { "Bearer" };
            assert_eq!(answer.header("www-authenticate"), challenge);
        }
        let answer = send(&router, request("POST", "/sdapi/v1/txt2img", &headers, "{}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("unauthorized")));
        let challenges: Vec<_> = answer.headers.get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Bearer", "Basic realm=\"latentd\", charset=\"UTF-8\""]);
    }
    assert_eq!(control.preparations().len(), 0);
    let expired = ask(&router, ring.secret("old"), "GET", "/v1/models", "").await;
    assert_eq!(expired.json()["error"]["message"], "this key has expired");
    let error = &expired.json()["error"];
    assert_eq!((&error["type"], &error["param"]), (&json!("authentication_error"), &Value::Null), "as OpenAI's clients read it");
}

#[tokio::test]
async fn a_key_is_shown_as_clients_show_theirs() {
    let ring = Ring::new(&[("alice", "")]);
    let (router, ..) = behind(Door::default().keys(ring.keys())).await;
    let secret = ring.secret("alice");
    let basic = |text: String| format!("Basic {}", BASE64_STANDARD.encode(text));
    for (name, value) in [
        ("authorization", format!("Bearer {secret}")),
        ("authorization", format!("bearer {secret}")),
        ("x-api-key", secret.to_owned()),
        ("authorization", basic(format!("anybody:{secret}"))),
        ("authorization", basic(format!("{secret}:"))),
    ] {
        let answer = send(&router, request("GET", "/sdapi/v1/options", &[(name, &value)], "")).await;
        assert_eq!(answer.status, 200, "{name}: {value}");
    }
    // A browser adds what was typed in once, whatever page asks.
    let across = [("authorization", &*basic(format!("a:{secret}"))), ("sec-fetch-site", "cross-site")];
    assert_eq!(send(&router, request("POST", "/sdapi/v1/interrupt", &across, "")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_one_key_are_not_there_for_another() {
    let ring = Ring::new(&[("alice", ""), ("bob", "role = \"admin\"")]);
    let (router, _, control) = behind(Door::default().keys(ring.keys())).await;
    let (alice, bob) = (ring.secret("alice"), ring.secret("bob"));
    control.steps.close();

    // One job of every kind of call, all of alice's.
    let named = ask(&router, alice, "PUT", "/v1/jobs/mine", &small()).await;
    assert_eq!(named.status, 202, "{}", named.json());
    let headers = [("x-api-key", alice), ("accept", "text/event-stream")];
    let passing = router.clone().oneshot(request("POST", "/v1/txt2img", &headers, &picture())).await.unwrap();
    let body = json!({ "prompt": "x", "width": 64, "height": 64, "steps": 2, "force_task_id": "t" }).to_string();
    let web = request("POST", "/sdapi/v1/txt2img", &[("x-api-key", alice)], &body);
    let web = tokio::spawn(router.clone().oneshot(web));
    let body = json!({ "prompt": "x", "size": "64x64", "stream": true }).to_string();
    let open = router.clone().oneshot(request("POST", "/v1/images/generations", &[("x-api-key", alice)], &body)).await.unwrap();

    let id = |response: &axum::response::Response| response.headers()["x-job-id"].to_str().unwrap().to_owned();
    let ids = [named.json()["id"].as_str().unwrap().to_owned(), "mine".to_owned(), id(&passing), id(&open)];
    for id in &ids {
        let own = ask(&router, alice, "GET", &format!("/v1/jobs/{id}"), "").await;
        assert_eq!(own.status, 200, "{}", own.json());
        for (method, path) in [("GET", ""), ("POST", "/cancel"), ("GET", "/images/0")] {
            let answer = ask(&router, bob, method, &format!("/v1/jobs/{id}{path}"), "").await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "no_such_job"), "{method} {id}{path}");
        }
    }
    assert_eq!(ask(&router, bob, "GET", "/v1/jobs", "").await.json()["jobs"], json!([]));
    let progress =
        async |secret: &str, path: &str| ask(&router, secret, "GET", path, "").await.json()["state"]["job_count"].clone();
    while progress(alice, "/sdapi/v1/progress").await != json!(1) {
        tokio::task::yield_now().await;
    }
    for path in ["/sdapi/v1/progress", "/sdapi/v1/progress?force_task_id=t"] {
        assert_eq!(progress(bob, path).await, json!(0), "{path}");
    }
    let seen = ask(&router, bob, "POST", "/internal/progress", "{\"id_task\": \"t\"}").await.json();
    assert_eq!((&seen["active"], &seen["queued"], &seen["completed"]), (&json!(false), &json!(false), &json!(false)));
    for path in ["/sdapi/v1/interrupt", "/sdapi/v1/interrupt?force_task_id=t", "/sdapi/v1/skip"] {
        assert_eq!(ask(&router, bob, "POST", path, "").await.status, 200, "{path}");
    }
    // The same name is another job with another key.
    let other = ask(&router, bob, "PUT", "/v1/jobs/mine", &small()).await;
    assert_eq!(other.status, 202);
    assert_ne!(other.json()["id"], named.json()["id"]);

    // Nobody's stop reached alice's jobs.
    control.steps.open();
    let web = web.await.unwrap().unwrap();
    let web: Value = serde_json::from_slice(&axum::body::to_bytes(web.into_body(), usize::MAX).await.unwrap()).unwrap();
    assert_eq!(web["images"].as_array().unwrap().len(), 1);
    for (response, last) in [(passing, "event: result"), (open, "event: image_generation.completed")] {
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(String::from_utf8_lossy(&text).contains(last));
    }
}

#[tokio::test]
async fn a_key_may_what_its_entry_says() {
    let ring = Ring::new(&[("narrow", "models = [\"other\"]"), ("slow", "priority = \"batch\""), ("plain", "")]);
    let (router, ..) = behind(Door::default().keys(ring.keys())).await;
    let narrow = ring.secret("narrow");
    let refused = ask(&router, narrow, "POST", "/v1/txt2img", "{\"steps\": 1}").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "model_forbidden"));
    let message = refused.json()["error"]["message"].clone();
    assert_eq!(message, "this key may not use the model \"fake\"; `model` may be \"other\"");
    for path in ["/v1/jobs", "/v1/estimate"] {
        assert_eq!(ask(&router, narrow, "POST", path, &small()).await.code(), "model_forbidden", "{path}");
    }
    assert_eq!(ask(&router, narrow, "GET", "/v1/models", "").await.json()["data"], json!([]));
    assert_eq!(ask(&router, narrow, "GET", "/sdapi/v1/sd-models", "").await.json(), json!([]));
    assert_eq!(ask(&router, narrow, "GET", "/sdapi/v1/options", "").await.json()["sd_model_checkpoint"], "");
    assert_eq!(ask(&router, narrow, "GET", "/v2/models/fake", "").await.status, 404);

    let place = ask(&router, ring.secret("slow"), "POST", "/v1/jobs", &small()).await.json();
    assert_eq!(place["priority"], "batch", "whatever it asks for");
    let place = ask(&router, ring.secret("plain"), "POST", "/v1/jobs", &small()).await.json();
    assert_eq!(place["priority"], "interactive");
}

#[tokio::test]
async fn metrics_are_for_admins_unless_they_are_open() {
    let ring = Ring::new(&[("user", ""), ("root", "role = \"admin\"")]);
    let (router, ..) = behind(Door::default().keys(ring.keys())).await;
    assert_eq!(ask(&router, ring.secret("user"), "GET", "/metrics", "").await.code(), "forbidden");
    assert_eq!(ask(&router, ring.secret("root"), "GET", "/metrics", "").await.status, 200);
    let (router, ..) = behind(Door::default().keys(ring.keys()).open_metrics(true)).await;
    assert_eq!(send(&router, request("GET", "/metrics", &[], "")).await.status, 200);
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_where_that_is_allowed() {
    let ring = Ring::new(&[("alice", "")]);
    let (router, ..) = behind(Door::default().keys(ring.keys()).anonymous(true)).await;
    assert_eq!(send(&router, request("GET", "/v1/models", &[], "")).await.status, 200);
    assert_eq!(ask(&router, "ltd_wrong", "GET", "/v1/models", "").await.status, 401, "a wrong key is wrong all the same");
    assert_eq!(send(&router, request("GET", "/metrics", &[], "")).await.status, 401);
    let named = send(&router, request("POST", "/v1/jobs", &[], &small())).await;
    let place = format!("/v1/jobs/{}", named.json()["id"].as_str().unwrap());
    assert_eq!(ask(&router, ring.secret("alice"), "GET", &place, "").await.status, 404);
}

#[tokio::test]
async fn a_file_that_changes_is_followed_and_one_that_is_broken_is_not() {
    let ring = Ring::new(&[("alice", "rate = 1\nburst = 2"), ("bob", "")]);
    let keys = ring.keys();
    let (router, ..) = behind(Door::default().keys(keys.clone())).await;
    let status =
        async |name: &str, method: &str| ask(&router, ring.secret(name), method, "/v1/png-info", "{}").await.status.as_u16();
    assert_eq!((status("alice", "POST").await, status("bob", "POST").await), (422, 422));
    assert_eq!(keys.refresh(), Ok(false), "nothing has changed");
    assert_eq!(keys.count(), 2);

    ring.write(&[("alice", "rate = 1\nburst = 2\n# bob is gone")]);
    assert_eq!(keys.refresh(), Ok(true));
    assert_eq!((status("bob", "POST").await, status("alice", "POST").await), (401, 422));
    assert_eq!(status("alice", "POST").await, 429, "what was used up before stays used up");

    std::fs::write(ring.path(), "[[keys]]\nname = 3").unwrap();
    let told = keys.refresh().unwrap_err().to_string();
    assert!(told.contains("keys.toml: line 2: "), "{told}");
    assert_eq!(keys.refresh(), Ok(false), "it is told once");
    assert_eq!(status("alice", "GET").await, 405, "the keys stay as they were");
    std::fs::remove_file(ring.path()).unwrap();
    assert!(keys.refresh().is_err());
    assert_eq!((keys.count(), status("alice", "GET").await), (1, 405));
}
