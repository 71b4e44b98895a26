//! What goes wrong in a call concerns that call alone: runs stay as they were, neighbours go on, pictures are saved.

use std::cell::Cell;
use std::rc::Rc;

use ldm_core::{Draft, FailureKind};
use ldm_engine::{Decoding, Executor};
use ldm_pipeline::{Dtype, Given, LoadOptions};
use tch::Kind;

use crate::models::edit_weights;
use crate::rig::{copy_of_the_model, device, directory, draft, evaluate, finish, levels, load, options, request, solo};

fn with(sampler: &str, seed: i64) -> Draft {
    Draft { sampler: Some(sampler.into()), seed: Some(seed), ..draft("a photo of a cat") }
}

#[test]
fn a_call_that_fails_leaves_its_runs_as_they_were() {
    let mut reference = device();
    let jobs = [with("euler_a", 1), with("dpmpp_2m", 2), with("dpmpp_sde", 3)].map(|draft| request(&reference, draft));
    let alone = jobs.each_ref().map(|job| solo(&mut reference, job));
    for (message, kind) in [
        ("CUDA out of memory. Tried to allocate 2 GiB", FailureKind::OutOfMemory),
        ("DefaultCPUAllocator: can't allocate memory", FailureKind::OutOfMemory),
        ("CUDA error: an illegal memory access was encountered", FailureKind::Device),
        ("index out of range", FailureKind::Panicked),
    ] {
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let mut device = device().tampered(Box::new(move |given| {
            if let Given::Denoised(_) = given {
                counted.set(counted.get() + 1);
                // Every second call of all.
                assert!(counted.get() % 2 == 1, "{message}");
            }
        }));
        let mut runs = jobs.each_ref().map(|job| device.prepare(job).expect("it is prepared").run);
        let mut failures = 0;
        let [a, b, c] = &mut runs;
        for _ in 0..4 {
            for answer in device.evaluate(&mut [a, b, c]) {
                match answer {
                    Ok(_) => {}
                    Err(failure) => {
                        assert_eq!(failure.kind, kind, "{failure}");
                        assert!(failure.message.contains(message));
                        failures += 1;
                    }
                }
            }
        }
        assert_eq!(failures, 6, "two calls of three jobs");
        device = device.tampered(Box::new(|_| ()));
        for (run, alone) in runs.into_iter().zip(&alone) {
            crate::rig::same(message, &finish(&mut device, run), alone);
        }
    }
}

#[test]
fn a_latent_that_is_not_finite_fails_its_job_alone() {
    let mut reference = device();
    let (first, second) = (request(&reference, with("euler_a", 1)), request(&reference, with("ddim", 2)));
    let alone = [solo(&mut reference, &first), solo(&mut reference, &second)];
    for odd in [f64::NAN, f64::INFINITY] {
        let broken = Rc::new(Cell::new(false));
        let now = Rc::clone(&broken);
        let mut device = device().tampered(Box::new(move |given| {
            if let Given::Denoised(output) = given
                && now.get()
            {
                // Two rows of the first job; one number of one of them.
                let _ = output.get(1).get(0).get(3).get(2).fill_(odd);
            }
        }));
        let mut a = device.prepare(&first).expect("it is prepared").run;
        let mut b = device.prepare(&second).expect("it is prepared").run;
        evaluate(&mut device, &mut [&mut a, &mut b]);
        broken.set(true);
        let answers = device.evaluate(&mut [&mut a, &mut b]);
        broken.set(false);
        let failure = answers[0].as_ref().expect_err("not finite");
        assert_eq!(failure.kind, FailureKind::NotFinite);
        assert!(failure.message.contains("step 2 of 5"), "{failure}");
        assert_eq!(answers[1].as_ref().expect("it goes on").step, 2);
        crate::rig::same("the neighbour", &finish(&mut device, b), &alone[1]);
        // Even the job itself is as it was before.
        crate::rig::same("the job", &finish(&mut device, a), &alone[0]);
    }
}

#[test]
fn a_picture_that_overflows_is_decoded_in_float32() {
    let reference = {
        let mut device = device();
        let job = request(&device, with("ddim", 1));
        solo(&mut device, &job)
    };
    let decoded = Rc::new(Cell::new((0, 0)));
    let count = Rc::clone(&decoded);
    let half = LoadOptions { dtype: Dtype::Bf16, ..options() };
    let device = load(&directory().join("tiny-sd"), &half).expect("it loads");
    let mut device = device.tampered(Box::new(move |given| {
        if let Given::Decoded(picture) = given {
            let (halves, singles) = count.get();
            let is_half = picture.kind() != Kind::Float;
            count.set(if is_half { (halves + 1, singles) } else { (halves, singles + 1) });
            if is_half {
                let _ = picture.fill_(f64::INFINITY);
            }
        }
    }));
    let job = request(&device, with("ddim", 1));
    let first = solo(&mut device, &job);
    assert_eq!(decoded.get(), (1, 1));
    assert!(levels(&first.picture, &reference.picture) < 64, "it is about the picture that float32 draws");
    // With the stage let go of, it is read again.
    device.relieve();
    assert!(solo(&mut device, &job) == first);
    assert_eq!(decoded.get(), (2, 2));
}

/// A first stage whose decoder overflows in float16 and not in float32: a bias of 100 000 is infinity there, and the next norm takes
/// it out.
#[test]
fn a_first_stage_that_float16_cannot_hold_still_draws() {
    let dir = copy_of_the_model("overflow");
    edit_weights(&dir.join("vae/diffusion_pytorch_model.safetensors"), |name, tensor| {
        // 65 000 is the most that the file's float16 holds; doubled by the weights it is more.
        Some(if name == "decoder.conv_in.bias" || name == "decoder.conv_in.weight" { tensor.ones_like() * 6e4 } else { tensor })
    });
    let draft = with("ddim", 1);
    let mut single = load(&dir, &options()).expect("it loads");
    let job = request(&single, draft);
    let reference = solo(&mut single, &job);
    let mut half = load(&dir, &LoadOptions { dtype: Dtype::F16, ..options() }).expect("it loads");
    let mut run = half.prepare(&job).expect("it is prepared").run;
    crate::rig::until(&mut half, &mut run, 0);
    let picture = half.decode(&mut run, Decoding::Usual).expect("a picture");
    assert!(levels(&picture, &reference.picture) < 64);
}

#[test]
fn frugal_decoding_gives_the_picture_in_tiles() {
    let options = LoadOptions { max_side: Some(256), ..options() };
    let mut device = load(&directory().join("tiny-sd"), &options).expect("it loads");
    for (side, tiled) in [(64, false), (224, true)] {
        let job = request(&device, Draft { width: Some(side), height: Some(side), steps: Some(2), ..with("ddim", 1) });
        let mut run = device.prepare(&job).expect("it is prepared").run;
        crate::rig::until(&mut device, &mut run, 0);
        let usual = device.decode(&mut run, Decoding::Usual).expect("a picture");
        device.relieve();
        let frugal = device.decode(&mut run, Decoding::Frugal).expect("a picture");
        assert_eq!((frugal.width(), frugal.height()), (side as u32, side as u32));
        assert_eq!(usual != frugal, tiled);
    }
}

#[test]
fn a_decoding_without_memory_can_be_tried_again() {
    let mut reference = device();
    let job = request(&reference, with("ddim", 1));
    let alone = solo(&mut reference, &job);
    let mut tried = 0;
    let mut device = device().tampered(Box::new(move |given| {
        if let Given::Decoded(_) = given {
            tried += 1;
            assert!(tried > 1, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes");
        }
    }));
    let mut run = device.prepare(&job).expect("it is prepared").run;
    crate::rig::until(&mut device, &mut run, 0);
    assert_eq!(device.decode(&mut run, Decoding::Usual).expect_err("no memory").kind, FailureKind::OutOfMemory);
    device.relieve();
    // The picture is no larger than one of the small tiles.
    assert!(device.decode(&mut run, Decoding::Frugal).expect("a picture") == alone.picture);
}
