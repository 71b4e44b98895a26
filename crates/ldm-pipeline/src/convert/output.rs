//! Files of a conversion: tensors one after another, and what lies beside them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ldm_formats::Dtype;
use ldm_formats::convert::{Cast, Progress, cast};
use ldm_formats::header::HEADER_LIMIT;
use ldm_formats::writer::{Plan, Planned, partial_name, plan};
use ldm_nn::formats::inverse;
use ldm_nn::{Checkpoint, Mapped};
use tch::{Kind, Tensor};

use super::{ConvertError, io};

/// A tensor to write: its name and shape there, and what it is made of here.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) checkpoint: Checkpoint,
    pub(super) made: Mapped,
}

/// Everything that a conversion writes, by path in its folder.
#[derive(Default)]
pub(super) struct Output {
    pub(super) texts: Vec<(String, String)>,
    /// From there, to here.
    pub(super) copies: Vec<(PathBuf, String)>,
    pub(super) weights: Vec<(String, Vec<Item>)>,
}

impl Output {
    pub(super) fn json(&mut self, path: impl Into<String>, value: &serde_json::Value) {
        self.texts.push((path.into(), format!("{value:#}\n")));
    }

    /// Writes everything under `folder`, the tensors last; tensors and bytes in all.
    pub(super) fn write(
        &self,
        folder: &Path,
        to: Option<Cast>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(usize, u64), ConvertError> {
        for (path, text) in &self.texts {
            let path = made_room(folder, path)?;
            std::fs::write(&path, text).map_err(|error| failed(&path, text.len() as u64, error))?;
        }
        for (from, path) in &self.copies {
            let path = made_room(folder, path)?;
            std::fs::copy(from, &path).map_err(|error| failed(&path, 0, error))?;
        }
        let plans: Result<Vec<Plan>, ConvertError> = self.weights.iter().map(|(_, items)| planned(items, to)).collect();
        let plans = plans?;
        let bytes: u64 = plans.iter().map(|plan| plan.bytes).sum();
        let tensors: usize = self.weights.iter().map(|(_, items)| items.len()).sum();
        let mut done = (0, 0);
        for ((path, items), plan) in self.weights.iter().zip(&plans) {
            let path = made_room(folder, path)?;
            let file = File::create_new(&path).map_err(io(&path))?;
            let mut told = |name: &str, at: (usize, u64)| {
                let (tensors_before, bytes_before) = done;
                progress(Progress {
                    name,
                    tensors: tensors_before + at.0,
                    tensors_total: tensors,
                    bytes: bytes_before + at.1,
                    bytes_total: bytes,
                });
            };
            write_tensors(&file, &path, items, plan, to, &mut told)?;
            file.sync_all().map_err(|error| failed(&path, bytes, error))?;
            done = (done.0 + items.len(), done.1 + plan.bytes);
        }
        Ok((tensors, bytes))
    }
}

fn made_room(folder: &Path, path: &str) -> Result<PathBuf, ConvertError> {
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(io(parent))?;
    Ok(path)
}

/// What an error of writing means.
pub(super) fn failed(path: &Path, bytes: u64, source: std::io::Error) -> ConvertError {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::StorageFull => ConvertError::Full { path, bytes },
        _ => ConvertError::Io { path, source },
    }
}

/// The words of both worlds for a dtype.
fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::Bool,
        _ => return None,
    })
}

/// The dtype of an item in its source.
fn stored(item: &Item) -> Option<Dtype> {
    let first = inverse::parts(&item.made).first()?;
    dtype_of(item.checkpoint.kind(first)?)
}

fn planned(items: &[Item], to: Option<Cast>) -> Result<Plan, ConvertError> {
    let planned = |item: &Item| {
        let dtype = stored(item).ok_or_else(|| unfit(item))?;
        let dtype = to.filter(|_| dtype.is_float()).map_or(dtype, Cast::dtype);
        Ok(Planned { name: item.name.clone(), dtype, shape: item.shape.iter().map(|&side| side as u64).collect() })
    };
    let planned: Result<Vec<Planned>, ConvertError> = items.iter().map(planned).collect();
    let plan = plan(&BTreeMap::new(), &planned?);
    if plan.start.len() as u64 - 8 > HEADER_LIMIT {
        return Err(ldm_formats::convert::ConvertError::Header { length: plan.start.len() - 8 }.into());
    }
    Ok(plan)
}

fn unfit(item: &Item) -> ConvertError {
    ConvertError::Changed(format!("`{}` cannot be made of {:?}", item.name, inverse::parts(&item.made)))
}

/// The data of a file: one tensor is in memory at a time.
fn write_tensors(
    file: &File,
    path: &Path,
    items: &[Item],
    plan: &Plan,
    to: Option<Cast>,
    progress: &mut dyn FnMut(&str, (usize, u64)),
) -> Result<(), ConvertError> {
    let failed = |error| failed(path, plan.bytes, error);
    let mut sink = BufWriter::with_capacity(1 << 20, file);
    sink.write_all(&plan.start).map_err(failed)?;
    let (mut bytes, mut casted) = (Vec::new(), Vec::new());
    for (done, &(index, end)) in plan.order.iter().enumerate() {
        let item = &items[index];
        let tensor = inverse::original(&item.checkpoint, &item.made).ok_or_else(|| unfit(item))?;
        let from = stored(item).ok_or_else(|| unfit(item))?;
        if tensor.numel() as i64 != item.shape.iter().product::<i64>() || dtype_of(tensor.kind()) != Some(from) {
            return Err(unfit(item));
        }
        bytes_of(&tensor, &mut bytes);
        match to.filter(|_| from.is_float()).map(Cast::dtype).filter(|dtype| *dtype != from) {
            None => sink.write_all(&bytes),
            Some(dtype) => {
                casted.clear();
                let name = item.name.clone();
                cast(&bytes, from, dtype, &mut casted).map_err(|value| ConvertError::Range { name, value, dtype })?;
                sink.write_all(&casted)
            }
        }
        .map_err(failed)?;
        progress(&item.name, (done + 1, end));
    }
    sink.flush().map_err(failed)
}

fn bytes_of(tensor: &Tensor, bytes: &mut Vec<u8>) {
    let tensor = tensor.contiguous();
    bytes.resize(tensor.numel() * tensor.kind().elt_size_in_bytes(), 0);
    tensor.copy_data_u8(bytes, tensor.numel());
}

/// `to` with more behind its name.
pub(super) fn beside(to: &Path, more: &str) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(more);
    to.with_file_name(name)
}

/// A folder in the making; removed when it is dropped before its end.
pub(super) struct Staging {
    path: PathBuf,
}

impl Staging {
    /// A new folder beside `to`, which must not be there unless `force` may replace it: a model's folder, and nothing else.
    pub(super) fn create(to: &Path, force: bool) -> Result<Self, ConvertError> {
        let is_model = ["model_index.json", "config.json"].iter().any(|name| to.join(name).is_file());
        let hint = match (force, is_model) {
            _ if !to.exists() => None,
            (false, true) => Some(": --force replaces it"),
            (true, true) => None,
            (_, false) => Some(", and is no directory of a model: it is not replaced"),
        };
        if let Some(hint) = hint {
            return Err(ConvertError::Exists { path: to.to_owned(), hint });
        }
        let path = partial_name(to);
        std::fs::create_dir(&path).map_err(io(&path))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name.
    pub(super) fn finish(self, to: &Path, force: bool) -> Result<(), ConvertError> {
        let old = beside(to, &format!(".{}.old", std::process::id()));
        let replaces = force && to.exists();
        if replaces {
            std::fs::rename(to, &old).map_err(io(to))?;
        }
        // On every system that is served, a folder does not replace one that holds anything.
        if let Err(error) = std::fs::rename(&self.path, to) {
            if replaces {
                let _ = std::fs::rename(&old, to);
            }
            return Err(io(to)(error));
        }
        if replaces {
            std::fs::remove_dir_all(&old).map_err(io(&old))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already after a rename; nothing else can be done here.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_bytes_that_are_needed() {
        let folder = std::env::temp_dir().join(format!("ldm-pipeline-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("one.safetensors");
        Tensor::write_safetensors(&[("x", Tensor::ones([3, 5], (Kind::Float, tch::Device::Cpu)))], &file).expect("it is written");
        let checkpoint = Checkpoint::open_files([file]).expect("a checkpoint");
        let items = [Item { name: "y".into(), shape: vec![15], checkpoint, made: Mapped::As("x".into()) }];
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a disk that is full");
        let plan = planned(&items, None).expect("a plan");
        let told = write_tensors(&full, Path::new("out"), &items, &plan, None, &mut |_, _| {});
        std::fs::remove_dir_all(&folder).expect("it goes");
        assert_eq!(told.expect_err("no room").to_string(), "out: the disk is full; the tensors need 60 bytes");
    }
}
