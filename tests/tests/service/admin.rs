//! The routes that change models: who may, and what they do.

use std::sync::Arc;

use async_trait::async_trait;
use ldm_core::{Failure, FailureKind};
use ldm_engine::{Limits, ModelChange, Service};
use ldm_http::{Admin, ModelOrder, Models};
use serde_json::json;

use crate::client::{Answer, fetch_with};
use crate::house::House;

/// What the binary does, for fake models: their source is a name.
struct Fakes(Service);

#[async_trait]
impl Models for Fakes {
    async fn change(&self, order: ModelOrder) -> Result<(), Failure> {
        self.0
            .change_models(match order {
                ModelOrder::Put { path, .. } if path == "nowhere" => {
                    return Err(Failure::new(FailureKind::Unsupported, "there are no weights at \"nowhere\""));
                }
                ModelOrder::Put { id, .. } => ModelChange::Put(Arc::new(id)),
                ModelOrder::Remove(id) => ModelChange::Remove(id),
                ModelOrder::Reload(id) => ModelChange::Reload(id),
            })
            .await
    }
}

async fn house(token: Option<&str>) -> House {
    let dress = |app: ldm_http::App, service: &Service| app.admin(Admin::new(Arc::new(Fakes(service.clone())), token));
    let house = House::dressed(Limits::default(), |_| {}, dress).await;
    house.service.wait_ready().await.unwrap();
    house
}

async fn ask(house: &House, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let json = [("content-type", "application/json")];
    fetch_with(house.at, method, path, &[headers, &json].concat(), body.as_bytes()).await
}

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let models = json["workers"][0]["models"].as_array().unwrap_or_else(|| panic!("no list: {json}"));
    models.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_while_the_service_runs() {
    let house = house(None).await;
    let list = ask(&house, "GET", "/v1/admin/models", &[], "").await;
    assert_eq!(
        list.json(),
        json!({ "workers": [{ "worker": "device", "models": [{ "id": "fake", "loaded": true, "bytes": 100 }] }] })
    );

    let added = ask(&house, "POST", "/v1/admin/models", &[], r#"{"id": "org/new", "path": "somewhere"}"#).await;
    assert_eq!((added.status, ids(&added)), (200, vec!["fake".to_owned(), "org/new".to_owned()]));
    assert_eq!(house.post("/v1/txt2img", "*/*", json!({ "model": "org/new", "steps": 1 })).await.status, 200);
    assert_eq!(ask(&house, "POST", "/v1/admin/models/org%2Fnew/reload", &[], "").await.status, 200);

    let removed = ask(&house, "DELETE", "/v1/admin/models/org%2Fnew", &[], "").await;
    assert_eq!((removed.status, ids(&removed)), (200, vec!["fake".to_owned()]));
    let gone = house.post("/v1/txt2img", "*/*", json!({ "model": "org/new" })).await;
    assert_eq!((gone.status, &gone.json()["error"]["violations"][0]["field"]), (422, &json!("model")));
    for (method, path) in [("DELETE", "/v1/admin/models/org%2Fnew"), ("POST", "/v1/admin/models/none/reload")] {
        let answer = ask(&house, method, path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_model"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_added_is_said() {
    let house = house(None).await;
    for (body, fields) in [
        (json!({}), vec!["id", "path"]),
        (json!({ "id": "a b", "path": "p" }), vec!["id"]),
        (json!({ "id": 1, "path": "p", "dir": "q" }), vec!["id", "dir"]),
    ] {
        let answer = ask(&house, "POST", "/v1/admin/models", &[], &body.to_string()).await;
        assert_eq!(answer.status, 422, "{body}");
        let json = answer.json();
        let named: Vec<_> =
            json["error"]["violations"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{body}");
    }
    let nowhere = ask(&house, "POST", "/v1/admin/models", &[], r#"{"id": "a", "path": "nowhere"}"#).await;
    assert_eq!((nowhere.status, nowhere.code().as_str()), (422, "unsupported"));
    assert_eq!(ask(&house, "POST", "/v1/admin/models", &[], "{").await.code(), "malformed_json");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_the_token_may() {
    let house = house(Some("open sesame")).await;
    for shown in [None, Some("Bearer open sesamE"), Some("Bearer "), Some("open sesame"), Some("Basic open sesame")] {
        let headers: Vec<_> = shown.map(|shown| ("authorization", shown)).into_iter().collect();
        for (method, path) in [("GET", "/v1/admin/models"), ("DELETE", "/v1/admin/models/fake"), ("POST", "/v1/admin/models")] {
            let answer = ask(&house, method, path, &headers, "").await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{shown:?} {method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let shown = [("authorization", "Bearer open sesame"), ("origin", "https://a.example")];
    assert_eq!(ask(&house, "GET", "/v1/admin/models", &shown, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_no_browser_page_may_and_without_the_switch_nobody() {
    let page = [("origin", "http://localhost:3000")];
    let house = house(None).await;
    let answer = ask(&house, "POST", "/v1/admin/models/fake/reload", &page, "").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    let off = House::ready(Limits::default()).await;
    let answer = ask(&off, "GET", "/v1/admin/models", &[], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "admin_off"));
}
