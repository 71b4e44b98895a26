//! A job that was stopped and taken up elsewhere ends as if nothing had happened; what does not fit starts from the beginning.

use std::sync::Arc;

use ldm_core::{Checkpoint, Draft, Plane, Raster, Request, Task};
use ldm_engine::{Executor, Prepared};
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, Mode};

use crate::models::edit_weights;
use crate::rig::{copy_of_the_model, decode, device, directory, draft, evaluate, finish, load, options, request, solo};
use crate::systems::made;

/// Stops the job after `calls` calls.
fn stopped(device: &mut DeviceExecutor, request: &Arc<Request>, calls: u32) -> Checkpoint {
    let mut run = device.prepare(request).expect("it is prepared").run;
    for _ in 0..calls {
        evaluate(device, &mut [&mut run]);
    }
    device.checkpoint(&run).expect("a checkpoint")
}

/// Stops the job at several places, and takes it up on another device.
pub(crate) fn survives(what: &str, make: &dyn Fn() -> DeviceExecutor, request: &Arc<Request>) {
    let mut first = make();
    let reference = solo(&mut first, request);
    let calls = first.price(request).expect("a price").evaluations;
    let mut second = make();
    for done in [0, 1, calls / 2, calls - 1, calls] {
        let checkpoint = stopped(&mut first, request, done);
        let Prepared { run, price } = second.restore(request, &checkpoint).expect("it is taken up");
        assert_eq!(price.evaluations, calls - done, "{what} after {done} of {calls}");
        let finished = if done == calls { decode(&mut second, run) } else { finish(&mut second, run) };
        assert!(finished == reference, "{what} after {done} of {calls}: another picture");
    }
}

#[test]
fn jobs_of_every_sampler_survive() {
    for entry in ldm_sampler::entries() {
        let with = Draft { sampler: Some(entry.name.into()), steps: Some(4), ..draft("a photo of a cat") };
        let job = request(&device(), with);
        survives(entry.name, &device, &job);
    }
}

#[test]
fn jobs_that_start_from_a_picture_survive() {
    let init = || Some(Raster::filled(64, 64, [200, 30, 90]));
    let mut mask = Plane::filled(64, 64, 0).data().to_vec();
    mask[..2048].fill(255);
    let mask = Plane::new(64, 64, mask).expect("its own size");
    for sampler in ["euler_a", "dpmpp_2m_sde", "ddim", "plms"] {
        let with = |task| Draft {
            task,
            init_image: init(),
            strength: Some(0.7),
            sampler: Some(sampler.into()),
            steps: Some(6),
            ..draft("a photo of a cat")
        };
        let inpaint = Draft { mask: Some(mask.clone()), ..with(Task::Inpaint) };
        for draft in [with(Task::Img2Img), inpaint] {
            let what = format!("{sampler} {}", draft.task);
            survives(&what, &device, &request(&device(), draft));
        }
    }
}

#[test]
fn super_resolution_survives() {
    let path = made("ldm-super-resolution", "checkpoint-sr");
    let make = || load(&path, &options()).expect("it loads");
    let low = Raster::filled(12, 20, [20, 130, 90]);
    let job = Draft {
        lr_image: Some(low),
        steps: Some(5),
        sampler: Some("ddim".into()),
        eta: Some(0.5),
        seed: Some(3),
        ..Draft::new(Task::SuperResolution)
    };
    let job = request(&make(), job);
    survives("super-resolution", &make, &job);
}

/// The job starts from its first call.
fn starts_over(what: &str, device: &mut DeviceExecutor, request: &Arc<Request>, checkpoint: &Checkpoint) {
    let all = device.price(request).expect("a price").evaluations;
    let prepared = device.restore(request, checkpoint).expect("it is prepared anyway");
    assert_eq!(prepared.price.evaluations, all, "{what}");
}

#[test]
fn damaged_checkpoints_are_not_taken_up() {
    let mut device = device();
    let job = request(&device, Draft { sampler: Some("dpmpp_2m".into()), ..draft("a cat") });
    let good = stopped(&mut device, &job, 2);
    let with = |bytes: Vec<u8>| Checkpoint { step: good.step, bytes: bytes.into() };
    let length = good.bytes.len();
    for at in (0..length).step_by(length / 40).chain([4, 5, 38, 70, length - 1]) {
        let mut bytes = good.bytes.to_vec();
        bytes[at] ^= 0x40;
        starts_over(&format!("byte {at}"), &mut device, &job, &with(bytes));
        starts_over(&format!("{at} bytes"), &mut device, &job, &with(good.bytes[..at].to_vec()));
    }
    starts_over("more bytes", &mut device, &job, &with([&good.bytes[..], &[0; 7]].concat()));
    starts_over("other bytes", &mut device, &job, &with(vec![7; 5000]));
    // From the beginning is as ever.
    let run = device.restore(&job, &with(vec![])).expect("it is prepared").run;
    assert!(finish(&mut device, run) == solo(&mut device, &job));
}

#[test]
fn checkpoints_of_other_jobs_and_other_models_are_not_taken_up() {
    let mut tiny = device();
    let with = |change: fn(&mut Draft)| {
        let mut draft = draft("a cat");
        change(&mut draft);
        request(&device(), draft)
    };
    let job = with(|_| ());
    let checkpoint = stopped(&mut tiny, &job, 2);
    type Change = fn(&mut Draft);
    let others: [(&str, Change); 6] = [
        ("seed", |draft| draft.seed = Some(8)),
        ("steps", |draft| draft.steps = Some(6)),
        ("sampler", |draft| draft.sampler = Some("euler".into())),
        ("prompt", |draft| draft.prompt = Some("a dog".into())),
        ("guidance", |draft| draft.guidance = Some(4.)),
        ("width", |draft| draft.width = Some(96)),
    ];
    for (what, change) in others {
        starts_over(what, &mut tiny, &with(change), &checkpoint);
    }
    let from = |colour| Draft {
        task: Task::Img2Img,
        init_image: Some(Raster::filled(64, 64, colour)),
        strength: Some(0.8),
        ..draft("a cat")
    };
    let (red, blue) = (request(&tiny, from([200, 0, 0])), request(&tiny, from([0, 0, 200])));
    let reds = stopped(&mut tiny, &red, 2);
    starts_over("another picture", &mut tiny, &blue, &reds);
    let dir = copy_of_the_model("checkpoint-weights");
    edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
        Some(if name == "conv_out.bias" { tensor + 0.5 } else { tensor })
    });
    starts_over("weights", &mut load(&dir, &options()).expect("it loads"), &job, &checkpoint);
    let tiny = directory().join("tiny-sd");
    let half = LoadOptions { dtype: Dtype::Bf16, ..options() };
    starts_over("dtype", &mut load(&tiny, &half).expect("it loads"), &job, &checkpoint);
    let alone = LoadOptions { mode: Mode::BatchInvariant, ..options() };
    starts_over("mode", &mut load(&tiny, &alone).expect("it loads"), &job, &checkpoint);
}
