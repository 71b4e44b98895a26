//! The dialect's routes, described.

mod answers;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Object, Schema};
use utoipa::openapi::{Response, ResponseBuilder};

pub(crate) use answers::Error;

use super::extras::Extra;
use super::fields::Fields;
use super::{png_info, progress, stubs, wire};
use crate::openapi::{Document, Op, PIXEL, Shape, WEBUI, object};

/// How a request for pictures may fail.
const DRAWING: [u16; 11] = [400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 504];
/// How a question may.
const ASKING: [u16; 5] = [400, 401, 403, 429, 503];
/// Fields that txt2img alone reads.
const TXT2IMG: [&str; 6] = ["enable_hr", "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_resize_x", "hr_resize_y"];
/// Fields that img2img alone reads.
const IMG2IMG: [&str; 11] = [
    "init_images",
    "mask",
    "resize_mode",
    "mask_blur",
    "mask_blur_x",
    "mask_blur_y",
    "inpainting_fill",
    "inpaint_full_res",
    "inpaint_full_res_padding",
    "inpainting_mask_invert",
    "include_init_images",
];
/// Routes that lists name.
#[cfg(test)]
pub(crate) const LISTED: [&[&str]; 2] = [&stubs::EMPTY, &stubs::REFRESH];

pub(crate) fn describe(document: &mut Document) {
    drawing(document);
    asking(document);
    lists(document);
    empty(document);
}

fn post<'a>(document: &'a mut Document, path: &'static str, summary: &str) -> Op<'a> {
    Op::post(document, WEBUI, path, summary).shape(Shape::WebUi)
}

fn get<'a>(document: &'a mut Document, path: &'static str, summary: &str) -> Op<'a> {
    Op::get(document, WEBUI, path, summary).shape(Shape::WebUi)
}

/// The fields but these.
fn fields(but: &[&str]) -> Object {
    let mut object = object::<Fields>();
    object.properties.retain(|name, _| !but.contains(&name.as_str()));
    object
}

fn drawing(document: &mut Document) {
    document.take::<Fields>();
    let example = json!({ "prompt": "a red circle", "width": 64, "height": 64, "steps": 20, "cfg_scale": 3 });
    let body = document.name("WebUiTxt2Img", Schema::Object(fields(&IMG2IMG)));
    let op = post(document, "/sdapi/v1/txt2img", "Pictures from a prompt").takes("application/json", body, Some(example));
    op.optional().answers::<wire::Images>(200, "The pictures; `info` is JSON as a text.").errors(&DRAWING).done();
    let example = json!({ "prompt": "in watercolour", "init_images": [PIXEL], "width": 64, "height": 64, "steps": 20 });
    let mut img2img = fields(&TXT2IMG);
    img2img.required.push("init_images".to_owned());
    let body = document.name("WebUiImg2Img", Schema::Object(img2img));
    let op = post(document, "/sdapi/v1/img2img", "Pictures from pictures").takes("application/json", body, Some(example));
    op.answers::<wire::Images>(200, "The pictures; `info` is JSON as a text.").errors(&DRAWING).done();
    let example = json!({ "image": PIXEL, "upscaling_resize": 2, "upscaler_1": "Lanczos" });
    let op = post(document, "/sdapi/v1/extra-single-image", "A picture enlarged").json::<Extra>(example);
    op.answers::<answers::Enlarged>(200, "The picture.").errors(&DRAWING).done();
    let example = json!({ "imageList": [{ "data": PIXEL }], "upscaling_resize": 2, "upscaler_1": "Lanczos" });
    let op = post(document, "/sdapi/v1/extra-batch-images", "Pictures enlarged").json::<Extra>(example);
    op.optional().answers::<answers::EnlargedBatch>(200, "The pictures.").errors(&DRAWING).done();
    let op = post(document, "/sdapi/v1/png-info", "What a picture's file says of how it was made");
    let op = op.json::<png_info::Asked>(json!({ "image": PIXEL })).answers::<answers::PngInfo>(200, "What it says.");
    op.errors(&[400, 401, 403, 408, 413, 422, 429]).done();
}

fn asking(document: &mut Document) {
    let op = get(document, "/sdapi/v1/options", "Settings").answers::<answers::Options>(200, "What clients look for.");
    op.errors(&ASKING).done();
    let op = post(document, "/sdapi/v1/options", "Take a checkpoint");
    let op = op.json::<answers::SetOptions>(json!({})).optional().answer(200, nothing());
    op.errors(&DRAWING).done();
    let task = "The `force_task_id` of one call; else all of the caller's.";
    let op = get(document, "/sdapi/v1/progress", "How far the caller's pictures are").query::<String>("force_task_id", task);
    let op = op.query::<bool>("skip_current_image", "Whether the preview is left out.");
    op.answers::<answers::Progress>(200, "All of them together.").errors(&[400, 401, 403, 429, 500]).done();
    let op = post(document, "/sdapi/v1/interrupt", "Stop the caller's pictures").query::<String>("force_task_id", task);
    op.answer(200, anything("An empty object.")).errors(&[400, 401, 403, 429]).done();
    let op = post(document, "/sdapi/v1/skip", "Stop the oldest of the caller's pictures").query::<String>("force_task_id", task);
    op.answer(200, nothing()).errors(&[400, 401, 403, 429]).done();
    let op = post(document, "/internal/progress", "How far one task is").json::<progress::Asked>(json!({ "id_task": "mine" }));
    op.optional().answers::<answers::TaskProgress>(200, "The task.").errors(&[400, 401, 403, 408, 413, 422, 429, 500]).done();
    get(document, "/internal/ping", "Whether the service answers").answer(200, anything("An empty object.")).done();
}

fn lists(document: &mut Document) {
    list::<answers::Model>(document, "/sdapi/v1/sd-models", "Checkpoints");
    list::<answers::Sampler>(document, "/sdapi/v1/samplers", "Samplers");
    list::<answers::Scheduler>(document, "/sdapi/v1/schedulers", "Schedules");
    list::<answers::Upscaler>(document, "/sdapi/v1/upscalers", "Ways to make pictures larger");
    list::<answers::LatentUpscaler>(document, "/sdapi/v1/latent-upscale-modes", "Ways to make latents larger");
    list::<answers::Lora>(document, "/sdapi/v1/loras", "LoRAs of the caller's model");
}

fn list<T: ToSchema>(document: &mut Document, path: &'static str, summary: &str) {
    let items = document.refer::<T>();
    let content = ContentBuilder::new().schema(Some(Schema::Array(ArrayBuilder::new().items(items).build()))).build();
    let all = ResponseBuilder::new().description("All of them.").content("application/json", content).build();
    get(document, path, summary).answer(200, all).errors(&ASKING).done();
}

/// What there is not.
fn empty(document: &mut Document) {
    for path in stubs::EMPTY {
        let content = ContentBuilder::new().schema(Some(Schema::Array(ArrayBuilder::new().build()))).build();
        let none = ResponseBuilder::new().description("None.").content("application/json", content).build();
        get(document, path, "An empty list: there are none").answer(200, none).errors(&[401, 403, 429]).done();
    }
    for path in stubs::REFRESH {
        post(document, path, "Nothing: lists are up to date").answer(200, nothing()).errors(&[401, 403, 429]).done();
    }
    for path in ["/sdapi/v1/embeddings", "/sdapi/v1/scripts", "/sdapi/v1/cmd-flags", "/sdapi/v1/memory"] {
        let op = get(document, path, "An object with nothing in it").answer(200, anything("Nothing."));
        op.errors(&[401, 403, 429]).done();
    }
}

/// `null`, FastAPI's answer of a handler that returns nothing.
fn nothing() -> Response {
    let mut null = Object::new();
    null.schema_type = utoipa::openapi::schema::Type::Null.into();
    json_of(null, "`null`.", Some(Value::Null))
}

fn anything(about: &str) -> Response {
    json_of(Object::new(), about, Some(json!({})))
}

fn json_of(schema: Object, about: &str, example: Option<Value>) -> Response {
    let content = ContentBuilder::new().schema(Some(Schema::Object(schema))).example(example).build();
    ResponseBuilder::new().description(about).content("application/json", content).build()
}
