//! The document holds together, says all routes, and is the committed one; answers have the fields that it says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::openapi;
use crate::app;
use crate::testing::{get, house, picture, post, ready, send};

fn document() -> Value {
    serde_json::from_str(openapi()).expect("the document is JSON")
}

#[test]
fn the_committed_copy_is_the_served_one() {
    let committed =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")).unwrap_or_default();
    let first = committed.lines().zip(openapi().lines()).position(|(a, b)| a != b);
    let again = "cargo run -p ldm-http --example openapi > docs/openapi.json";
    assert!(committed == openapi(), "docs/openapi.json is not what is served (line {first:?}): {again}");
}

#[test]
fn it_is_openapi_31_and_every_reference_leads_somewhere() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut refs = Vec::new();
    references(&document, &mut refs);
    assert!(refs.len() > 100);
    for reference in refs {
        let pointer = reference.strip_prefix('#').expect("nothing lies elsewhere");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path} shares its id");
        assert!(operation["responses"].as_object().is_some_and(|all| all.keys().any(|status| status.starts_with('2'))), "{path}");
        for part in path.split('{').skip(1) {
            let name = part.split('}').next().unwrap();
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|it| it["name"] == name && it["in"] == "path" && it["required"] == true), "{path}");
        }
    }
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        item.into_iter().map(|(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
    };
    paths.flat_map(methods).collect()
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|inner| references(inner, found));
        }
        Value::Array(array) => array.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

/// The paths that the sources give to `route`, and lists of them.
fn routed() -> BTreeSet<String> {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => sources(&entry, found),
                false => found.push(entry),
            }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut paths = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for call in text.split(".route(").skip(1) {
            if let Some(path) = call.trim_start().strip_prefix("\"/") {
                paths.insert(format!("/{}", path.split('"').next().unwrap().replace("{*", "{")));
            }
        }
    }
    paths.extend(crate::dialects::a1111::docs::LISTED.iter().flat_map(|list| list.iter()).map(|path| (*path).to_owned()));
    // This file's own.
    paths.remove("/");
    paths
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let document = document();
    let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(described, routed());
    let (router, _) = house().await;
    for (path, method, _) in operations(&document) {
        let filled = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part }).collect::<Vec<_>>().join("/");
        let request = Request::builder().method(method.to_uppercase().as_str()).uri(filled).body(Body::empty()).unwrap();
        let answer = send(&router, request).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        if answer.status == 404 {
            assert_ne!(answer.json()["error"]["message"], "there is nothing at this path", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let router = app(ready().await.0);
    let served = get(&router, "/openapi.json").await;
    assert_eq!((served.header("content-type"), served.body.as_slice()), ("application/json", openapi().as_bytes()));
    let page = get(&router, "/docs").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; connect-src 'self';"));
    let text = String::from_utf8(page.body).unwrap();
    for elsewhere in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!text.contains(elsewhere), "{elsewhere}");
    }
}

/// Every field of a schema and of its parts.
fn gather(document: &Value, schema: &Value, whole: &mut Value) {
    let schema = schema["$ref"].as_str().map_or(schema, |pointer| document.pointer(&pointer[1..]).unwrap());
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        whole["properties"][name] = property.clone();
    }
    for kind in ["allOf", "oneOf", "anyOf"] {
        schema[kind].as_array().into_iter().flatten().for_each(|part| gather(document, part, whole));
    }
}

/// Whether a value is as a schema says, in its fields and their types: every field is known, and required ones are there.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(pointer) = schema["$ref"].as_str() {
        return fits(document, document.pointer(&pointer[1..]).unwrap(), value);
    }
    if schema["allOf"].is_array() {
        let mut whole = json!({ "type": "object", "properties": {} });
        gather(document, schema, &mut whole);
        return fits(document, &whole, value);
    }
    if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let tried: Vec<_> = all.iter().map(|one| fits(document, one, value)).collect();
        return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{tried:?}")) };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    if !types.iter().any(is) {
        return Err(format!("{value} is no {types:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item)?;
    }
    let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else { return Ok(()) };
    for (name, inner) in object {
        let property = properties.get(name).ok_or_else(|| format!("`{name}` is not described"))?;
        fits(document, property, inner).map_err(|error| format!("{name}: {error}"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Err(format!("`{name}` is required and not there"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_as_they_are_described() {
    let document = document();
    let (router, _) = house().await;
    let png = crate::codec::base64(picture(64, 64));
    let example = json!({ "task": "txt2img", "prompt": "x", "steps": 2, "quality": 80, "preview_every": 1 });
    let asked = [
        ("post", "/v1/txt2img", json!({ "prompt": "x", "steps": 2, "loras": [] })),
        ("post", "/v1/txt2img", json!({ "prompt": "x", "steps": 0, "nothing": 1 })),
        ("post", "/v1/img2img", json!({ "prompt": "x", "steps": 2, "strength": 0.5, "init_image": png })),
        (
            "post",
            "/v1/inpaint",
            json!({ "prompt": "x", "steps": 2, "init_image": png, "mask": png, "mask_blur": [1, 2], "clip_skip": 1 }),
        ),
        (
            "post",
            "/v1/class",
            json!({ "class": 3, "steps": 2, "guidance_interval": [1, null], "subseed": 4, "subseed_strength": 0.5 }),
        ),
        ("post", "/v1/layout", json!({ "steps": 2, "boxes": [{ "label": 1, "x": 0, "y": 0, "width": 1, "height": 1 }] })),
        ("post", "/v1/estimate", example),
        ("post", "/v1/png-info", json!({ "image": png })),
        ("post", "/v1/jobs", json!({ "task": "txt2img", "prompt": "x", "steps": 2 })),
        ("get", "/v1/jobs", Value::Null),
        ("get", "/v1/models", Value::Null),
        ("get", "/v1/samplers", Value::Null),
        ("post", "/v1/images/generations", json!({ "prompt": "x", "num_inference_steps": 2, "size": "64x64" })),
        ("post", "/v1/images/generations", json!({ "prompt": "x", "n": 11, "response_format": "url" })),
        ("post", "/sdapi/v1/txt2img", json!({ "prompt": "x", "steps": 2, "width": 64, "height": 64 })),
        ("post", "/sdapi/v1/txt2img", json!({ "steps": 0 })),
        ("post", "/sdapi/v1/txt2img", json!({ "sampler_name": "none" })),
        ("post", "/sdapi/v1/extra-single-image", json!({ "image": png, "upscaler_1": "Lanczos" })),
        ("post", "/sdapi/v1/extra-batch-images", json!({ "imageList": [{ "data": png }] })),
        ("post", "/sdapi/v1/png-info", json!({ "image": png })),
        ("post", "/sdapi/v1/options", json!({})),
        ("post", "/internal/progress", json!({ "id_task": "x" })),
    ];
    let plain = operations(&document).into_iter().filter(|(path, method, _)| method == "get" && !path.contains('{'));
    let plain: Vec<_> = plain.map(|(path, method, _)| (method, path)).collect();
    let asked = asked.iter().map(|(method, path, body)| ((*method).to_owned(), (*path).to_owned(), body.clone()));
    for (method, path, body) in asked.chain(plain.into_iter().map(|(method, path)| (method, path, Value::Null))) {
        let answer = if method == "get" { get(&router, &path).await } else { post(&router, &path, body.to_string()).await };
        let response = &document["paths"][&path][&method]["responses"][answer.status.as_str()];
        let response = response["$ref"].as_str().map_or(response, |pointer| document.pointer(&pointer[1..]).unwrap());
        let kind = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
        let media = &response["content"][&kind];
        assert!(media.is_object(), "{method} {path}: {} of {kind} is not described", answer.status);
        if kind == "application/json" {
            let value = answer.json();
            fits(&document, &media["schema"], &value).unwrap_or_else(|error| panic!("{method} {path}: {error}\n{value}"));
        }
    }
}
