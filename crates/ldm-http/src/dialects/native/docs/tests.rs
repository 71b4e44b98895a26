//! What is described is what is read and answered.

use serde_json::{Value, json};

use super::requests;
use crate::openapi::{Document, Object};
use crate::testing::{house, post};

/// The fields that a reader says it knows, when it hears one that it does not.
async fn known(router: &axum::Router, path: &str, mut body: Value) -> Vec<String> {
    body["no such field"] = json!(1);
    let answer = post(router, path, body.to_string()).await;
    let json = answer.json();
    let violations = json["error"]["violations"].as_array().unwrap();
    let unknown = violations.iter().find(|bad| bad["field"] == "no such field").unwrap_or_else(|| panic!("{json}"));
    unknown["limit"].as_str().unwrap().split(", ").map(str::to_owned).collect()
}

fn described(object: &Object) -> Vec<String> {
    object.properties.keys().cloned().collect()
}

#[tokio::test]
async fn every_field_that_is_read_is_described_and_no_other() {
    let (router, _) = house().await;
    let mut document = Document::default();
    let tasks = requests::tasks(&mut document);
    for task in &tasks {
        for (path, fields) in [(task.path, &task.fields), ("/v1/estimate", &requests::said(&mut document, task))] {
            let mut known = known(&router, path, json!({ "task": task.name })).await;
            let mut described = described(fields);
            // Fields of other tasks are known, to say where they belong.
            let mut others = Vec::new();
            for field in known.clone().into_iter().filter(|field| !described.contains(field)) {
                let body = json!({ "task": task.name, (field.clone()): "iVBORw0=" });
                let answer = post(&router, "/v1/estimate", body.to_string()).await;
                assert!(answer.fields().contains(&field), "{}: `{field}` is read and not described", task.name);
                others.push(field);
            }
            known.retain(|field| !others.contains(field));
            known.sort();
            described.sort();
            assert_eq!(known, described, "{path}, {}", task.name);
        }
    }
    let known = known(&router, "/v1/png-info", json!({})).await;
    assert_eq!(known, described(&requests::png_info()));
}

#[tokio::test]
async fn every_served_task_is_described_and_its_example_is_taken() {
    let (router, _) = house().await;
    let tasks = requests::tasks(&mut Document::default());
    let names: Vec<_> = tasks.iter().map(|task| task.name).collect();
    assert_eq!(names, ldm_core::Task::ALL.map(super::super::routes::word));
    for task in &tasks {
        let answer = post(&router, task.path, task.example.to_string()).await;
        assert_eq!(answer.status, 200, "{}: {}", task.name, String::from_utf8_lossy(&answer.body));
        for file in task.files {
            assert!(task.fields.properties.contains_key(*file), "{file}");
        }
    }
}
