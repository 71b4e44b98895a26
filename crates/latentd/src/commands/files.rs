//! Files that commands read and write: pictures, maps, boxes, embeddings, tensors.

use std::path::Path;

use anyhow::Result;
use ldm_core::task::Bbox;
use ldm_core::{Plane, Raster};
use ldm_http::{HttpLimits, read_picture, read_plane, read_with_alpha};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use crate::exit::Usage;

/// Something that is wrong with the file of a flag.
fn wrong(flag: &str, path: &Path, error: impl std::fmt::Display) -> Usage {
    Usage(format!("--{flag}: {}: {error}", path.display()))
}

fn bytes(flag: &str, path: &Path) -> Result<Vec<u8>> {
    Ok(std::fs::read(path).map_err(|error| wrong(flag, path, error))?)
}

/// A PNG, JPEG or WebP picture.
pub(super) fn picture(flag: &str, path: &Path) -> Result<Raster> {
    Ok(read_picture(&bytes(flag, path)?, HttpLimits::default().pixels).map_err(|error| wrong(flag, path, error))?)
}

/// One channel of a picture: grey levels as they are, colours by their brightness.
pub(super) fn plane(flag: &str, path: &Path) -> Result<Plane> {
    Ok(read_plane(&bytes(flag, path)?, HttpLimits::default().pixels).map_err(|error| wrong(flag, path, error))?)
}

/// The same, and a mask of what is transparent in it, if anything is.
pub(super) fn transparent(flag: &str, path: &Path) -> Result<(Raster, Option<Plane>)> {
    let read = read_with_alpha(&bytes(flag, path)?, HttpLimits::default().pixels).map_err(|error| wrong(flag, path, error))?;
    Ok(read.with_mask())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutFile {
    boxes: Vec<BoxEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoxEntry {
    label: i64,
    bbox: [f64; 4],
    #[serde(default)]
    is_occluded: bool,
    #[serde(default)]
    is_group_of: bool,
    #[serde(default)]
    is_depiction: bool,
    #[serde(default)]
    is_inside: bool,
}

fn json<T: DeserializeOwned>(flag: &str, path: &Path) -> Result<T> {
    Ok(serde_json::from_slice(&bytes(flag, path)?).map_err(|error| wrong(flag, path, error))?)
}

/// `{"boxes": [{"label": 17, "bbox": [x, y, width, height], …}]}`.
pub(super) fn boxes(flag: &str, path: &Path) -> Result<Vec<Bbox>> {
    let layout: LayoutFile = json(flag, path)?;
    let boxes = layout.boxes.into_iter().map(|entry| {
        let BoxEntry { label, bbox, is_occluded, is_group_of, is_depiction, is_inside } = entry;
        Bbox { label, bbox, is_occluded, is_group_of, is_depiction, is_inside }
    });
    Ok(boxes.collect())
}

/// `[[number, …], …]`.
pub(super) fn embeddings(flag: &str, path: &Path) -> Result<Vec<Vec<f32>>> {
    json(flag, path)
}

/// Whether a tensor can be written under that name: it ends in .npy or .safetensors.
pub(super) fn check_tensor_name(flag: &str, path: &Path) -> Result<()> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy" | "safetensors") => Ok(()),
        _ => Err(wrong(flag, path, "the name must end in .npy or .safetensors").into()),
    }
}

/// Writes a float32 tensor as .npy or .safetensors.
pub(super) fn write_tensor(path: &Path, name: &str, tensor: &Tensor) -> Result<(), tch::TchError> {
    let tensor = tensor.to_device(tch::Device::Cpu).to_kind(tch::Kind::Float).contiguous();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Tensor::write_safetensors(&[(name, tensor)], path),
        _ => tensor.write_npy(path),
    }
}
