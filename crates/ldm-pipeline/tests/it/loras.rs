//! Adapters of jobs: each job has its own in company, and none that it did not ask for.

use std::path::PathBuf;
use std::sync::Arc;

use ldm_core::{Draft, FailureKind, Lora, Raster, Request, Task};
use ldm_engine::Executor;
use ldm_nn::weights::save;
use ldm_pipeline::{DeviceExecutor, Merge, ModelSource, inspect_source};
use tch::{Device, Kind, Tensor};

use crate::batching::together;
use crate::rig::{Finished, device, directory, draft, draw, error, options, request, same, scratch, solo};

const NAMES: [&str; 4] = ["sd-kohya", "sd-diffusers", "sd-old", "sd-metadata"];

fn file(name: &str) -> PathBuf {
    directory().join("lora").join(format!("{name}.safetensors"))
}

fn source() -> ModelSource {
    let loras = NAMES.iter().map(|name| file(name)).collect();
    ModelSource { loras, ..ModelSource::new("tiny", directory().join("tiny-sd")) }
}

fn loaded() -> DeviceExecutor {
    DeviceExecutor::load(&[source()], &options()).expect("it loads")
}

fn lora(name: &str, strength: f64) -> Lora {
    Lora { name: name.into(), strength }
}

/// Eight jobs with four adapters, one, several or none each; samplers, steps and guidance as they come.
fn jobs(device: &DeviceExecutor) -> Vec<Arc<Request>> {
    let [a, b, c, d] = NAMES;
    let with = |loras: &[(&str, f64)], sampler: &str, steps, guidance, draft: Draft| Draft {
        loras: loras.iter().map(|(name, strength)| lora(name, *strength)).collect(),
        sampler: Some(sampler.into()),
        steps: Some(steps),
        guidance: Some(guidance),
        ..draft
    };
    let init = Raster::filled(64, 64, [200, 30, 90]);
    let img2img = Draft { task: Task::Img2Img, init_image: Some(init), strength: Some(0.6), ..draft("a blue circle") };
    let cat = || draft("a photo of a cat");
    [
        with(&[(a, 1.)], "ddim", 5, 7.5, cat()),
        with(&[], "euler_a", 6, 5., cat()),
        with(&[(b, 0.7)], "dpmpp_2m", 4, 1., cat()),
        with(&[(b, 0.7)], "euler", 6, 3., Draft { seed: Some(9), ..cat() }),
        with(&[(b, -0.5)], "euler", 6, 3., cat()),
        with(&[(c, 1.), (d, 0.5), (a, 0.3)], "heun", 3, 4., draft("a red square")),
        with(&[(d, 2.)], "ddim", 8, 6., Draft { eta: Some(0.5), ..img2img }),
        with(&[(c, 0.8)], "unipc", 5, 2., draft("")),
    ]
    .into_iter()
    .map(|draft| request(device, draft))
    .collect()
}

#[test]
fn eight_jobs_with_four_adapters_end_as_alone() {
    let mut device = loaded();
    let jobs = jobs(&device);
    // Adapters do not keep jobs apart.
    let keys: Vec<_> = jobs.iter().map(|job| device.price(job).expect("a price").key).collect();
    assert!(keys.iter().all(|key| *key == keys[0]));
    let alone: Vec<_> = jobs.iter().map(|job| solo(&mut device, job)).collect();
    for joins in [[0; 8], [0, 0, 1, 1, 2, 2, 3, 3]] {
        let joined: Vec<_> = joins.into_iter().zip(&jobs).map(|(from, job)| (from, Arc::clone(job))).collect();
        for (i, (found, alone)) in together(&mut device, &joined).iter().zip(&alone).enumerate() {
            same(&format!("job {i}"), found, alone);
        }
    }
    // That they agree says nothing unless adapters matter.
    let mut plain = self::device();
    for (i, (job, alone)) in jobs.iter().zip(&alone).enumerate() {
        let bare = Arc::new({
            let mut bare = Request::clone(job);
            bare.loras.clear();
            bare
        });
        let bare = solo(&mut plain, &bare);
        let moved = error(&bare.latent, &alone.latent);
        assert!(if job.loras.is_empty() { bare == *alone } else { moved > 1e-2 }, "job {i}: {moved:.1e}");
    }
}

fn asked(device: &mut DeviceExecutor, loras: &[(&str, f64)]) -> Finished {
    let loras = loras.iter().map(|(name, strength)| lora(name, *strength)).collect();
    draw(device, Draft { loras, ..draft("a photo of a cat") })
}

#[test]
fn encoded_prompts_are_kept_by_adapter_and_strength() {
    let mut device = loaded();
    let choices: [&[(&str, f64)]; 5] =
        [&[], &[(NAMES[0], 1.)], &[(NAMES[0], 0.5)], &[(NAMES[1], 1.)], &[(NAMES[0], 1.), (NAMES[1], 1.)]];
    let first: Vec<_> = choices.iter().map(|choice| asked(&mut device, choice)).collect();
    for (i, one) in first.iter().enumerate() {
        assert!(first[..i].iter().all(|other| error(&other.latent, &one.latent) > 1e-3), "choice {i}");
    }
    // Backwards, now that every prompt is kept; and where nothing was kept before.
    for (choice, first) in choices.iter().zip(&first).rev() {
        assert!(asked(&mut device, choice) == *first && asked(&mut loaded(), choice) == *first);
    }
    // Strength 0 is none, in another order of operations.
    same("strength 0", &asked(&mut device, &[(NAMES[0], 0.)]), &first[0]);
}

#[test]
fn the_catalogue_lists_adapters_and_drafts_are_held_to_it() {
    let device = loaded();
    let catalogue = device.catalogue();
    assert_eq!(catalogue.models[0].loras, NAMES);
    let bad = Draft { loras: vec![lora("other", 1.)], ..draft("") }.check(&catalogue).expect_err("a violation");
    assert!(bad.0[0].message.contains("other") && bad.0[0].limit.as_deref().is_some_and(|known| known.contains(NAMES[0])));
    assert!(self::device().catalogue().models[0].loras.is_empty());
    // A request that was checked elsewhere.
    let job = request(&device, Draft { loras: vec![lora(NAMES[0], 1.)], ..draft("") });
    let failure = self::device().prepare(&job).err().expect("it is refused");
    assert!(failure.kind == FailureKind::Unsupported && failure.message.contains(NAMES[0]), "{failure}");
}

#[test]
fn a_folder_is_its_files_in_order() {
    let dir = scratch("loras");
    for name in [NAMES[1], NAMES[0]] {
        std::fs::copy(file(name), dir.join(format!("{name}.safetensors"))).expect("a copy");
    }
    std::fs::write(dir.join("notes.txt"), "no adapter").expect("a file");
    let with = |loras: Vec<PathBuf>| DeviceExecutor::load(&[ModelSource { loras, ..source() }], &options());
    let device = with(vec![file(NAMES[3]), dir.clone()]).expect("it loads");
    assert_eq!(device.catalogue().models[0].loras, [NAMES[3], NAMES[1], NAMES[0]]);
    let refusal = with(vec![dir.clone(), file(NAMES[0])]).err().expect("a refusal").to_string();
    assert!(refusal.contains("two LoRAs are called \"sd-kohya\""), "{refusal}");
    let absent = with(vec![dir.join("absent.safetensors")]).err().expect("a refusal").to_string();
    assert!(absent.contains("absent.safetensors"), "{absent}");
}

#[test]
fn what_is_merged_adds_to_what_is_asked_for() {
    let merge = vec![Merge { path: file(NAMES[0]), strength: 0.5 }];
    let mut merged = DeviceExecutor::load(&[ModelSource { merge, ..source() }], &options()).expect("it loads");
    let both = asked(&mut merged, &[(NAMES[1], 0.7)]);
    same("merged and attached", &both, &asked(&mut loaded(), &[(NAMES[0], 0.5), (NAMES[1], 0.7)]));
    let merge = vec![Merge { path: file("sdxl-kohya"), strength: 1. }];
    let stranger = ModelSource { merge, ..source() };
    let inspection = inspect_source(&stranger);
    assert!(inspection.problems.iter().any(|problem| problem.contains("sdxl-kohya")), "{:?}", inspection.problems);
}

#[test]
fn a_folder_of_embeddings_is_its_files() {
    let dir = scratch("embeddings");
    for (name, value) in [("moss", 1.), ("ink", -1.)] {
        let vectors = Tensor::arange(64, (Kind::Float, Device::Cpu)).view([2, 32]).sin() * value;
        save([("emb_params", &vectors)], Kind::Float, &dir.join(format!("{name}.safetensors"))).expect("saved");
    }
    let with = ModelSource { embeddings: vec![dir], ..source() };
    let mut with = DeviceExecutor::load(&[with], &options()).expect("it loads");
    let mut drawn = |prompt: &str| draw(&mut with, draft(prompt)).latent;
    let [moss, ink, plain] = [drawn("a cat in moss"), drawn("a cat in ink"), drawn("a cat")];
    assert!(error(&moss, &ink) > 1e-3 && error(&moss, &plain) > 1e-3);
}
