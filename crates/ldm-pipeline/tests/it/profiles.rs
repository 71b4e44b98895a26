//! Profiles: measured once, kept beside the model or elsewhere, measured again when what they hold for is other.

use std::path::Path;
use std::time::{Duration, Instant};

use ldm_core::FailureKind;
use ldm_engine::cost::Profile;
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, ModelSource, PROFILE_BUDGET};

use crate::models::edit_weights;
use crate::rig::{copy_of_the_model, load, options, scratch};

const NAME: &str = "latentd-profile.json";

fn profile(device: &mut DeviceExecutor, cache: Option<&Path>) -> Profile {
    device.profile("tiny", Duration::from_millis(300), 8, cache).expect("a profile")
}

#[test]
fn a_profile_is_measured_once() {
    let dir = copy_of_the_model("profile");
    let mut device = load(&dir, &options()).expect("it loads");
    let began = Instant::now();
    let first = profile(&mut device, None);
    assert!(began.elapsed() < PROFILE_BUDGET * 10, "{:?}", began.elapsed());
    let [key] = &first.keys[..] else { panic!("one key: {first:?}") };
    assert_eq!((key.key.model.as_str(), key.key.latent, key.key.cross), ("tiny", [4, 16, 16], [77, 32]));
    let rows: Vec<u32> = key.points.iter().map(|point| point.rows).collect();
    assert!(!rows.is_empty() && [1, 2, 4, 8].starts_with(&rows), "{rows:?}");
    assert!(key.points.iter().chain([&key.prepare]).all(|point| point.mean > 0. && point.count > 0), "{key:?}");
    println!("{:?}", key.points);
    // Numbers that were measured anew would not be the same to the last bit.
    let again = profile(&mut load(&dir, &options()).expect("it loads"), None);
    assert_eq!(again, first);
    std::fs::remove_file(dir.join(NAME)).expect("it was kept");
    assert_ne!(profile(&mut device, None), first);
}

#[test]
fn a_profile_of_something_else_is_measured_anew() {
    let dir = copy_of_the_model("profile-other");
    let mut device = load(&dir, &options()).expect("it loads");
    let first = profile(&mut device, None);
    // Another dtype has its own; the first one stays.
    let half = profile(&mut load(&dir, &LoadOptions { dtype: Dtype::Bf16, ..options() }).expect("it loads"), None);
    assert_ne!(half, first);
    assert_eq!(profile(&mut device, None), first);
    edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
        Some(if name == "conv_out.bias" { tensor + 0.5 } else { tensor })
    });
    assert_ne!(profile(&mut load(&dir, &options()).expect("it loads"), None), first);
    for damage in ["", "{}", "{\"profiles\": [7]}"] {
        std::fs::write(dir.join(NAME), damage).expect("it is written");
        let found = profile(&mut device, None);
        assert_ne!(found, first, "{damage:?}");
        assert_eq!(profile(&mut device, None), found, "{damage:?}");
    }
}

#[test]
fn a_profile_goes_elsewhere_when_the_model_lies_where_nothing_can_be_written() {
    let (dir, cache) = (copy_of_the_model("profile-elsewhere"), scratch("profile-cache").join("below"));
    // A folder in the place of the file: even an administrator cannot write there.
    std::fs::create_dir(dir.join(NAME)).expect("a folder");
    let mut device = load(&dir, &options()).expect("it loads");
    let first = profile(&mut device, Some(&cache));
    assert_eq!(profile(&mut device, Some(&cache)), first);
    assert_eq!(std::fs::read_dir(&cache).expect("the cache").count(), 1);
    assert_ne!(profile(&mut device, None), first, "without a place it is measured each time");
}

#[test]
fn a_model_that_is_not_loaded_has_no_profile() {
    let source = ModelSource { lazy: true, ..ModelSource::new("tiny", copy_of_the_model("profile-lazy")) };
    let mut device = DeviceExecutor::load(&[source], &options()).expect("it is described");
    let failure = device.profile("tiny", PROFILE_BUDGET, 8, None).expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Unsupported);
}
