//! Two passes: against diffusers' pipelines one after the other (`tools/goldens/hires.py`), in company, and taken up half-way.

use ldm_core::task::{HiresDraft, Upscaler};
use ldm_core::{Draft, Prompting, Raster, Task};
use ldm_engine::{Advance, Executor};
use ldm_nn::Checkpoint;
use serde::Deserialize;

use crate::rig::{TOLERANCE, decode, device, directory, draft, error, finish, levels, request, same, solo};

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
    hires_width: i64,
    hires_height: i64,
    hires_steps: i64,
    strength: f64,
    upscaler: String,
    /// Where the reference itself differs; `hires.py` says why.
    tolerance: Option<f32>,
}

impl Case {
    fn draft(&self) -> Draft {
        let upscaler = Upscaler::ALL.into_iter().find(|upscaler| upscaler.name() == self.upscaler).expect("a known upscaler");
        let hires = HiresDraft {
            width: Some(self.hires_width),
            height: Some(self.hires_height),
            scale: None,
            steps: Some(self.hires_steps),
            strength: Some(self.strength),
            upscaler,
        };
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
            hires: Some(hires),
            ..Draft::new(Task::Txt2Img)
        }
    }
}

#[test]
fn two_passes_are_those_of_diffusers() {
    let dir = directory().join("hires");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(dir.join("cases.json")).expect("a file")).expect("cases");
    let latents = Checkpoint::open_files([dir.join("latents.safetensors")]).expect("the goldens");
    let mut device = device();
    let mut wrong = Vec::new();
    for case in &cases {
        let job = request(&device, case.draft());
        let finished = solo(&mut device, &job);
        let reference = Vec::<f32>::try_from(latents.tensor(&case.name).flatten(0, -1)).expect("numbers");
        let picture = image::open(dir.join(format!("{}.png", case.name))).expect("a picture").to_rgb8();
        let picture = Raster::new(picture.width(), picture.height(), picture.into_raw()).expect("its own size");
        let (error, levels) = (error(&finished.latent, &reference), levels(&finished.picture, &picture));
        println!("{}: {error:.1e}, {levels}", case.name);
        // What is encoded differs by a level; so does, twice, what is decoded.
        let most = if case.tolerance.is_some() { 3 } else { 1 };
        if error > case.tolerance.unwrap_or(TOLERANCE) || levels > most {
            wrong.push(format!("{}: latents differ by {error:.1e}, pixels by {levels}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for upscaler in Upscaler::ALL {
        assert!(cases.iter().any(|case| case.upscaler == upscaler.name()), "no case of {}", upscaler.name());
    }
}

/// A second pass of 96×64.
fn twice(sampler: &str, upscaler: Upscaler) -> Draft {
    let hires = HiresDraft { width: Some(96), height: Some(64), steps: Some(4), upscaler, ..HiresDraft::default() };
    Draft { hires: Some(hires), sampler: Some(sampler.into()), steps: Some(3), ..draft("a photo of a cat") }
}

#[test]
fn the_price_moves_between_the_passes() {
    let mut device = device();
    let job = request(&device, twice("heun", Upscaler::LatentBilinear));
    let price = device.price(&job).expect("a price");
    // Three steps, and seven tenths of four: two; Heun evaluates the last step of each pass once.
    assert_eq!((price.key.latent, price.rows, price.evaluations), ([4, 16, 16], 2, 5 + 3));
    let mut run = device.prepare(&job).expect("it is prepared").run;
    let mut advances: Vec<Advance> = Vec::new();
    while advances.last().is_none_or(|advance| advance.left > 0) {
        advances.extend(device.evaluate(&mut [&mut run]).remove(0));
    }
    let seen: Vec<(u32, u32, u32)> = advances.iter().map(|advance| (advance.step, advance.steps, advance.left)).collect();
    assert_eq!(seen, [(1, 5, 7), (1, 5, 6), (2, 5, 5), (2, 5, 4), (3, 5, 3), (4, 5, 2), (4, 5, 1), (5, 5, 0)]);
    let moved: Vec<usize> = (0..8).filter(|&call| advances[call].moved.is_some()).collect();
    assert_eq!(moved, [4]);
    let moved = advances[4].moved.clone().expect("it moved");
    assert_eq!((moved.key.latent, moved.key.cross, moved.rows, moved.evaluations), ([4, 16, 24], price.key.cross, 2, 3));
    let finished = decode(&mut device, run);
    assert_eq!((finished.picture.width(), finished.picture.height()), (96, 64));
}

#[test]
fn both_passes_share_calls_with_strangers() {
    let mut device = device();
    let job = request(&device, twice("euler_a", Upscaler::LatentNearest));
    let small = request(&device, Draft { sampler: Some("euler".into()), steps: Some(3), ..draft("a blue circle") });
    let large =
        request(&device, Draft { sampler: Some("ddim".into()), width: Some(96), steps: Some(2), ..draft("a red square") });
    let alone = [&job, &small, &large].map(|job| solo(&mut device, job));
    let [mut a, mut b, mut c] = [&job, &small, &large].map(|job| device.prepare(job).expect("it is prepared").run);
    for _ in 0..3 {
        crate::rig::evaluate(&mut device, &mut [&mut b, &mut a]);
    }
    for _ in 0..2 {
        crate::rig::evaluate(&mut device, &mut [&mut a, &mut c]);
    }
    for (run, alone) in [a, b, c].into_iter().zip(&alone) {
        same("in company", &decode(&mut device, run), alone);
    }
}

#[test]
fn jobs_of_two_passes_survive() {
    for (sampler, upscaler) in
        [("euler_a", Upscaler::LatentBilinear), ("dpmpp_sde", Upscaler::LatentNearest), ("dpmpp_2m", Upscaler::PixelLanczos)]
    {
        let job = request(&device(), twice(sampler, upscaler));
        crate::checkpoints::survives(sampler, &device, &job);
    }
    // The same first pass, another second one.
    let mut device = device();
    let (one, other) = (twice("ddim", Upscaler::LatentBilinear), twice("ddim", Upscaler::LatentNearest));
    let (one, other) = (request(&device, one), request(&device, other));
    let mut run = device.prepare(&one).expect("it is prepared").run;
    crate::rig::until(&mut device, &mut run, 1);
    let checkpoint = device.checkpoint(&run).expect("a checkpoint");
    let prepared = device.restore(&other, &checkpoint).expect("it is prepared");
    assert_eq!(prepared.price.evaluations, 5);
    assert!(finish(&mut device, prepared.run) == solo(&mut device, &other));
}
