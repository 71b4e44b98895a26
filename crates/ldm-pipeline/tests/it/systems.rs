//! Tiny models of every system through the executor, against diffusers' pipelines and CompVis' own code in float32
//! (`tools/goldens/systems.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_core::task::{Bbox, MaskingDraft};
use ldm_core::{Draft, Plane, Prompting, Raster, Request, Task};
use ldm_engine::Executor;
use ldm_nn::Checkpoint;
use ldm_pipeline::{DeviceExecutor, ModelSource, inspect};
use serde::Deserialize;
use tch::Tensor;

use crate::rig::{Finished, decode, directory, error, evaluate, levels, options, same, scratch, solo};

/// Largest difference from a reference's latents, relative to its largest.
const CLOSE: f32 = 1e-4;

/// One test for each model.
macro_rules! systems {
    ($($test:ident: $model:literal,)*) => {
        $(
            #[test]
            fn $test() {
                compare($model);
            }
        )*

        #[test]
        fn every_system_has_a_test() {
            let cases: BTreeSet<String> = cases().into_iter().map(|case| case.model).collect();
            assert_eq!(cases, BTreeSet::from([$($model.to_owned()),*]));
        }
    };
}

systems! {
    sd_inpainting_is_that_of_diffusers: "sd-inpainting",
    sd_plain_inpainting_is_that_of_diffusers: "sd-plain-inpainting",
    sd_x4_is_that_of_diffusers: "sd-x4",
    sd_depth_is_that_of_diffusers: "sd-depth",
    sdxl_is_that_of_diffusers: "sdxl",
    sdxl_inpainting_is_that_of_diffusers: "sdxl-inpainting",
    sdxl_refiner_is_that_of_diffusers: "sdxl-refiner",
    lcm_is_that_of_diffusers: "lcm",
    ldm_unconditional_is_that_of_diffusers: "ldm-unconditional",
    ldm_txt2im_is_that_of_diffusers: "ldm-txt2im",
    ldm_super_resolution_is_that_of_diffusers: "ldm-super-resolution",
    original_unconditional_is_that_of_compvis: "original-unconditional",
    original_churches_is_that_of_compvis: "original-churches",
    original_classes_is_that_of_compvis: "original-classes",
    original_layout_is_that_of_compvis: "original-layout",
    original_semantic_is_that_of_compvis: "original-semantic",
    original_super_resolution_is_that_of_compvis: "original-super-resolution",
    original_inpainting_is_that_of_compvis: "original-inpainting",
    original_txt2img_is_that_of_compvis: "original-txt2img",
    original_retrieval_is_that_of_compvis: "original-retrieval",
    stability_one_is_that_of_stability: "stability-one",
    stability_two_is_that_of_stability: "stability-two",
    stability_inpainting_is_that_of_stability: "stability-inpainting",
    stability_upscaler_is_that_of_stability: "stability-upscaler",
    stability_depth_is_that_of_stability: "stability-depth",
    stability_sdxl_is_that_of_stability: "stability-sdxl",
    stability_refiner_is_that_of_stability: "stability-refiner",
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    label: i64,
    bbox: [f64; 4],
    #[serde(default)]
    is_occluded: bool,
}

/// What was asked for; what is absent was not said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) model: String,
    pub(crate) name: String,
    task: String,
    prompt: Option<String>,
    negative_prompt: Option<String>,
    width: Option<i64>,
    height: Option<i64>,
    steps: i64,
    sampler: String,
    schedule: Option<String>,
    guidance: Option<f64>,
    eta: Option<f64>,
    seed: i64,
    strength: Option<f64>,
    init: Option<String>,
    mask: Option<String>,
    lr: Option<String>,
    noise_level: Option<i64>,
    depth: Option<String>,
    class: Option<i64>,
    boxes: Option<Vec<Object>>,
    semantic: Option<String>,
    neighbors: Option<Vec<Vec<f32>>>,
}

pub(crate) fn goldens() -> PathBuf {
    directory().join("systems")
}

pub(crate) fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(goldens().join("cases.json")).expect("a file")).expect("cases")
}

pub(crate) fn picture(path: &Path) -> Raster {
    let picture = image::open(path).expect("a picture").to_rgb8();
    Raster::new(picture.width(), picture.height(), picture.into_raw()).expect("its own size")
}

fn plane(name: &str) -> Plane {
    let picture = image::open(goldens().join(name)).expect("a map").to_luma8();
    Plane::new(picture.width(), picture.height(), picture.into_raw()).expect("its own size")
}

impl Case {
    pub(crate) fn draft(&self) -> Draft {
        let raster = |name: &Option<String>| name.as_ref().map(|name| picture(&goldens().join(name)));
        let map = |name: &Option<String>| name.as_deref().map(plane);
        let bbox = |object: &Object| Bbox {
            label: object.label,
            bbox: object.bbox,
            is_occluded: object.is_occluded,
            is_group_of: false,
            is_depiction: false,
            is_inside: false,
        };
        let task = Task::ALL.iter().copied().find(|task| task.name() == self.task).expect("a known task");
        // Of the references CompVis' script alone puts the rest of the picture back.
        let composite = (task == Task::Inpaint).then_some(self.model == "original-inpainting");
        Draft {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            prompting: Some(Prompting::Plain),
            width: self.width,
            height: self.height,
            steps: Some(self.steps),
            sampler: Some(self.sampler.clone()),
            schedule: self.schedule.clone().or(Some("default".into())),
            guidance: self.guidance.or(Some(1.)),
            eta: self.eta,
            seed: Some(self.seed),
            strength: self.strength,
            init_image: raster(&self.init),
            mask: map(&self.mask),
            masking: MaskingDraft { composite, ..MaskingDraft::default() },
            lr_image: raster(&self.lr),
            noise_level: self.noise_level,
            depth: map(&self.depth),
            class: self.class,
            boxes: self.boxes.as_ref().map(|boxes| boxes.iter().map(bbox).collect()),
            semantic: map(&self.semantic),
            neighbors: self.neighbors.clone(),
            ..Draft::new(task)
        }
    }
}

/// `model.json`: folders that are copied from elsewhere in the goldens, and the shapes of tensors by file and name.
#[derive(Deserialize)]
struct Files {
    copies: BTreeMap<String, String>,
    weights: BTreeMap<String, BTreeMap<String, Vec<i64>>>,
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Numbers of variance 1: splitmix64 seeded with the name's hash, the upper 24 bits of each output.
fn uniform(name: &str, shape: &[i64], made: impl Fn(f64) -> f64) -> Tensor {
    let seed = fnv1a(name);
    let number = |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        made(((z >> 40) as f64 / (1u64 << 23) as f64 - 1.) * 3f64.sqrt()) as f32
    };
    let count = shape.iter().product::<i64>() as u64;
    Tensor::from_slice(&(1..=count).map(number).collect::<Vec<f32>>()).view(shape)
}

const EMBEDDINGS: [&str; 5] =
    ["embedding.weight", "token_emb.weight", "pos_emb.emb.weight", "embed_tokens.weight", "embed_positions.weight"];

/// Variance 1/fan_in; embeddings 0.5, norms and single numbers 1 ± 0.1, biases 0.1.
pub(crate) fn weight(name: &str, shape: &[i64]) -> Tensor {
    let ends = |end: &&str| name.ends_with(*end);
    match shape {
        [] => uniform(name, shape, |x| 1. + 0.1 * x),
        [_] if ends(&"weight") => uniform(name, shape, |x| 1. + 0.1 * x),
        [_] => uniform(name, shape, |x| 0.1 * x),
        _ if EMBEDDINGS.iter().any(ends) => uniform(name, shape, |x| 0.5 * x),
        [_, rest @ ..] => {
            let root = (rest.iter().product::<i64>() as f64).sqrt();
            uniform(name, shape, |x| x / root)
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else if path.extension().is_none_or(|extension| extension != "png") {
            std::fs::copy(path, to).expect("a copy");
        }
    }
}

/// The model as its authors would hand it out: a directory, or a file beside its description; in the scratch directory `name`.
pub(crate) fn made(model: &str, name: &str) -> PathBuf {
    made_in(model, scratch(name))
}

/// The same in a directory that is given.
pub(crate) fn made_in(model: &str, dir: PathBuf) -> PathBuf {
    let from = goldens().join(model);
    copy(&from, &dir);
    let files: Files = serde_json::from_slice(&std::fs::read(from.join("model.json")).expect("a file")).expect("shapes");
    for (to, from) in &files.copies {
        copy(&directory().join(from), &dir.join(to));
    }
    for (file, tensors) in &files.weights {
        let tensors: Vec<(&str, Tensor)> =
            tensors.iter().map(|(name, shape)| (name.as_str(), weight(&format!("{file}/{name}"), shape))).collect();
        std::fs::create_dir_all(dir.join(file).parent().expect("a folder")).expect("a directory");
        Tensor::write_safetensors(&tensors, dir.join(file)).expect("it is written");
    }
    if dir.join("model_index.json").is_file() { dir } else { dir.join("model.safetensors") }
}

pub(crate) fn request(device: &DeviceExecutor, draft: Draft) -> Arc<Request> {
    let mut requests = draft.check(&device.catalogue()).expect("a valid draft");
    Arc::new(requests.remove(0))
}

/// The two through the same calls; they take as many steps.
fn together(device: &mut DeviceExecutor, requests: [&Arc<Request>; 2]) -> [Finished; 2] {
    let [mut a, mut b] = requests.map(|request| device.prepare(request).expect("it is prepared").run);
    while !evaluate(device, &mut [&mut a, &mut b])[0] {}
    [decode(device, a), decode(device, b)]
}

#[test]
fn a_large_super_resolution_is_that_of_compvis() {
    let path = made_in("original-super-resolution", scratch("super-resolution-tiles"));
    let mut device = DeviceExecutor::load(&[ModelSource::new("tiny", path)], &options()).expect("it loads");
    // The pixels that the golden's program counts out: 192 high, 256 wide, in six tiles of 128.
    let pixels = (0..192u32).flat_map(|y| (0..256u32).map(move |x| (x, y)));
    let bytes: Vec<u8> =
        pixels.flat_map(|(x, y)| (0..3u32).map(move |c| ((x * 3 + y * 5 + (x * y) / 64 + c * 80) % 256) as u8)).collect();
    let draft = Draft {
        lr_image: Some(Raster::new(256, 192, bytes).expect("its own size")),
        steps: Some(2),
        sampler: Some("ddim".into()),
        eta: Some(0.),
        seed: Some(48),
        guidance: Some(1.),
        ..Draft::new(Task::SuperResolution)
    };
    let job = request(&device, draft);
    let mut run = device.prepare(&job).expect("it is prepared").run;
    while !evaluate(&mut device, &mut [&mut run])[0] {}
    let latent = Tensor::from_slice(&device.latent(&run)).view([1, 3, 192, 256]);
    let every = latent.slice(2, None, None, 4).slice(3, None, None, 4).contiguous();
    let golden = Checkpoint::open_files([goldens().join("tiles.safetensors")]).expect("the golden").tensor("latent");
    let numbers = |x: &Tensor| Vec::<f32>::try_from(x.flatten(0, -1)).expect("numbers");
    let error = error(&numbers(&every), &numbers(&golden));
    println!("original-super-resolution.tiles: {error:.1e}");
    assert!(error <= CLOSE, "{error:.1e}");
}

fn compare(model: &str) {
    let path = made(model, model);
    let inspection = inspect(&path);
    assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
    let mut device = DeviceExecutor::load(&[ModelSource::new("tiny", path)], &options()).expect("it loads");
    let latents = Checkpoint::open_files([goldens().join("latents.safetensors")]).expect("the goldens");
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.model == model).collect();
    assert!(!cases.is_empty(), "{model} has no case");
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let job = request(&device, case.draft());
        assert!(inspection.tasks.contains(&job.work.task()));
        let finished = solo(&mut device, &job);
        let key = format!("{model}.{}", case.name);
        let reference = Vec::<f32>::try_from(latents.tensor(&key).flatten(0, -1)).expect("numbers");
        let error = error(&finished.latent, &reference);
        let levels = levels(&finished.picture, &picture(&goldens().join(model).join(format!("{}.png", case.name))));
        println!("{key}: {error:.1e}, {levels}");
        if error > CLOSE || levels > 1 {
            wrong.push(format!("{key}: latents differ by {error:.1e}, pixels by {levels}"));
        }
        if index == 0 {
            let other = request(&device, Draft { seed: Some(case.seed + 100), ..case.draft() });
            let alone = solo(&mut device, &other);
            assert!(alone.latent != finished.latent, "{key}: the seed has no part");
            let [first, second] = together(&mut device, [&job, &other]);
            same(&format!("{key} in company"), &first, &finished);
            same(&format!("{key} of another seed in company"), &second, &alone);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
