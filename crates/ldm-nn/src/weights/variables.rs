//! Trained parameters: named float32 variables with gradients, and their way to and from safetensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};

use super::{Checkpoint, Init, LoadError, Report};

/// Named variables in the order in which the modules made them.
#[derive(Debug, Default)]
pub struct Variables {
    named: Vec<(String, Tensor)>,
}

impl Variables {
    pub(super) fn add(&mut self, name: String, shape: &[i64], init: Init, device: Device) -> Tensor {
        let options = (Kind::Float, device);
        let tensor = match init {
            Init::Constant(value) => Tensor::full(shape, value, options),
            Init::FanIn(fan_in) => (Tensor::rand(shape, options) * 2. - 1.) / (fan_in as f64).sqrt(),
            Init::Normal(std) => Tensor::randn(shape, options) * std,
        };
        let tensor = tensor.set_requires_grad(true);
        self.named.push((name, tensor.shallow_clone()));
        tensor
    }

    /// Names with their variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.named.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Takes every value from a checkpoint; the strict report when it does not fit.
    pub fn load(&self, checkpoint: &Checkpoint) -> Result<(), LoadError> {
        let mut report = Report::default();
        for (name, variable) in self.iter() {
            report.parameters += variable.numel() as u64;
            report.tensors += 1;
            match checkpoint.shape(name) {
                None => report.missing.push(name.to_owned()),
                Some(found) if found != variable.size() => {
                    report.wrong_shape.push((name.to_owned(), variable.size(), found));
                }
                Some(_) => tch::no_grad(|| variable.shallow_clone().copy_(&checkpoint.tensor(name))),
            }
        }
        let known: BTreeSet<&str> = self.iter().map(|(name, _)| name).collect();
        report.unexpected = checkpoint.names().filter(|name| !known.contains(name)).map(str::to_owned).collect();
        if report.is_clean() { Ok(()) } else { Err(LoadError(report)) }
    }

    /// Takes from a checkpoint what has the name that `name` gives for a variable's, and its shape; how many variables that were.
    /// For starting a network from a smaller one.
    pub fn load_matching(&self, checkpoint: &Checkpoint, name: impl Fn(&str) -> String) -> usize {
        let fits = |variable: &Tensor, name: &str| checkpoint.shape(name) == Some(variable.size());
        self.iter()
            .filter(|(own, variable)| {
                let stored = name(own);
                let fits = fits(variable, &stored);
                if fits {
                    tch::no_grad(|| variable.shallow_clone().copy_(&checkpoint.tensor(&stored)));
                }
                fits
            })
            .count()
    }

    /// Numbers in all.
    pub fn parameters(&self) -> usize {
        self.named.iter().map(|(_, tensor)| tensor.numel()).sum()
    }

    /// Adds those of another module.
    pub fn extend(&mut self, other: Variables) {
        self.named.extend(other.named);
    }
}

/// Writes named tensors as safetensors, each as `kind` (float32 or float16), atomically.
pub fn save<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>, kind: Kind, path: &Path) -> Result<(), SaveError> {
    let held: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|&n| n as usize).collect();
            (name.to_owned(), shape, bytes_of(&tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous()))
        })
        .collect();
    let dtype = match kind {
        Kind::Half => safetensors::Dtype::F16,
        Kind::BFloat16 => safetensors::Dtype::BF16,
        _ => safetensors::Dtype::F32,
    };
    let mut views = BTreeMap::new();
    for (name, shape, bytes) in &held {
        views.insert(name.clone(), TensorView::new(dtype, shape.clone(), bytes)?);
    }
    let partial = path.with_extension("partial");
    safetensors::serialize_to_file(&views, Some(format_metadata()), &partial)?;
    std::fs::rename(&partial, path)?;
    Ok(())
}

/// What diffusers and transformers look for in a file's metadata.
fn format_metadata() -> std::collections::HashMap<String, String> {
    [("format".to_owned(), "pt".to_owned())].into()
}

/// Parameters that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The format refused them.
    #[error(transparent)]
    Format(#[from] safetensors::SafeTensorError),
    /// The disk did.
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let size = tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut bytes = vec![0u8; size];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}
