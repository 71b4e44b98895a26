//! Company changes nothing: a job in a batch, whoever joins and leaves, ends as it would have alone.

use std::sync::Arc;

use ldm_core::{Draft, Raster, Request, Task};
use ldm_engine::Executor;
use ldm_pipeline::DeviceExecutor;

use crate::rig::{Finished, decode, device, draft, evaluate, request, same, solo};

/// Runs jobs together, each joining after that many calls; they leave as they finish.
pub(crate) fn together(device: &mut DeviceExecutor, jobs: &[(usize, Arc<Request>)]) -> Vec<Finished> {
    let mut running = Vec::new();
    let mut finished: Vec<Option<Finished>> = jobs.iter().map(|_| None).collect();
    let mut call = 0;
    while finished.iter().any(Option::is_none) {
        for (i, (from, request)) in jobs.iter().enumerate() {
            if *from == call {
                running.push((i, device.prepare(request).expect("it is prepared").run));
            }
        }
        call += 1;
        assert!(call < 1000, "they never finish");
        let mut runs: Vec<_> = running.iter_mut().map(|(_, run)| run).collect();
        let done = evaluate(device, &mut runs);
        let mut still = Vec::new();
        for ((i, run), done) in running.drain(..).zip(done) {
            if done {
                finished[i] = Some(decode(device, run));
            } else {
                still.push((i, run));
            }
        }
        running = still;
    }
    finished.into_iter().flatten().collect()
}

/// Four jobs that share nothing but their size.
fn strangers(device: &DeviceExecutor) -> Vec<Arc<Request>> {
    let with = |sampler: &str, steps, guidance, seed, draft: Draft| Draft {
        sampler: Some(sampler.into()),
        steps: Some(steps),
        guidance: Some(guidance),
        seed: Some(seed),
        ..draft
    };
    let init = Raster::filled(64, 64, [200, 30, 90]);
    let img2img = Draft { task: Task::Img2Img, init_image: Some(init), strength: Some(0.5), ..draft("a blue circle") };
    [
        with("euler_a", 6, 7.5, 1, draft("a photo of a cat")),
        with("dpmpp_2m", 9, 1., 2, draft("a red square above a blue circle")),
        with("heun", 4, 3., 3, Draft { negative_prompt: Some("low quality, blurry".into()), ..draft("") }),
        with("ddim", 10, 12., 4, Draft { eta: Some(0.5), ..img2img }),
    ]
    .into_iter()
    .map(|draft| request(device, draft))
    .collect()
}

#[test]
fn two_jobs_of_different_kinds_end_as_alone() {
    let mut device = device();
    let jobs = strangers(&device);
    let alone: Vec<_> = jobs[..2].iter().map(|job| solo(&mut device, job)).collect();
    let both = together(&mut device, &[(0, Arc::clone(&jobs[0])), (0, Arc::clone(&jobs[1]))]);
    for (i, (found, reference)) in both.iter().zip(&alone).enumerate() {
        same(&format!("job {i}"), found, reference);
    }
}

#[test]
fn joining_midway_ends_as_alone() {
    let mut device = device();
    let jobs = strangers(&device);
    let alone: Vec<_> = jobs.iter().map(|job| solo(&mut device, job)).collect();
    // The first runs alone, the others join at its third, fourth and last call; the last one joined runs on alone.
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let joins = [0, 2, 3, 5];
        let jobs: Vec<_> = order.iter().zip(joins).map(|(&i, from)| (from, Arc::clone(&jobs[i]))).collect();
        let found = together(&mut device, &jobs);
        for (&i, found) in order.iter().zip(&found) {
            same(&format!("job {i} in {order:?}"), found, &alone[i]);
        }
    }
}

#[test]
fn a_job_that_is_dropped_leaves_the_others_alone() {
    let mut device = device();
    let jobs = strangers(&device);
    let alone = solo(&mut device, &jobs[0]);
    let mut kept = device.prepare(&jobs[0]).expect("it is prepared").run;
    let mut dropped = device.prepare(&jobs[2]).expect("it is prepared").run;
    evaluate(&mut device, &mut [&mut dropped, &mut kept]);
    evaluate(&mut device, &mut [&mut dropped, &mut kept]);
    drop(dropped);
    while !evaluate(&mut device, &mut [&mut kept])[0] {}
    same("the job that stayed", &decode(&mut device, kept), &alone);
}

#[test]
fn a_probe_between_calls_changes_nothing() {
    let mut device = device();
    let jobs = strangers(&device);
    let alone = solo(&mut device, &jobs[1]);
    let mut run = device.prepare(&jobs[1]).expect("it is prepared").run;
    loop {
        device.probe().expect("the device computes");
        if evaluate(&mut device, &mut [&mut run])[0] {
            break;
        }
    }
    same("the job", &decode(&mut device, run), &alone);
}

#[test]
fn the_price_says_who_can_share_a_call() {
    let device = device();
    let price = |draft: Draft| device.price(&request(&device, draft)).expect("a price");
    let prices: Vec<_> = strangers(&device).iter().map(|job| device.price(job).expect("a price")).collect();
    assert!(prices.iter().all(|price| price.key == prices[0].key));
    assert_eq!(prices.iter().map(|price| price.rows).collect::<Vec<_>>(), [2, 1, 2, 2]);
    // Heun evaluates twice but at the last step; strength 0.5 of 10 steps is 5.
    assert_eq!(prices.iter().map(|price| price.evaluations).collect::<Vec<_>>(), [6, 9, 7, 5]);
    assert_eq!(prices[0].key.latent, [4, 16, 16]);
    assert_eq!(prices[0].key.cross, [77, 32]);
    let wide = price(Draft { width: Some(96), ..draft("") });
    assert_eq!(wide.key.latent, [4, 16, 24]);
    // diffusers guides above 1 alone.
    for (guidance, rows) in [(0., 1), (0.5, 1), (1., 1), (1.01, 2)] {
        assert_eq!(price(Draft { guidance: Some(guidance), ..draft("") }).rows, rows, "guidance {guidance}");
    }
}

#[test]
fn advances_count_steps_not_calls() {
    let mut device = device();
    for (sampler, steps, calls) in [("ddim", 4, 4), ("heun", 4, 7), ("plms", 4, 5)] {
        let draft = Draft { sampler: Some(sampler.into()), steps: Some(steps), ..draft("") };
        let mut run = device.prepare(&request(&device, draft)).expect("it is prepared").run;
        let mut seen = Vec::new();
        loop {
            let advance = device.evaluate(&mut [&mut run]).remove(0).expect("it advances");
            assert_eq!(advance.steps, steps as u32);
            seen.push(advance.step);
            if advance.left == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), calls, "{sampler}");
        assert!(seen.is_sorted() && seen[0] == 1 && seen[seen.len() - 1] == steps as u32, "{sampler}: {seen:?}");
    }
}
