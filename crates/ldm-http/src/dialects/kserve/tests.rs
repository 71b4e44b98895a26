//! Health and metadata by KServe's paths.

use ldm_engine::Limits;
use ldm_engine::fake::FakeOptions;

use crate::app;
use crate::testing::{get, ready, started};

#[tokio::test]
async fn what_is_ready_says_so_by_every_name() {
    let router = app(ready().await.0);
    for path in ["/healthz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/fake/ready"] {
        assert_eq!(get(&router, path).await.status, 200, "{path}");
    }
    assert_eq!(get(&router, "/v2/models/fake").await.json()["name"], "fake");
    for path in ["/v2/models/none", "/v2/models/none/ready"] {
        let answer = get(&router, path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "model_not_found"), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_ready_is_alive_all_the_same() {
    let options = FakeOptions { load_failure: Some("no weights".to_owned()), ..FakeOptions::default() };
    let (failed, _) = started(Limits::default(), options);
    failed.service.wait_ready().await.unwrap_err();
    let router = app(failed);
    for (path, status) in [
        ("/healthz", 200),
        ("/v2/health/live", 200),
        ("/health", 503),
        ("/ping", 503),
        ("/v2/health/ready", 503),
        ("/v2/models/fake/ready", 503),
    ] {
        assert_eq!(get(&router, path).await.status, status, "{path}");
    }
}
