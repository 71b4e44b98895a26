//! The reference tensors, and the small models that they were computed with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, Checkpoint, ClipTextConfig, ClipTextModel, Layout, UNet2DCondition,
    UNet2DConditionConfig, Weights,
};
use tch::{Device, Kind, Tensor};

/// Both model directories: as diffusers saves Stable Diffusion 1.5, and with every less usual setting and file format.
pub(crate) const MODELS: [&str; 2] = ["tiny-sd", "variant"];
pub(crate) const LAYOUTS: [Layout; 2] = [Layout::Contiguous, Layout::ChannelsLast];
pub(crate) const STEM: &str = "diffusion_pytorch_model";

/// `tests/goldens` of the workspace.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

/// A reference tensor.
pub(crate) fn tensor(name: &str) -> Tensor {
    static FILE: OnceLock<Checkpoint> = OnceLock::new();
    let file = FILE.get_or_init(|| Checkpoint::open_files([directory().join("nn.safetensors")]).expect("the goldens"));
    assert!(file.shape(name).is_some(), "no golden {name}");
    file.tensor(name)
}

pub(crate) fn has(name: &str) -> bool {
    Checkpoint::open_files([directory().join("nn.safetensors")]).expect("the goldens").shape(name).is_some()
}

/// A directory of one test's own, empty.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nn-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

pub(crate) fn unet(model: &str, kind: Kind, layout: Layout) -> UNet2DCondition {
    let dir = directory().join(model).join("unet");
    let config = UNet2DConditionConfig::read(&dir.join("config.json")).expect("the configuration");
    let weights = Weights::from_checkpoint(Checkpoint::open(&dir, STEM).expect("the file"), kind, Device::Cpu, layout);
    let unet = UNet2DCondition::new(&weights, &config);
    weights.finish().expect("the weights fit");
    unet
}

pub(crate) fn vae(model: &str, kind: Kind, layout: Layout) -> AutoencoderKl {
    let dir = directory().join(model).join("vae");
    let config = AutoencoderKlConfig::read(&dir.join("config.json")).expect("the configuration");
    let checkpoint = Checkpoint::open(&dir, STEM).expect("the file").rename(AutoencoderKl::canonical_name);
    let weights = Weights::from_checkpoint(checkpoint, kind, Device::Cpu, layout);
    let vae = AutoencoderKl::new(&weights, &config);
    weights.finish().expect("the weights fit");
    vae
}

pub(crate) fn clip(model: &str, kind: Kind) -> ClipTextModel {
    let dir = directory().join(model).join("text_encoder");
    let config = ClipTextConfig::read(&dir.join("config.json")).expect("the configuration");
    let checkpoint = Checkpoint::open(&dir, "model").expect("the file").rename(ClipTextModel::canonical_name);
    let weights = Weights::from_checkpoint(checkpoint, kind, Device::Cpu, Layout::Contiguous);
    let clip = ClipTextModel::new(&weights, &config);
    weights.finish().expect("the weights fit");
    clip
}

/// The largest difference, relative to the largest reference value.
pub(crate) fn error(found: &Tensor, reference: &Tensor) -> f64 {
    assert_eq!(found.size(), reference.size());
    let (found, reference) = (found.to_kind(Kind::Double), reference.to_kind(Kind::Double));
    let error = ((found - &reference).abs().max() / reference.abs().max()).double_value(&[]);
    assert!(error.is_finite());
    error
}

/// Panics when the tensors differ by more than `tolerance` of the largest reference value.
pub(crate) fn close(what: &str, found: &Tensor, reference: &Tensor, tolerance: f64) {
    let error = error(found, reference);
    println!("{what}: {error:.1e}");
    assert!(error <= tolerance, "{what}: {error:.2e} of the largest value, more than {tolerance:.0e}");
}
