//! In the mode that promises it, company changes not one bit of a picture.

use std::sync::Arc;

use ldm_core::{Draft, Request};
use ldm_engine::Executor;
use ldm_pipeline::{DeviceExecutor, LoadOptions, Mode, Run};

use crate::rig::{Finished, decode, directory, draft, evaluate, load, options, request, solo};

/// Knuth's MMIX generator: enough to shuffle tests, the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

const SAMPLERS: [&str; 6] = ["ddim", "euler_a", "dpmpp_2m", "heun", "dpmpp_2m_sde", "lcm"];

fn stranger(device: &DeviceExecutor, random: &mut Random) -> Arc<Request> {
    let prompts = ["a photo of a cat", "", "a red square above a blue circle", "a blue circle"];
    let stranger = Draft {
        sampler: Some(SAMPLERS[random.below(SAMPLERS.len())].into()),
        steps: Some(2 + random.below(6) as i64),
        guidance: Some([1., 3., 7.5][random.below(3)]),
        seed: Some(random.below(1000) as i64),
        ..draft(prompts[random.below(4)])
    };
    request(device, stranger)
}

/// Runs the job in a random company whose members come and go, at random places in the call.
fn in_company(device: &mut DeviceExecutor, job: &Arc<Request>, random: &mut Random) -> Finished {
    let mut run = device.prepare(job).expect("it is prepared").run;
    let mut others: Vec<Run> = Vec::new();
    loop {
        while others.len() < 1 + random.below(4) {
            let stranger = stranger(device, random);
            others.push(device.prepare(&stranger).expect("it is prepared").run);
        }
        let place = random.below(others.len() + 1);
        let mut runs: Vec<&mut Run> = others.iter_mut().collect();
        runs.insert(place, &mut run);
        let mut done = evaluate(device, &mut runs);
        if done.remove(place) {
            return decode(device, run);
        }
        let mut done = done.into_iter();
        others.retain(|_| !done.next().unwrap_or(true));
    }
}

fn companies(mode: Mode) -> (usize, usize) {
    let mut device = load(&directory().join("tiny-sd"), &LoadOptions { mode, ..options() }).expect("it loads");
    let mut random = Random(7);
    let (mut other_latents, mut other_pictures) = (0, 0);
    for (index, guidance) in [5., 1.].into_iter().cycle().take(20).enumerate() {
        let sampler = SAMPLERS[index % SAMPLERS.len()];
        let job =
            request(&device, Draft { sampler: Some(sampler.into()), guidance: Some(guidance), ..draft("a photo of a cat") });
        let alone = solo(&mut device, &job);
        let found = in_company(&mut device, &job, &mut random);
        let bits = |finished: &Finished| finished.latent.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        other_latents += usize::from(bits(&found) != bits(&alone));
        other_pictures += usize::from(found.picture != alone.picture);
    }
    (other_latents, other_pictures)
}

#[test]
fn company_changes_no_bit_in_the_mode_that_promises_it() {
    assert_eq!(companies(Mode::BatchInvariant), (0, 0));
    let (latents, pictures) = companies(Mode::Fast);
    println!("in fast mode {latents} of 20 latents and {pictures} of 20 pictures have other bits in company");
}

#[test]
fn twenty_companies_change_no_bit_of_one_job() {
    let mut device =
        load(&directory().join("tiny-sd"), &LoadOptions { mode: Mode::BatchInvariant, ..options() }).expect("it loads");
    let mut random = Random(11);
    let job = request(&device, Draft { sampler: Some("dpmpp_2m".into()), ..draft("a photo of a cat") });
    let alone = solo(&mut device, &job);
    for company in 0..20 {
        let found = in_company(&mut device, &job, &mut random);
        assert!(found.latent.iter().map(|x| x.to_bits()).eq(alone.latent.iter().map(|x| x.to_bits())), "company {company}");
        assert!(found.picture == alone.picture, "company {company}");
    }
}

#[test]
fn the_mode_and_the_weights_are_in_the_catalogue() {
    let tiny = directory().join("tiny-sd");
    let of = |mode| load(&tiny, &LoadOptions { mode, ..options() }).expect("it loads").catalogue().models.remove(0);
    let (fast, invariant) = (of(Mode::Fast), of(Mode::BatchInvariant));
    assert_eq!((fast.mode, invariant.mode), (ldm_pipeline::Mode::Fast, ldm_pipeline::Mode::BatchInvariant));
    assert_eq!(fast.weights, invariant.weights);
    assert!(fast.weights.len() == 64 && fast.weights.chars().all(|c| c.is_ascii_hexdigit()), "{}", fast.weights);
    for mode in [Mode::Fast, Mode::BatchInvariant] {
        assert_eq!(mode.to_string().parse::<Mode>().expect("a mode"), mode);
    }
    assert!("slow".parse::<Mode>().expect_err("refused").to_string().contains("batch_invariant"));
}
