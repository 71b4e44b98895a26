//! Every case of `cases.json` through the executor, against diffusers' pipelines in float32.

use std::path::Path;

use ldm_core::{Draft, Raster, Task};
use ldm_nn::Checkpoint;
use serde::Deserialize;

use crate::rig::{device, directory, error, levels, request, solo};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    prompt: String,
    negative_prompt: String,
    width: i64,
    height: i64,
    steps: i64,
    sampler: String,
    schedule: String,
    guidance: f64,
    eta: f64,
    seed: i64,
    strength: Option<f64>,
    init: Option<String>,
    /// The reference resized the picture to start from, with PIL.
    #[serde(default)]
    resized: bool,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(directory().join("pipeline/cases.json")).expect("a file")).expect("cases")
}

fn picture(path: &Path) -> Raster {
    let picture = image::open(path).expect("a picture").to_rgb8();
    Raster::new(picture.width(), picture.height(), picture.into_raw()).expect("its own size")
}

impl Case {
    fn draft(&self) -> Draft {
        let task = if self.init.is_some() { Task::Img2Img } else { Task::Txt2Img };
        Draft {
            prompt: Some(self.prompt.clone()),
            negative_prompt: Some(self.negative_prompt.clone()),
            width: Some(self.width),
            height: Some(self.height),
            steps: Some(self.steps),
            sampler: Some(self.sampler.clone()),
            schedule: Some(self.schedule.clone()),
            guidance: Some(self.guidance),
            eta: Some(self.eta),
            seed: Some(self.seed),
            strength: self.strength,
            init_image: self.init.as_ref().map(|name| picture(&directory().join("pipeline").join(name))),
            ..Draft::new(task)
        }
    }
}

#[test]
fn pictures_are_those_of_diffusers() {
    let dir = directory().join("pipeline");
    let latents = Checkpoint::open_files([dir.join("latents.safetensors")]).expect("the goldens");
    let mut device = device();
    let (mut wrong, mut worst) = (Vec::new(), 0f32);
    for case in cases() {
        let request = request(&device, case.draft());
        let finished = solo(&mut device, &request);
        let reference = Vec::<f32>::try_from(latents.tensor(&case.name).flatten(0, -1)).expect("numbers");
        let error = error(&finished.latent, &reference);
        let levels = levels(&finished.picture, &picture(&dir.join(format!("{}.png", case.name))));
        println!("{}: {error:.1e}, {levels}", case.name);
        // Two programs that resize with the same filter differ by a level or two of the picture that goes in.
        let (error_limit, levels_limit) = if case.resized { (2e-2, 8) } else { (1e-4, 1) };
        if error > error_limit || levels > levels_limit {
            wrong.push(format!("{}: latents differ by {error:.1e}, pixels by {levels}", case.name));
        }
        if !case.resized {
            worst = worst.max(error);
        }
    }
    println!("worst: {worst:.1e}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_sampler_has_a_case() {
    let cases = cases();
    for entry in ldm_sampler::entries() {
        for task in [Task::Txt2Img, Task::Img2Img] {
            let known = |case: &&Case| case.sampler == entry.name && case.init.is_some() == (task == Task::Img2Img);
            assert!(cases.iter().any(|case| known(&case)), "no case of {} {task}", entry.name);
        }
    }
}
