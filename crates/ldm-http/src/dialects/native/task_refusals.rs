//! What tasks' routes refuse: fields that are missing, of a wrong kind, out of bounds, or of another task.

use serde_json::{Value, json};

use super::task_tests::{ask, grey, mask, png, routes};
use crate::app;
use crate::codec::base64;
use crate::testing::{picture, post, ready};

#[tokio::test]
async fn what_a_task_needs_is_named_when_it_is_missing() {
    let router = app(ready().await.0);
    for (word, fields) in [
        ("img2img", &["init_image"][..]),
        ("inpaint", &["init_image", "mask"]),
        ("super-resolution", &["lr_image"]),
        ("depth", &["init_image", "depth_map"]),
        ("class", &["class"]),
        ("layout", &["boxes"]),
        ("semantic", &["semantic_map"]),
        ("retrieval", &["neighbours"]),
    ] {
        let answer = post(&router, &format!("/v1/{word}"), "{}").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "invalid_request"), "{word}");
        assert_eq!(answer.fields(), fields, "{word}");
    }
    assert_eq!(post(&router, "/v1/unconditional", "{}").await.status, 200);
}

#[tokio::test]
async fn every_field_of_a_task_is_checked_and_named() {
    let router = app(ready().await.0);
    let base = |file: Vec<u8>| json!(base64(file));
    let one = json!({"label": 1, "x": 0, "y": 0, "width": 1, "height": 1});
    let with = |field: &str, value: Value| {
        let mut one = one.clone();
        one[field] = value;
        json!([one])
    };
    let table = [
        ("inpaint", "init_image", json!(7)),
        ("inpaint", "init_image", json!("%%%")),
        ("inpaint", "mask", json!(true)),
        ("inpaint", "mask", json!("https://example.org/mask.png")),
        ("inpaint", "mask", base(mask(8, 8))),
        ("inpaint", "mask", base(grey(16, 8, 255))),
        ("inpaint", "mask_blur", json!("wide")),
        ("inpaint", "mask_blur", json!([1, 2, 3])),
        ("inpaint", "mask_blur", json!([1, "2"])),
        ("inpaint", "mask_blur", json!(-1)),
        ("inpaint", "mask_blur", json!([0, 64.5])),
        ("inpaint", "invert_mask", json!(1)),
        ("inpaint", "only_masked", json!("yes")),
        ("inpaint", "padding", json!(257)),
        ("inpaint", "padding", json!(1.5)),
        ("inpaint", "fill", json!("smear")),
        ("inpaint", "fill", json!(1)),
        ("inpaint", "composite", json!([])),
        ("inpaint", "strength", json!(2)),
        ("inpaint", "class", json!(2)),
        ("super-resolution", "lr_image", json!({})),
        ("super-resolution", "scale", json!(0)),
        ("super-resolution", "scale", json!(17)),
        ("super-resolution", "scale", json!(2.5)),
        ("super-resolution", "noise_level", json!(350)),
        ("super-resolution", "noise_level", json!("low")),
        ("super-resolution", "width", json!(64)),
        ("super-resolution", "init_image", base(picture(8, 8))),
        ("super-resolution", "strength", json!(0.5)),
        ("depth", "depth_map", json!("%%%")),
        ("depth", "depth_map", json!([1, 2])),
        ("depth", "strength", json!(0)),
        ("depth", "mask", base(mask(8, 8))),
        ("unconditional", "prompt", json!("a cat")),
        ("unconditional", "class", json!(1)),
        ("class", "class", json!(-1)),
        ("class", "class", json!(10)),
        ("class", "class", json!("cat")),
        ("class", "boxes", json!([one])),
        ("layout", "boxes", json!({})),
        ("layout", "boxes", json!([])),
        ("layout", "boxes", Value::Array(vec![one.clone(); 31])),
        ("layout", "boxes", Value::Array(vec![json!(1); 4097])),
        ("layout", "boxes[0]", json!([7])),
        ("layout", "boxes[0].label", with("label", Value::Null)),
        ("layout", "boxes[0].label", with("label", json!("cat"))),
        ("layout", "boxes[0].label", with("label", json!(10))),
        ("layout", "boxes[0].x", with("x", json!("left"))),
        ("layout", "boxes[0].height", with("height", Value::Null)),
        ("layout", "boxes[0].is_inside", with("is_inside", json!(1))),
        ("layout", "boxes[0].labl", with("labl", json!(1))),
        ("layout", "boxes[0]", with("x", json!(0.5))),
        ("layout", "boxes[0]", with("y", json!(-0.1))),
        ("semantic", "semantic_map", json!("%%%")),
        ("semantic", "semantic_map", base(grey(4, 4, 10))),
        ("semantic", "semantic_map", base(png(png::ColorType::Rgb, 1, 1, &[1, 2, 3]))),
        ("retrieval", "neighbours", json!("aGVsbG8=")),
        ("retrieval", "neighbours", json!([])),
        ("retrieval", "neighbours[0]", json!([7])),
        ("retrieval", "neighbours[0]", json!(["%%%"])),
        ("retrieval", "neighbours[0]", json!(["aGVsbG8="])),
        ("retrieval", "neighbours[0]", json!([[1, 2, 3]])),
        ("retrieval", "neighbours[0]", json!([[0, 0, 0, 0, 0, 0, 0, 0]])),
        ("retrieval", "neighbours[0]", json!([[1e300, 0, 0, 0, 0, 0, 0, 0]])),
        ("retrieval", "neighbours[0]", json!([[1, "2", 0, 0, 0, 0, 0, 0]])),
        ("retrieval", "hires", json!({})),
        ("txt2img", "hires", json!(2)),
        ("txt2img", "hires.scale", json!({"scale": 9})),
        ("txt2img", "hires.steps", json!({"steps": "many"})),
        ("txt2img", "hires.upscaler", json!({"upscaler": "magic"})),
        ("txt2img", "hires.strenght", json!({"strenght": 1})),
        ("txt2img", "hires.width", json!({"width": 63})),
        ("txt2img", "prompting", json!("loud")),
        ("txt2img", "rounding", json!(1)),
        ("txt2img", "clip_skip", json!(12)),
        ("txt2img", "clip_skip", json!(-1)),
        ("txt2img", "guidance_rescale", json!(1.5)),
        ("txt2img", "guidance_interval", json!([2, 1])),
        ("txt2img", "guidance_interval", json!([1])),
        ("txt2img", "guidance_interval", json!(3)),
        ("txt2img", "random", json!("dice")),
        ("txt2img", "library", json!("compvis")),
        ("txt2img", "subseed", json!(-1)),
        ("txt2img", "subseed_strength", json!("half")),
        ("txt2img", "eta_seed_delta", json!(0.5)),
        ("txt2img", "mask_blur", json!(1)),
    ];
    let mut wrong = Vec::new();
    for (word, field, value) in table {
        let route = routes().into_iter().find(|route| route.word == word).unwrap();
        let mut body = route.json();
        body.insert(field.split(['[', '.']).next().unwrap().to_owned(), value.clone());
        let answer = ask(&router, &route.path(), &body).await;
        if answer.status != 422 {
            wrong.push(format!("{word} {field} = {value}: {}", answer.status));
            continue;
        }
        let fields: std::collections::BTreeSet<_> = answer.fields().into_iter().collect();
        let said = answer.json()["error"]["violations"].clone();
        // What depends on a field that is wrong may be wrong, too.
        let known = ["hires.scale", "hires.steps", "only_masked"].contains(&field);
        let named = fields.contains(field) && (fields.len() == 1 || known);
        if !named || !said[0]["limit"].is_string() || !said[0]["message"].as_str().unwrap().contains(field) {
            wrong.push(format!("{word} {field} = {value}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn subseeds_and_paddings_do_not_stand_alone() {
    let router = app(ready().await.0);
    let fields = async |word: &str, body: Value| post(&router, &format!("/v1/{word}"), body.to_string()).await.fields();
    assert_eq!(fields("txt2img", json!({"subseed": 3})).await, ["subseed_strength"]);
    assert_eq!(fields("txt2img", json!({"subseed_strength": 0.5})).await, ["subseed"]);
    assert_eq!(fields("txt2img", json!({"subseed_strength": "x"})).await, ["subseed_strength"]);
    let inpaint = json!({"init_image": base64(picture(8, 8)), "mask": base64(mask(8, 8)), "padding": 3});
    assert_eq!(fields("inpaint", inpaint).await, ["padding"]);
}

#[tokio::test]
async fn what_is_transparent_is_painted_when_no_mask_is_sent() {
    let router = app(ready().await.0);
    let half = [[9, 9, 9, 255], [9, 9, 9, 0]].concat().repeat(4);
    let open = base64(png(png::ColorType::Rgba, 2, 4, &half));
    let answer = post(&router, "/v1/inpaint", json!({"init_image": open}).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let closed = base64(png(png::ColorType::Rgba, 1, 1, &[9, 9, 9, 255]));
    for init in [closed, base64(picture(8, 8))] {
        assert_eq!(post(&router, "/v1/inpaint", json!({"init_image": init}).to_string()).await.fields(), ["mask"]);
    }
    // A mask that is sent is the mask.
    let both = json!({"init_image": base64(png(png::ColorType::Rgba, 2, 4, &half)), "mask": base64(grey(2, 4, 0))});
    assert_eq!(post(&router, "/v1/inpaint", both.to_string()).await.fields(), ["mask"]);
    let wrong = json!({"init_image": base64(png(png::ColorType::Rgba, 2, 4, &half)), "mask": "%%%"});
    assert_eq!(post(&router, "/v1/inpaint", wrong.to_string()).await.fields(), ["mask"]);
}
