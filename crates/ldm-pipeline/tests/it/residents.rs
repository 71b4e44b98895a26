//! Models that come and go while jobs run: every job ends on the weights that it began with.

use std::path::Path;
use std::sync::Arc;

use ldm_core::FailureKind;
use ldm_engine::{Executor, ModelChange, Resident};
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, ModelSource};

use crate::models::edit_weights;
use crate::rig::{copy_of_the_model, device, directory, draft, evaluate, finish, options, request, solo};

fn tiny() -> ModelSource {
    ModelSource::new("tiny", directory().join("tiny-sd"))
}

fn put(source: ModelSource) -> ModelChange {
    ModelChange::Put(Arc::new(source))
}

/// Moves the denoiser's last bias.
fn retrain(dir: &Path) {
    edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
        // As training does: every number, one of them by much.
        Some(if name == "conv_out.bias" { tensor + 0.5 } else { tensor * 1.01 })
    });
}

#[test]
fn a_lazy_model_is_described_and_loaded_when_it_is_asked_for() {
    let mut eager = device();
    let mut lazy = DeviceExecutor::load(&[ModelSource { lazy: true, ..tiny() }], &options()).expect("it is described");
    assert_eq!(lazy.catalogue(), eager.catalogue());
    let job = request(&lazy, draft("a photo of a cat"));
    assert_eq!(lazy.price(&job), eager.price(&job));
    let [Resident { loaded: false, bytes, .. }] = lazy.residents()[..] else { panic!("it is loaded") };
    // About four bytes for each number, somewhat more where convolutions are kept in Winograd's domain.
    let numbers = lazy.catalogue().models[0].parameters;
    assert!((numbers * 4..numbers * 8).contains(&bytes), "{bytes} bytes of {numbers} numbers");
    let failure = lazy.prepare(&job).err().expect("refused");
    assert!(failure.kind == FailureKind::Unsupported && failure.message.contains("not loaded"), "{failure}");
    lazy.load("tiny").expect("it loads");
    assert_eq!(lazy.residents(), eager.residents());
    assert!(solo(&mut lazy, &job) == solo(&mut eager, &job));
    assert!(lazy.load("other").is_err());
    let half = LoadOptions { dtype: Dtype::Bf16, ..options() };
    let half = DeviceExecutor::load(&[ModelSource { lazy: true, ..tiny() }], &half).expect("it is described");
    assert_eq!(half.residents()[0].bytes, bytes / 2);
}

#[test]
fn a_job_ends_on_weights_that_were_unloaded_or_removed() {
    let mut device = device();
    let job = request(&device, draft("a photo of a cat"));
    let alone = solo(&mut device, &job);
    let mut run = device.prepare(&job).expect("it is prepared").run;
    evaluate(&mut device, &mut [&mut run]);
    device.unload("tiny");
    assert!(!device.residents()[0].loaded && device.catalogue().models.len() == 1);
    evaluate(&mut device, &mut [&mut run]);
    let key = device.price(&job).expect("a price").key;
    device.load("tiny").expect("it loads again");
    assert_eq!(device.price(&job).expect("a price").key, key, "the same weights have the same name");
    device.change(&ModelChange::Remove("tiny".into())).expect("it goes");
    assert!(device.residents().is_empty() && device.catalogue().models.is_empty());
    assert_eq!(device.prepare(&job).err().expect("refused").kind, FailureKind::Unsupported);
    assert!(finish(&mut device, run) == alone);
    assert!(device.change(&ModelChange::Remove("tiny".into())).is_err());
    device.change(&put(tiny())).expect("it comes back");
    assert!(solo(&mut device, &job) == alone);
}

#[test]
fn a_job_ends_on_weights_that_were_replaced() {
    let dir = copy_of_the_model("replaced");
    let mut device = DeviceExecutor::load(&[ModelSource::new("tiny", &dir)], &options()).expect("it loads");
    let job = request(&device, draft("a photo of a cat"));
    let (alone, price) = (solo(&mut device, &job), device.price(&job).expect("a price"));
    let digest = device.catalogue().models[0].weights.clone();
    let mut run = device.prepare(&job).expect("it is prepared").run;
    evaluate(&mut device, &mut [&mut run]);
    retrain(&dir);
    device.change(&ModelChange::Reload("tiny".into())).expect("it is read again");
    let replaced = device.price(&job).expect("a price");
    assert_eq!((price.key.model.as_str(), replaced.key.model.as_str()), ("tiny", "tiny#2"));
    assert_ne!(device.catalogue().models[0].weights, digest);
    let found = solo(&mut device, &job);
    assert!(found.latent != alone.latent, "the new weights draw another picture");
    assert!(finish(&mut device, run) == alone, "the old ones draw what they always did");
    // Files that changed while the model was not loaded are other weights too.
    device.unload("tiny");
    retrain(&dir);
    device.load("tiny").expect("it loads");
    assert_eq!(device.price(&job).expect("a price").key.model, "tiny#3");
}

#[test]
fn a_broken_source_leaves_the_old_model_serving() {
    let dir = copy_of_the_model("broken-source");
    let mut device = DeviceExecutor::load(&[ModelSource::new("tiny", &dir)], &options()).expect("it loads");
    let job = request(&device, draft("a photo of a cat"));
    let (alone, catalogue) = (solo(&mut device, &job), device.catalogue());
    std::fs::remove_file(dir.join("unet/diffusion_pytorch_model.safetensors")).expect("it goes");
    let elsewhere = ModelSource::new("tiny", dir.join("nowhere"));
    let marked = ModelSource::new("a#b", directory().join("tiny-sd"));
    for (change, word) in [
        (ModelChange::Reload("tiny".into()), "unet"),
        (put(elsewhere), "nowhere"),
        (put(marked), "a#b"),
        (ModelChange::Put(Arc::new(7)), "ModelSource"),
        (ModelChange::Reload("other".into()), "other"),
        (ModelChange::Remove("other".into()), "other"),
    ] {
        let failure = device.change(&change).expect_err("refused");
        assert!(failure.message.contains(word), "{change:?}: {failure}");
        assert_eq!(device.catalogue(), catalogue);
    }
    assert!(solo(&mut device, &job) == alone);
}

#[test]
fn models_are_put_beside_others() {
    let mut device = device();
    let lazy = ModelSource { id: "lazy".into(), lazy: true, ..tiny() };
    device.change(&put(lazy)).expect("it is described");
    let loaded: Vec<_> = device.residents().into_iter().map(|resident| (resident.id, resident.loaded)).collect();
    assert_eq!(loaded, [("tiny".to_owned(), true), ("lazy".to_owned(), false)]);
    device.load("lazy").expect("it loads");
    let named = ldm_core::Draft { model: Some("lazy".into()), ..draft("a photo of a cat") };
    let (lazy, tiny) = (request(&device, named), request(&device, draft("a photo of a cat")));
    assert!(solo(&mut device, &lazy) == solo(&mut device, &tiny));
}
