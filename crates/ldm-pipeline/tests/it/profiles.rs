//! Profiles: measured once, kept beside the model or elsewhere, measured again when what they hold for is other.

use std::path::Path;

use ldm_core::FailureKind;
use ldm_engine::Executor;
use ldm_engine::cost::{Costs, Profile};
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, ModelSource};

use crate::models::edit_weights;
use crate::rig::{copy_of_the_model, load, options, scratch};

const NAME: &str = "latentd-profile.json";

/// What the model's calls cost: as kept, else measured as an engine does, with few rows, and kept.
fn profile(device: &mut DeviceExecutor) -> Profile {
    if let Some(known) = device.recall("tiny") {
        return known;
    }
    let mut costs = Costs::new(8);
    for rows in [1, 1, 2, 2, 4] {
        let (key, took) = device.rehearse("tiny", rows).expect("a call").expect("a time");
        assert_eq!((key.model.as_str(), key.latent, key.cross), ("tiny", [4, 16, 16], [77, 32]));
        assert!(!took.is_zero());
        costs.record_evaluation(&key, rows, took);
    }
    let profile = costs.profile();
    device.rehearsed("tiny", &profile);
    profile
}

fn is_kept(dir: &Path, options: &LoadOptions, profile: &Profile) -> bool {
    load(dir, options).expect("it loads").recall("tiny").as_ref() == Some(profile)
}

#[test]
fn a_profile_is_measured_once() {
    let dir = copy_of_the_model("profile");
    let mut device = load(&dir, &options()).expect("it loads");
    assert_eq!(device.recall("tiny"), None);
    let first = profile(&mut device);
    let points: Vec<_> = first.keys[0].points.iter().map(|point| (point.rows, point.count)).collect();
    assert_eq!(points, [(1, 2), (2, 2), (4, 1)]);
    assert!(is_kept(&dir, &options(), &first));
    std::fs::remove_file(dir.join(NAME)).expect("it was kept");
    assert_eq!(device.recall("tiny"), None);
}

#[test]
fn a_profile_of_something_else_is_measured_anew() {
    let dir = copy_of_the_model("profile-other");
    let first = profile(&mut load(&dir, &options()).expect("it loads"));
    // Another dtype has its own; the first one stays.
    let half = LoadOptions { dtype: Dtype::Bf16, ..options() };
    let second = profile(&mut load(&dir, &half).expect("it loads"));
    assert_ne!(second, first);
    assert!(is_kept(&dir, &options(), &first) && is_kept(&dir, &half, &second));
    let before = std::fs::read(dir.join(NAME)).expect("it was kept");
    for damage in ["", "{}", "{\"profiles\": [7]}"] {
        std::fs::write(dir.join(NAME), damage).expect("it is written");
        assert!(!is_kept(&dir, &options(), &first), "{damage:?}");
        let anew = profile(&mut load(&dir, &options()).expect("it loads"));
        assert!(is_kept(&dir, &options(), &anew), "{damage:?}");
    }
    std::fs::write(dir.join(NAME), before).expect("it is written");
    edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
        Some(if name == "conv_out.bias" { tensor + 0.5 } else { tensor })
    });
    assert_eq!(load(&dir, &options()).expect("it loads").recall("tiny"), None, "other weights");
}

#[test]
fn a_profile_goes_elsewhere_when_the_model_lies_where_nothing_can_be_written() {
    let (dir, cache) = (copy_of_the_model("profile-elsewhere"), scratch("profile-cache").join("below"));
    // A folder in the place of the file: even an administrator cannot write there.
    std::fs::create_dir(dir.join(NAME)).expect("a folder");
    let elsewhere = LoadOptions { profiles: Some(cache.clone()), ..options() };
    let first = profile(&mut load(&dir, &elsewhere).expect("it loads"));
    assert!(is_kept(&dir, &elsewhere, &first));
    assert_eq!(std::fs::read_dir(&cache).expect("the cache").count(), 1);
    profile(&mut load(&dir, &options()).expect("it loads"));
    assert!(!is_kept(&dir, &options(), &first), "without a place it is measured each time");
}

#[test]
fn a_model_that_is_not_loaded_has_no_profile() {
    let source = ModelSource { lazy: true, ..ModelSource::new("tiny", copy_of_the_model("profile-lazy")) };
    let mut device = DeviceExecutor::load(&[source], &options()).expect("it is described");
    assert_eq!(device.recall("tiny"), None);
    let failure = device.rehearse("tiny", 1).expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Unsupported);
}
