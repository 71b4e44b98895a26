//! The web UI's dialect on the fake device.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use ldm_core::Raster;
use ldm_engine::fake::FakeExecutor;
use serde_json::{Value, json};

use crate::codec::{Encoding, Format, base64, decode, encode};
use crate::testing::{Answer, get, house, post, send};

async fn router() -> Router {
    house().await.0
}

async fn ask(router: &Router, path: &str, body: Value) -> Answer {
    post(router, &format!("/sdapi/v1/{path}"), body.to_string()).await
}

fn picture(width: u32, height: u32, level: u8) -> String {
    base64(encode(&Raster::filled(width, height, [level; 3]), Encoding { format: Format::Png, quality: None }, None).unwrap())
}

fn small(more: Value) -> Value {
    let mut body = json!({ "prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn info(answer: &Answer) -> Value {
    serde_json::from_str(answer.json()["info"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn txt2img_answers_as_the_web_ui_does() {
    let router = router().await;
    let body = small(
        json!({ "batch_size": 2, "n_iter": 1, "seed": -1, "styles": null, "alwayson_scripts": {}, "s_churn": null, "tiling": false }),
    );
    let answer = ask(&router, "txt2img", body).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let (json, info) = (answer.json(), info(&answer));
    assert_eq!(json["images"].as_array().unwrap().len(), 2);
    assert_eq!((&json["parameters"]["seed"], &json["parameters"]["cfg_scale"]), (&json!(-1), &json!(7.0)));
    let seed = info["seed"].as_u64().unwrap();
    assert_eq!(info["all_seeds"], json!([seed, seed + 1]));
    assert_eq!(decode(json["images"][1].as_str().unwrap(), 1 << 20).unwrap(), FakeExecutor::picture(seed + 1, 64, 64));
    assert_eq!((&info["sampler_name"], &info["sd_model_name"], &info["steps"]), (&json!("Euler"), &json!("fake"), &json!(2)));
    assert!(info["infotexts"][0].as_str().unwrap().starts_with("a cat\nSteps: 2, Sampler: Euler"), "{info}");
    assert_eq!(info["job_timestamp"].as_str().unwrap().len(), 14);
}

#[tokio::test]
async fn old_names_of_samplers_are_split() {
    let router = router().await;
    for (sampler, scheduler, name, schedule) in [
        (json!("DPM++ 2M Karras"), json!(null), "DPM++ 2M", "karras"),
        (json!("DPM++ 2M"), json!("Karras"), "DPM++ 2M", "karras"),
        (json!("DPM++ 2M Karras"), json!("Automatic"), "DPM++ 2M", "karras"),
        (json!("DPM++ 2M Karras"), json!("Exponential"), "DPM++ 2M", "exponential"),
        (json!(null), json!(null), "Euler", "default"),
    ] {
        let answer = ask(&router, "txt2img", small(json!({ "sampler_name": sampler, "scheduler": scheduler }))).await;
        assert_eq!(answer.status, 200, "{sampler} {scheduler}: {}", answer.json());
        let info = info(&answer);
        assert_eq!((&info["sampler_name"], &info["extra_generation_params"]["Schedule type"]), (&json!(name), &json!(schedule)));
    }
    for (field, value) in [("sampler_name", "none such"), ("scheduler", "none such")] {
        let answer = ask(&router, "txt2img", small(json!({ field: value }))).await;
        let json = answer.json();
        assert_eq!((answer.status.as_u16(), &json["error"]), (404, &json!("HTTPException")), "{field}");
        assert!(json["detail"].as_str().unwrap().contains("none such") && json.get("errors").is_some(), "{json}");
    }
}

#[tokio::test]
async fn wrong_fields_are_listed_as_fastapi_does() {
    let router = router().await;
    let answer = ask(&router, "txt2img", small(json!({ "steps": 0, "cfg_scale": -1, "batch_size": 0 }))).await;
    assert_eq!(answer.status, 422);
    let detail = answer.json()["detail"].as_array().unwrap().clone();
    let fields: Vec<_> = detail.iter().map(|one| one["loc"][1].as_str().unwrap().to_owned()).collect();
    assert_eq!(fields, ["batch_size", "steps", "cfg_scale"]);
    let wrong = ask(&router, "txt2img", small(json!({ "steps": "many" }))).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["detail"][0]["loc"][1]), (422, &json!("steps")));
    assert_eq!(post(&router, "/sdapi/v1/txt2img", "[]").await.status, 400);
    let hires = ask(&router, "txt2img", small(json!({ "enable_hr": true, "hr_upscaler": "R-ESRGAN 4x+" }))).await;
    assert_eq!(hires.status, 404);
    let both = ask(&router, "txt2img", small(json!({ "enable_hr": true, "hr_resize_x": 128 }))).await;
    assert_eq!(both.status, 422);
}

#[tokio::test]
async fn a_second_pass_has_its_size() {
    let router = router().await;
    let answer = ask(&router, "txt2img", small(json!({ "enable_hr": true, "hr_scale": 2, "denoising_strength": 0.5 }))).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(info(&answer)["denoising_strength"], 0.5);
}

#[tokio::test]
async fn img2img_takes_pictures_and_masks_and_no_urls() {
    let router = router().await;
    let init = picture(32, 48, 9);
    let answer = ask(&router, "img2img", small(json!({ "init_images": [init], "denoising_strength": 0.5 }))).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!((&answer.json()["parameters"]["init_images"], &info(&answer)["denoising_strength"]), (&Value::Null, &json!(0.5)));

    let wrapped = format!("data:image/png;base64,{init}");
    let masked =
        json!({ "init_images": [wrapped], "mask": picture(8, 8, 255), "inpaint_full_res": false, "include_init_images": true });
    let answer = ask(&router, "img2img", small(masked)).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert!(answer.json()["parameters"]["init_images"][0].is_string());
    assert!(info(&answer)["infotexts"][0].as_str().unwrap().contains("Denoising strength: 0.75"));

    let several = ask(&router, "img2img", small(json!({ "init_images": [init, init] }))).await;
    assert_eq!(info(&several)["all_seeds"], json!([5, 6]));

    for (body, field) in [
        (json!({}), "init_images"),
        (json!({ "init_images": ["http://169.254.169.254/x.png"] }), "init_images[0]"),
        (json!({ "init_images": ["no picture"] }), "init_images[0]"),
        (json!({ "init_images": [init], "mask": picture(8, 8, 0) }), "mask"),
        (json!({ "init_images": [init], "mask": picture(8, 8, 255), "inpainting_mask_invert": 1 }), "mask"),
        (json!({ "init_images": [init], "resize_mode": 9 }), "resize_mode"),
    ] {
        let answer = ask(&router, "img2img", small(body)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["detail"][0]["loc"][1]), (422, &json!(field)), "{}", answer.json());
    }
}

#[tokio::test]
async fn options_are_a_ping_and_take_everything_back() {
    let router = router().await;
    let mut options = get(&router, "/sdapi/v1/options").await.json();
    assert!(options["sd_model_checkpoint"].as_str().unwrap().starts_with("fake"));
    assert!(options.get("forge_preset").is_none(), "clients tell another server by it");
    options["sd_model_checkpoint"] = json!("fake");
    options["never_heard_of"] = json!([1, 2]);
    let set = ask(&router, "options", options).await;
    assert_eq!((set.status.as_u16(), set.json()), (200, Value::Null));
    let none = ask(&router, "options", json!({ "sd_model_checkpoint": "none" })).await;
    assert_eq!((none.status.as_u16(), &none.json()["error"]), (404, &json!("HTTPException")));
}

#[tokio::test]
async fn lists_have_what_clients_index() {
    let router = router().await;
    let list = async |path: &str| get(&router, &format!("/sdapi/v1/{path}")).await.json();
    let models = list("sd-models").await;
    for key in ["title", "model_name", "hash", "sha256", "filename", "config"] {
        assert!(models[0].get(key).is_some(), "{key}");
    }
    let samplers = list("samplers").await;
    let names: Vec<_> = samplers.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"Euler") && names.contains(&"DPM++ 2M") && !names.contains(&"DPM++ 2M Karras"), "{names:?}");
    let schedulers = list("schedulers").await;
    assert!(schedulers.as_array().unwrap().iter().any(|one| one["label"] == "Karras"), "{schedulers}");
    assert_eq!(list("upscalers").await[0]["name"], "None");
    assert_eq!(list("latent-upscale-modes").await[0]["name"], "Latent");
    for path in ["sd-vae", "sd-modules", "hypernetworks", "face-restorers", "prompt-styles", "loras", "script-info"] {
        assert!(list(path).await.is_array(), "{path}");
    }
    assert!(list("scripts").await["txt2img"].is_array() && list("embeddings").await["loaded"].is_object());
    assert_eq!(get(&router, "/internal/ping").await.status, 200);
    let lost = get(&router, "/sdapi/v1/nowhere").await;
    assert_eq!((lost.status.as_u16(), &lost.json()["detail"]), (404, &json!("there is nothing at this path")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_and_an_interrupted_call_has_what_was_done() {
    let (router, control) = house().await;
    let idle = get(&router, "/sdapi/v1/progress").await.json();
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    control.steps.close();
    let call = {
        let router = router.clone();
        tokio::spawn(async move { ask(&router, "txt2img", small(json!({ "force_task_id": "task(mine)" }))).await })
    };
    control.steps.wait_blocked();
    let busy = get(&router, "/sdapi/v1/progress?skip_current_image=true").await.json();
    assert_eq!((&busy["state"]["job_count"], &busy["current_image"]), (&json!(1), &Value::Null));
    let one = post(&router, "/internal/progress", json!({ "id_task": "task(mine)" }).to_string()).await.json();
    assert_eq!((&one["active"], &one["completed"]), (&json!(true), &json!(false)));
    let other = post(&router, "/internal/progress", json!({ "id_task": "task(other)" }).to_string()).await.json();
    assert_eq!((&other["active"], &other["queued"], &other["completed"]), (&json!(false), &json!(false), &json!(false)));

    // Another task's interrupt is none of this one's.
    let stop = async |path: &str| send(&router, Request::post(path).body(Body::empty()).unwrap()).await;
    assert_eq!(stop("/sdapi/v1/interrupt?force_task_id=task(other)").await.json(), json!({}));
    assert_eq!(stop("/sdapi/v1/interrupt").await.json(), json!({}));
    control.steps.open();
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["images"]), (200, &json!([])));
    assert!(info(&answer)["all_seeds"].is_array());
    let done = post(&router, "/internal/progress", json!({ "id_task": "task(mine)" }).to_string()).await.json();
    assert_eq!(done["completed"], true);
}

#[tokio::test]
async fn a_picture_tells_how_it_was_made() {
    let router = router().await;
    let made = ask(&router, "txt2img", small(json!({ "negative_prompt": "dogs" }))).await.json()["images"][0].clone();
    let told = ask(&router, "png-info", json!({ "image": made })).await.json();
    assert!(told["info"].as_str().unwrap().starts_with("a cat\nNegative prompt: dogs\nSteps: 2, Sampler: Euler"), "{told}");
    let parameters = &told["parameters"];
    assert_eq!(
        (&parameters["Prompt"], &parameters["Negative prompt"], &parameters["Seed"]),
        (&json!("a cat"), &json!("dogs"), &json!("5"))
    );
    let plain = ask(&router, "png-info", json!({ "image": picture(4, 4, 0) })).await.json();
    assert_eq!(plain["info"], "");
    assert_eq!(ask(&router, "png-info", json!({ "image": "no picture" })).await.status, 422);
}

#[tokio::test]
async fn pictures_are_enlarged() {
    let router = router().await;
    let answer =
        ask(&router, "extra-single-image", json!({ "image": picture(8, 4, 77), "upscaling_resize": 2, "upscaler_1": "Lanczos" }))
            .await;
    let enlarged = decode(answer.json()["image"].as_str().unwrap(), 1 << 20).unwrap();
    assert_eq!((enlarged.width(), enlarged.height(), enlarged.data()[0]), (16, 8, 77));
    let to = json!({ "image": picture(8, 4, 77), "resize_mode": 1, "upscaling_resize_w": 10, "upscaling_resize_h": 10, "upscaler_1": "Nearest" });
    let enlarged = decode(ask(&router, "extra-single-image", to).await.json()["image"].as_str().unwrap(), 1 << 20).unwrap();
    assert_eq!((enlarged.width(), enlarged.height()), (10, 10));
    let batch = json!({ "imageList": [{ "data": picture(4, 4, 1), "name": "a" }, { "data": picture(4, 4, 2) }] });
    assert_eq!(ask(&router, "extra-batch-images", batch).await.json()["images"].as_array().unwrap().len(), 2);
    let model = ask(&router, "extra-single-image", json!({ "image": picture(16, 16, 77), "upscaler_1": "fake" })).await;
    assert_eq!(model.status, 200, "{}", model.json());
    for (body, status) in [
        (json!({ "image": picture(4, 4, 1), "upscaler_1": "none such" }), 404),
        (json!({ "image": "no picture" }), 422),
        (json!({ "image": picture(4, 4, 1), "upscaling_resize": 99 }), 422),
        (json!({ "image": picture(4, 4, 1), "resize_mode": 1, "upscaling_resize_w": 99_999, "upscaling_resize_h": 99_999 }), 422),
    ] {
        assert_eq!(ask(&router, "extra-single-image", body).await.status, status);
    }
}
