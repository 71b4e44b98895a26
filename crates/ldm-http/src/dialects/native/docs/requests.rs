//! What bodies say, as types: their fields are held against what is read.
#![expect(dead_code, reason = "these types only say what is read")]

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::openapi::{Document, Object, PIXEL, object, strict};

/// A LoRA of the model.
#[derive(ToSchema)]
#[schema(as = LoraOrder)]
struct Lora {
    /// One of the model's `loras`.
    #[schema(example = "ink")]
    name: String,
    /// How much of it.
    #[schema(minimum = -4, maximum = 4, default = 1)]
    strength: Option<f64>,
}

/// How a picture's file is written.
#[derive(ToSchema)]
#[schema(as = PictureFormat, rename_all = "lowercase")]
enum Format {
    Png,
    Jpeg,
    WebP,
}

/// How urgent it is.
#[derive(ToSchema)]
#[schema(as = Priority, rename_all = "lowercase")]
enum Priority {
    Interactive,
    Batch,
}

/// The fields of every task.
#[derive(ToSchema)]
struct Common {
    /// A model's id; by default the first one.
    model: Option<String>,
    /// What to show. `(word:1.2)`, `(word)` and `[word]` weigh, `BREAK` begins a chunk; up to 16 chunks of the text encoder.
    #[schema(default = "")]
    prompt: Option<String>,
    /// What not to show.
    #[schema(default = "")]
    negative_prompt: Option<String>,
    /// Pixels, in the model's range and multiples.
    #[schema(minimum = 1)]
    width: Option<u32>,
    /// Pixels, in the model's range and multiples.
    #[schema(minimum = 1)]
    height: Option<u32>,
    /// Steps of the sampler.
    #[schema(minimum = 1)]
    steps: Option<u32>,
    /// A name, label or alias from `GET /v1/samplers`; case, spaces, `-` and `_` do not matter.
    sampler: Option<String>,
    /// `default`, `karras` or `exponential`, where the sampler runs on it.
    schedule: Option<String>,
    /// Guidance scale; 1 means none.
    #[schema(minimum = 0)]
    guidance: Option<f64>,
    /// Share of fresh noise, for samplers that take it.
    #[schema(minimum = 0, maximum = 1)]
    eta: Option<f64>,
    /// Absent or -1 draws one; picture `i` of several has `seed + i`.
    #[schema(minimum = -1, maximum = 9007199254740991_i64, default = -1)]
    seed: Option<i64>,
    /// LoRAs of the model, each once. Requests with different ones share a batch.
    #[schema(max_items = 8)]
    loras: Option<Vec<Lora>>,
    /// How many pictures.
    #[schema(minimum = 1, default = 1)]
    images: Option<u32>,
    /// A preview every so many steps, in event streams.
    #[schema(minimum = 1)]
    preview_every: Option<u32>,
    /// The file's format, unless the header `accept` says it.
    #[schema(value_type = Option<Format>)]
    format: Option<Format>,
    /// JPEG: default 90. WebP: lossless unless a quality below 100 is said. PNG takes none.
    #[schema(minimum = 1, maximum = 100)]
    quality: Option<u8>,
    /// `batch` may wait for the others, and always gets a share.
    priority: Option<Priority>,
    /// Milliseconds from its arrival for which the answer is of use. What cannot be in time is refused at once.
    #[schema(minimum = 1, maximum = 86400000)]
    deadline_ms: Option<u32>,
}

/// A picture, and what shall become of it. All fields but `init_image` may be absent or `null`; then the model's default is taken.
#[derive(ToSchema)]
struct Img2Img {
    /// PNG, JPEG or WebP in base64, with or without `data:…;base64,` in front; URLs are never fetched.
    init_image: String,
    /// How much of the schedule is run; 1 forgets the picture.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    strength: Option<f64>,
}

/// What shall be shown. Every field may be absent or `null`; then the model's default is taken.
#[derive(ToSchema)]
struct Txt2Img {}

/// A picture's file, of which is asked what it says.
#[derive(ToSchema)]
struct PngInfo {
    /// PNG, JPEG or WebP in base64.
    image: String,
}

/// A task with a route: what it is called, its fields, those of them that are pictures, and an example.
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    /// The schema's name.
    pub(super) schema: &'static str,
    pub(super) summary: &'static str,
    pub(super) fields: Object,
    pub(super) files: &'static [&'static str],
    pub(super) example: serde_json::Value,
}

/// Every task with a route.
pub(super) fn tasks(document: &mut Document) -> Vec<Task> {
    document.take::<Common>();
    let task = |name, path, schema, summary, own: Object, files, example| {
        let description = own.description.clone();
        let mut fields = strict(object::<Common>(), own);
        fields.description = description;
        Task { name, path, schema, summary, fields, files, example }
    };
    vec![
        task(
            "txt2img",
            "/v1/txt2img",
            "Txt2Img",
            "Pictures from a prompt",
            object::<Txt2Img>(),
            &[],
            json!({ "prompt": "a lighthouse at dusk", "steps": 20, "seed": 1 }),
        ),
        task(
            "img2img",
            "/v1/img2img",
            "Img2Img",
            "Pictures from a picture",
            object::<Img2Img>(),
            &["init_image"],
            json!({ "prompt": "in watercolour", "strength": 0.6, "init_image": PIXEL }),
        ),
    ]
}

/// The fields of a body that says its task itself.
pub(super) fn said(task: &Task) -> Object {
    let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([task.name])).build();
    let mut object = task.fields.clone();
    object.properties.insert("task".to_owned(), name.into());
    object.required.push("task".to_owned());
    object
}

/// The fields of `POST /v1/png-info`.
pub(super) fn png_info() -> Object {
    strict(object::<PngInfo>(), Object::new())
}
