//! Every task through its route: as JSON and as a form, answered in every form, as a named job and as an estimate.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Map, Value, json};

use crate::app;
use crate::codec::base64;
use crate::testing::{Answer, form, get, house, picture, post, ready, send};

/// A PNG of one channel or four.
pub(super) fn png(colour: png::ColorType, width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

/// A mask whose left half is white.
pub(super) fn mask(width: u32, height: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..width * height).map(|i| if i % width < width / 2 { 255 } else { 0 }).collect();
    png(png::ColorType::Grayscale, width, height, &data)
}

pub(super) fn grey(width: u32, height: u32, value: u8) -> Vec<u8> {
    png(png::ColorType::Grayscale, width, height, &vec![value; (width * height) as usize])
}

/// A route, what its task needs beside pictures, and its pictures.
pub(super) struct Route {
    pub(super) word: &'static str,
    fields: Value,
    pictures: Vec<(&'static str, Vec<u8>)>,
}

fn route(word: &'static str, fields: Value, pictures: Vec<(&'static str, Vec<u8>)>) -> Route {
    Route { word, fields, pictures }
}

pub(super) fn routes() -> Vec<Route> {
    let boxes = json!([{"label": 1, "x": 0.1, "y": 0.2, "width": 0.5, "height": 0.25, "is_occluded": true}, {"label": 9, "x": 0, "y": 0, "width": 1, "height": 1}]);
    vec![
        route(
            "txt2img",
            json!({"prompt": "a cat", "hires": {"scale": 2, "steps": 1, "strength": 1, "upscaler": "pixel-lanczos"}}),
            vec![],
        ),
        route("img2img", json!({"prompt": "a cat", "strength": 0.5}), vec![("init_image", picture(8, 8))]),
        route(
            "inpaint",
            json!({"prompt": "a cat", "mask_blur": 4, "invert_mask": true, "only_masked": true, "padding": 8, "fill": "latent_noise", "composite": true}),
            vec![("init_image", picture(16, 8)), ("mask", mask(16, 8))],
        ),
        route("super-resolution", json!({"scale": 3, "noise_level": 5}), vec![("lr_image", picture(20, 24))]),
        route(
            "depth",
            json!({"prompt": "a cat", "strength": 0.9}),
            vec![("init_image", picture(8, 8)), ("depth_map", grey(4, 4, 90))],
        ),
        route("unconditional", json!({"guidance": 1}), vec![]),
        route("class", json!({"class": 7}), vec![]),
        route("layout", json!({"boxes": boxes}), vec![]),
        route("semantic", json!({}), vec![("semantic_map", grey(8, 8, 9))]),
        route("retrieval", json!({"neighbours": [[1, 0, 0, 0, 0, 0, 0, 0.5], base64([0, 0, 128, 63].repeat(8))]}), vec![]),
    ]
}

impl Route {
    pub(super) fn path(&self) -> String {
        format!("/v1/{}", self.word)
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Map<String, Value> {
        let mut body = self.fields.as_object().unwrap().clone();
        body.insert("steps".to_owned(), 4.into());
        body.insert("seed".to_owned(), 7.into());
        for (field, file) in &self.pictures {
            body.insert((*field).to_owned(), base64(file).into());
        }
        body
    }

    async fn form(&self, router: &Router) -> Answer {
        let mut parts: Vec<(String, Option<&str>, Vec<u8>)> = Vec::new();
        for (field, value) in self.fields.as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            parts.push((field.clone(), None, text.into_bytes()));
        }
        parts.push(("steps".to_owned(), None, b"4".to_vec()));
        parts.push(("seed".to_owned(), None, b"7".to_vec()));
        for (field, file) in &self.pictures {
            parts.push(((*field).to_owned(), Some("picture.png"), file.clone()));
        }
        let parts: Vec<_> = parts.iter().map(|(name, file, bytes)| (name.as_str(), *file, bytes.as_slice())).collect();
        let (kind, body) = form(&parts);
        send(router, Request::post(self.path()).header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap()).await
    }
}

pub(super) async fn ask(router: &Router, path: &str, body: &Map<String, Value>) -> Answer {
    post(router, path, Value::Object(body.clone()).to_string()).await
}

#[tokio::test]
async fn every_task_is_drawn_from_json_and_from_a_form() {
    let router = app(ready().await.0);
    assert_eq!(routes().len(), ldm_core::Task::ALL.len());
    for route in routes() {
        let json = ask(&router, &route.path(), &route.json()).await;
        assert_eq!(json.status, 200, "{}: {}", route.word, json.json());
        let form = route.form(&router).await;
        assert_eq!(form.status, 200, "{}: {}", route.word, form.json());
        let (json, form) = (json.json(), form.json());
        assert_eq!(json["parameters"], form["parameters"], "{}", route.word);
        assert_eq!(json["images"][0]["b64"], form["images"][0]["b64"], "{}", route.word);
        // What made the picture, with the pictures that it was made of, makes it again.
        let mut again = json["parameters"].as_object().unwrap().clone();
        if route.word == "super-resolution" {
            assert_eq!([&again["width"], &again["height"], &again["scale"]], [60, 72, 3]);
        }
        route.pictures.iter().for_each(|(field, file)| drop(again.insert((*field).to_owned(), base64(file).into())));
        if let Some(neighbours) = route.fields.get("neighbours") {
            again.insert("neighbours".to_owned(), neighbours.clone());
        }
        let again = ask(&router, &route.path(), &again).await;
        assert_eq!(again.status, 200, "{}: {}", route.word, again.json());
        assert_eq!(again.json()["parameters"], json["parameters"], "{}", route.word);
    }
}

#[tokio::test]
async fn every_task_answers_in_every_form() {
    let router = app(ready().await.0);
    for route in routes() {
        let with = async |accept: &str| {
            let request =
                Request::post(route.path()).header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, accept);
            send(&router, request.body(Body::from(Value::Object(route.json()).to_string())).unwrap()).await
        };
        let raw = with("image/png").await;
        assert_eq!((raw.status.as_u16(), raw.header("content-type"), raw.header("x-seed")), (200, "image/png", "7"));
        assert!(raw.body.starts_with(b"\x89PNG"), "{}", route.word);
        let events = with("text/event-stream").await;
        let text = String::from_utf8(events.body).unwrap();
        assert!(text.contains("event: result") && !text.contains("event: error"), "{}: {text}", route.word);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_can_be_estimated_and_handed_in_by_name() {
    let (router, _) = house().await;
    for route in routes() {
        let mut body = route.json();
        body.insert("task".to_owned(), route.word.into());
        let estimate = ask(&router, "/v1/estimate", &body).await;
        assert_eq!((estimate.status.as_u16(), &estimate.json()["images"]), (200, &json!(1)), "{}", estimate.json());
        let request = Request::put(format!("/v1/jobs/{}", route.word)).header(header::CONTENT_TYPE, "application/json");
        let accepted = send(&router, request.body(Body::from(Value::Object(body).to_string())).unwrap()).await;
        assert!([200, 202].contains(&accepted.status.as_u16()), "{}: {}", route.word, accepted.json());
        let path = format!("/v1/jobs/{}", accepted.json()["id"].as_str().unwrap());
        let job = loop {
            let job = get(&router, &path).await.json();
            if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
                break job;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(job["state"], "succeeded", "{}: {job}", route.word);
    }
    let rdm = routes().pop().unwrap();
    let mut body = rdm.json();
    body.insert("task".to_owned(), "rdm".into());
    assert_eq!(ask(&router, "/v1/estimate", &body).await.json()["task"], "rdm");
    body.insert("task".to_owned(), "paint".into());
    let unknown = ask(&router, "/v1/estimate", &body).await;
    assert_eq!(unknown.fields(), ["task"]);
    assert!(unknown.json()["error"]["message"].as_str().unwrap().contains("super-resolution"));
}

#[tokio::test]
async fn settings_are_said_back_as_they_were_said() {
    let router = app(ready().await.0);
    let said = json!({
        "prompting": "plain", "rounding": "truncate", "clip_skip": 2, "guidance_rescale": 0.7, "guidance_interval": [0.3, null],
        "random": "gpu", "library": "k-diffusion", "subseed": 9, "subseed_strength": 0.25, "eta_seed_delta": -31337,
    });
    let answer = post(&router, "/v1/txt2img", said.to_string()).await.json();
    for (field, value) in said.as_object().unwrap() {
        assert_eq!(&answer["parameters"][field], value, "{field}");
    }
    let usual = post(&router, "/v1/txt2img", "{}").await.json();
    for field in said.as_object().unwrap().keys().filter(|field| *field != "rounding") {
        assert!(usual["parameters"].get(field).is_none(), "{field}");
    }
    let mut body = routes().into_iter().find(|route| route.word == "inpaint").unwrap().json();
    body.insert("mask_blur".to_owned(), json!([4, 0.5]));
    let answer = ask(&router, "/v1/inpaint", &body).await.json();
    assert_eq!(answer["parameters"]["mask_blur"], json!([4.0, 0.5]));
    assert_eq!(answer["parameters"]["fill"], "latent_noise");
}

#[tokio::test]
async fn a_model_says_what_its_tasks_are_bounded_by() {
    let router = app(ready().await.0);
    let models = get(&router, "/v1/models").await.json();
    let conditions = &models["models"][0]["conditions"];
    let expected = json!({
        "prompt": true, "guidance": true, "classes": 10, "labels": 10, "boxes": 30, "semantic_classes": 10, "scale": 4,
        "noise_levels": 350, "neighbours": 20, "neighbour_width": 8,
    });
    assert_eq!(conditions, &expected);
}
