//! Every case of `cases.json` through the executor, against diffusers' pipelines in float32.

use std::path::Path;

use ldm_core::{Draft, Prompting, Raster, Task};
use ldm_nn::Checkpoint;
use serde::Deserialize;

use crate::rig::{TOLERANCE, device, directory, error, levels, request, solo};

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
    /// Where the reference itself is less exact than float32; `pipeline.py` says why.
    tolerance: Option<f32>,
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
            prompting: Some(Prompting::Plain),
            seed: Some(self.seed),
            strength: self.strength,
            init_image: self.init.as_ref().map(|name| picture(&directory().join("pipeline").join(name))),
            ..Draft::new(task)
        }
    }
}

#[test]
fn txt2img_is_that_of_diffusers() {
    compare(|case| case.init.is_none());
}

#[test]
fn img2img_is_that_of_diffusers() {
    compare(|case| case.init.is_some());
}

fn compare(wanted: impl Fn(&Case) -> bool) {
    let dir = directory().join("pipeline");
    let latents = Checkpoint::open_files([dir.join("latents.safetensors")]).expect("the goldens");
    let mut device = device();
    let (mut wrong, mut worst) = (Vec::new(), 0f32);
    for case in cases().into_iter().filter(wanted) {
        let request = request(&device, case.draft());
        let finished = solo(&mut device, &request);
        let reference = Vec::<f32>::try_from(latents.tensor(&case.name).flatten(0, -1)).expect("numbers");
        let error = error(&finished.latent, &reference);
        let levels = levels(&finished.picture, &picture(&dir.join(format!("{}.png", case.name))));
        println!("{}: {error:.1e}, {levels}", case.name);
        if error > case.tolerance.unwrap_or(TOLERANCE) || levels > 1 {
            wrong.push(format!("{}: latents differ by {error:.1e}, pixels by {levels}", case.name));
        }
        if case.tolerance.is_none() {
            worst = worst.max(error);
        }
    }
    println!("worst: {worst:.1e}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Samplers that diffusers' pipelines cannot run, or run on another schedule: `ldm-sampler` holds them against k-diffusion and the
/// classes alone.
const WITHOUT_A_PIPELINE: [&str; 4] = ["dpmpp_2s_a", "dpmpp_3m_sde", "ipndm", "ddim_inverse"];

#[test]
fn every_sampler_has_a_case() {
    let cases = cases();
    for entry in ldm_sampler::entries().iter().filter(|entry| !WITHOUT_A_PIPELINE.contains(&entry.name)) {
        for task in [Task::Txt2Img, Task::Img2Img] {
            let known = |case: &&Case| case.sampler == entry.name && case.init.is_some() == (task == Task::Img2Img);
            assert!(cases.iter().any(|case| known(&case)), "no case of {} {task}", entry.name);
        }
    }
}
