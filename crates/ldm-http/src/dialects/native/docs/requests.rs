//! What bodies say, as types: their fields are held against what is read.
#![expect(dead_code, reason = "these types only say what is read")]

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::super::routes;
use crate::openapi::{Document, Object, PIXEL, object, strict};

/// Sixteen grey pixels squared, in base64: a picture, a mask all of which is painted, a map of depths.
const SQUARE: &str = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAEUlEQVR42mNsYEAFTAwjWgAAmZAAoFDIQrAAAAAASUVORK5CYII=";

/// A map of class 1, in base64.
const LABELS: &str = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNkZIAAJgaKGAACzwARzTvpmQAAAABJRU5ErkJggg==";

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
    /// How prompts are read: `weighted` (as stable-diffusion-webui does) or `plain`.
    prompting: Option<Prompting>,
    /// How numbers become bytes: by default the model's own way.
    rounding: Option<Rounding>,
    /// Layers of the text encoder that are left out at its end.
    #[schema(minimum = 0, default = 0)]
    clip_skip: Option<u32>,
    /// How far the guided output is brought to the spread of the unguided one (Lin et al. 2023).
    #[schema(minimum = 0, maximum = 1, default = 0)]
    guidance_rescale: Option<f64>,
    /// Noise levels between which there is guidance: two numbers, of which the second may be null, which has no end.
    #[schema(value_type = Option<Vec<Option<f64>>>, min_items = 2, max_items = 2)]
    guidance_interval: Option<[f64; 2]>,
    /// Whose random numbers: torch's on a CPU, or a GPU's (Philox).
    random: Option<Random>,
    /// Whose habits a sampler has where libraries differ.
    library: Option<Library>,
    /// The seed of another noise that is mixed in; said together with `subseed_strength`.
    #[schema(minimum = 0, maximum = 9007199254740991_i64)]
    subseed: Option<u64>,
    /// How much of it.
    #[schema(minimum = 0, maximum = 1)]
    subseed_strength: Option<f64>,
    /// Added to the seed of fresh noise.
    eta_seed_delta: Option<i64>,
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

/// How prompts are read.
#[derive(ToSchema)]
#[schema(as = Prompting, rename_all = "lowercase")]
enum Prompting {
    Weighted,
    Plain,
}

/// How numbers become bytes.
#[derive(ToSchema)]
#[schema(as = Rounding, rename_all = "lowercase")]
enum Rounding {
    Round,
    Truncate,
}

/// Whose random numbers.
#[derive(ToSchema)]
#[schema(as = RandomSource, rename_all = "lowercase")]
enum Random {
    Cpu,
    Gpu,
}

/// Whose habits.
#[derive(ToSchema)]
#[schema(as = SamplerLibrary, rename_all = "kebab-case")]
enum Library {
    Diffusers,
    KDiffusion,
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

/// What lies under the mask at the start.
#[derive(ToSchema)]
#[schema(as = MaskFill, rename_all = "snake_case")]
enum Under {
    Original,
    Fill,
    LatentNoise,
    LatentNothing,
}

/// A picture with a part of it painted anew. All fields but the pictures may be absent or `null`.
#[derive(ToSchema)]
struct Inpaint {
    /// PNG, JPEG or WebP in base64. Without a `mask` what is transparent in it is painted.
    init_image: String,
    /// White is painted, from level 128 on.
    mask: Option<String>,
    /// How much of the schedule is run.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    strength: Option<f64>,
    /// Standard deviation of the mask's blur in pixels; two numbers: across and down.
    #[schema(value_type = Option<Blur>)]
    mask_blur: Option<f64>,
    /// Black is painted instead.
    #[schema(default = false)]
    invert_mask: Option<bool>,
    /// Only the masked area is drawn, at the request's size, and laid back.
    #[schema(default = false)]
    only_masked: Option<bool>,
    /// Pixels around the masked area, with `only_masked`.
    #[schema(minimum = 0)]
    padding: Option<u32>,
    fill: Option<Under>,
    /// What is not masked stays as it was, byte for byte.
    #[schema(default = true)]
    composite: Option<bool>,
}

/// A number, or two: across and down.
#[derive(ToSchema)]
#[schema(as = MaskBlur)]
#[serde(untagged)]
enum Blur {
    Alike(f64),
    Apart([f64; 2]),
}

/// A small picture that becomes a larger one.
#[derive(ToSchema)]
struct SuperResolution {
    /// PNG, JPEG or WebP in base64.
    lr_image: String,
    /// How many times as wide and high: by default the model's own factor.
    #[schema(minimum = 1)]
    scale: Option<u32>,
    /// The level of noise that the small picture is brought to, where the model takes one.
    #[schema(minimum = 0)]
    noise_level: Option<u32>,
}

/// A prompt and a map of depths.
#[derive(ToSchema)]
struct Depth {
    /// The picture to begin with: PNG, JPEG or WebP in base64.
    init_image: String,
    /// Grey levels: white is near.
    depth_map: String,
    /// How much of the schedule is run.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    strength: Option<f64>,
}

/// A picture of what the model was trained on.
#[derive(ToSchema)]
struct Unconditional {}

/// A picture of a class.
#[derive(ToSchema)]
struct Class {
    /// The class, counted from 0.
    #[schema(minimum = 0)]
    class: u32,
}

/// A box with a label. Places are fractions of the picture.
#[derive(ToSchema)]
#[schema(as = LayoutBox)]
struct Placed {
    /// The class of what is in it, counted from 0.
    #[schema(minimum = 0)]
    label: u32,
    /// Left end.
    #[schema(minimum = 0, maximum = 1)]
    x: f64,
    /// Upper end.
    #[schema(minimum = 0, maximum = 1)]
    y: f64,
    #[schema(minimum = 0, maximum = 1)]
    width: f64,
    #[schema(minimum = 0, maximum = 1)]
    height: f64,
    is_occluded: Option<bool>,
    is_group_of: Option<bool>,
    is_depiction: Option<bool>,
    is_inside: Option<bool>,
}

/// A picture from boxes with labels.
#[derive(ToSchema)]
struct Layout {
    #[schema(min_items = 1)]
    boxes: Vec<Placed>,
}

/// A picture from a map of classes.
#[derive(ToSchema)]
struct Semantic {
    /// A PNG in base64 whose grey levels, or palette's indices, are classes.
    semantic_map: String,
}

/// An embedding: numbers, or 32-bit floats, little-endian, in base64.
#[derive(ToSchema)]
#[schema(as = Embedding)]
#[serde(untagged)]
enum Embedding {
    Numbers(Vec<f64>),
    Base64(String),
}

/// A picture from embeddings of a prompt and its neighbours.
#[derive(ToSchema)]
struct Retrieval {
    #[schema(min_items = 1)]
    neighbours: Vec<Embedding>,
}

/// A second pass, at another size. Without a size or a scale it is twice as large.
#[derive(ToSchema)]
#[schema(as = HiresOrder)]
struct Hires {
    #[schema(minimum = 1)]
    width: Option<u32>,
    #[schema(minimum = 1)]
    height: Option<u32>,
    /// How many times as wide and high.
    scale: Option<f64>,
    #[schema(minimum = 1)]
    steps: Option<u32>,
    /// How much of the schedule is run again.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    strength: Option<f64>,
    upscaler: Option<Upscaler>,
}

/// How the first pass' picture is made larger.
#[derive(ToSchema)]
#[schema(as = HiresUpscaler, rename_all = "kebab-case")]
enum Upscaler {
    LatentBilinear,
    LatentNearest,
    PixelLanczos,
}

/// What shall be shown. Every field may be absent or `null`; then the model's default is taken.
#[derive(ToSchema)]
struct Txt2Img {
    hires: Option<Hires>,
}

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

/// Every task with a route, in the order of [`ldm_core::Task::ALL`].
pub(super) fn tasks(document: &mut Document) -> Vec<Task> {
    document.take::<Common>();
    ldm_core::Task::ALL.into_iter().map(|which| task(document, which)).collect()
}

fn task(document: &mut Document, which: ldm_core::Task) -> Task {
    use ldm_core::Task as Which;
    let (path, schema, summary) = match which {
        Which::Txt2Img => ("/v1/txt2img", "Txt2Img", "Pictures from a prompt"),
        Which::Img2Img => ("/v1/img2img", "Img2Img", "Pictures from a picture"),
        Which::Inpaint => ("/v1/inpaint", "Inpaint", "A picture with a part of it painted anew"),
        Which::SuperResolution => ("/v1/super-resolution", "SuperResolution", "A larger picture from a smaller one"),
        Which::Depth => ("/v1/depth", "Depth", "A picture from a prompt and a map of depths"),
        Which::Unconditional => ("/v1/unconditional", "Unconditional", "A picture of what the model was trained on"),
        Which::Class => ("/v1/class", "Class", "A picture of a class"),
        Which::Layout => ("/v1/layout", "Layout", "A picture from boxes with labels"),
        Which::Semantic => ("/v1/semantic", "Semantic", "A picture from a map of classes"),
        Which::Rdm => ("/v1/retrieval", "Retrieval", "A picture from embeddings of a prompt and its neighbours"),
    };
    let (own, files, example): (Object, &'static [&'static str], _) = match which {
        Which::Txt2Img => {
            document.take::<Txt2Img>();
            (object::<Txt2Img>(), &[], json!({ "prompt": "a lighthouse at dusk", "steps": 20, "seed": 1 }))
        }
        Which::Img2Img => {
            (object::<Img2Img>(), &["init_image"], json!({ "prompt": "in watercolour", "strength": 0.6, "init_image": PIXEL }))
        }
        Which::Inpaint => {
            document.take::<Inpaint>();
            let example = json!({ "prompt": "a boat", "mask_blur": 4, "init_image": SQUARE, "mask": SQUARE });
            (object::<Inpaint>(), &["init_image", "mask"], example)
        }
        Which::SuperResolution => (object::<SuperResolution>(), &["lr_image"], json!({ "lr_image": SQUARE })),
        Which::Depth => {
            let example = json!({ "prompt": "a room", "strength": 0.8, "init_image": SQUARE, "depth_map": SQUARE });
            (object::<Depth>(), &["init_image", "depth_map"], example)
        }
        Which::Unconditional => (object::<Unconditional>(), &[], json!({ "seed": 1 })),
        Which::Class => (object::<Class>(), &[], json!({ "class": 7 })),
        Which::Layout => {
            document.take::<Layout>();
            let first = json!({ "label": 1, "x": 0.1, "y": 0.2, "width": 0.5, "height": 0.25 });
            (object::<Layout>(), &[], json!({ "boxes": [first] }))
        }
        Which::Semantic => (object::<Semantic>(), &["semantic_map"], json!({ "semantic_map": LABELS })),
        Which::Rdm => {
            document.take::<Retrieval>();
            (object::<Retrieval>(), &[], json!({ "neighbours": [[1, 0, 0, 0, 0, 0, 0, 0.5]] }))
        }
    };
    let description = own.description.clone();
    let mut fields = strict(object::<Common>(), own);
    fields.description = description;
    Task { name: routes::word(which), path, schema, summary, fields, files, example }
}

/// Who is told how a named job ended.
#[derive(ToSchema)]
#[schema(as = Webhook)]
#[serde(untagged)]
enum Webhook {
    Url(String),
    Some(WebhookEvents),
}

/// A URL, and the endings that it is told.
#[derive(ToSchema)]
struct WebhookEvents {
    /// Of an origin that the service allows.
    url: String,
    /// `succeeded`, `failed`, `canceled`, `expired`; all of them when it is absent.
    #[schema(min_items = 1)]
    events: Option<Vec<String>>,
}

/// What a body says that names its task.
#[derive(ToSchema)]
struct Said {
    /// Of named jobs alone, and where the service allows it.
    webhook: Option<Webhook>,
}

/// The fields of a body that says its task itself.
pub(super) fn said(document: &mut Document, task: &Task) -> Object {
    document.take::<Said>();
    let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([task.name])).build();
    let mut object = task.fields.clone();
    object.properties.extend(crate::openapi::object::<Said>().properties);
    object.properties.insert("task".to_owned(), name.into());
    object.required.push("task".to_owned());
    object
}

/// The fields of `POST /v1/png-info`.
pub(super) fn png_info() -> Object {
    strict(object::<PngInfo>(), Object::new())
}
