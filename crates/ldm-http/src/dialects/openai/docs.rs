//! The dialect's routes, described.

use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Response, ResponseBuilder, schema::Schema};

use super::ask::Ask;
use super::wire::{Completed, Images, Partial};
use crate::openapi::{Document, OPENAI, Object, Op, PIXEL, header, object, text};

/// How a request may fail. Violations are `400`, as OpenAI's are.
const ERRORS: [u16; 11] = [400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504];

pub(crate) fn describe(document: &mut Document) {
    document.take::<Ask>();
    document.refer::<Partial>();
    document.refer::<Completed>();
    let images = drawn(document);
    let events = "With `stream` the answer is events, by name";
    let note =
        format!("{events}: `image_generation.partial_image` and, of each picture, `image_generation.completed`; or `error`.");
    let fields = without(&["images", "mask", "strength"]);
    let example = json!({ "prompt": "a large red circle on a white background", "size": "auto", "seed": 7 });
    let form = document.name("OpenAiGenerationForm", Schema::Object(fields.clone()));
    let body = document.name("OpenAiGeneration", Schema::Object(fields));
    Op::post(document, OPENAI, "/v1/images/generations", "Pictures from a prompt")
        .note(&note)
        .takes("application/json", body, Some(example))
        .takes("multipart/form-data", form, None)
        .answer(200, images.clone())
        .errors(&ERRORS)
        .done();
    let note = format!(
        "{events}: `image_edit.partial_image` and `image_edit.completed`; or `error`. What is transparent in the mask is painted; without \
         a mask the picture's own transparency is one; without any all of the picture is painted over."
    );
    let mut fields = without(&[]);
    fields.required.push("images".to_owned());
    let example: Value =
        json!({ "prompt": "in watercolour", "images": [{ "image_url": format!("data:image/png;base64,{PIXEL}") }] });
    let body = document.name("OpenAiEdit", Schema::Object(fields));
    let form = document.name("OpenAiEditForm", Schema::Object(form_of_edits()));
    Op::post(document, OPENAI, "/v1/images/edits", "A picture painted over")
        .note(&note)
        .takes("application/json", body, Some(example))
        .takes("multipart/form-data", form, None)
        .answer(200, images)
        .errors(&ERRORS)
        .done();
}

/// The fields of a body but these. OpenAI's clients always send a prompt; other fields are left alone.
pub(super) fn without(fields: &[&str]) -> Object {
    let mut object = object::<Ask>();
    object.properties.retain(|name, _| !fields.contains(&name.as_str()));
    object.required = vec!["prompt".to_owned()];
    object
}

/// The same with pictures as files.
pub(super) fn form_of_edits() -> Object {
    let mut object = without(&["images"]);
    let files = [("image", "The picture that is edited; as `image[]` too."), ("mask", "What is transparent here is painted.")];
    for (name, about) in files {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        let file = ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).description(Some(about));
        object.properties.insert(name.to_owned(), file.into());
    }
    object.required.push("image".to_owned());
    object
}

fn drawn(document: &mut Document) -> Response {
    let images = ContentBuilder::new().schema(Some(document.refer::<Images>())).build();
    let events = ContentBuilder::new().schema(Some(text())).build();
    ResponseBuilder::new()
        .description("The pictures.")
        .content("application/json", images)
        .content("text/event-stream", events)
        .header("x-job-id", header("The jobs that the request became, separated by commas."))
        .build()
}
