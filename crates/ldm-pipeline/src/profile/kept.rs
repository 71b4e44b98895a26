//! Profiles on disk: JSON, a few per file, newest first, each with the fingerprint of what it was measured on.

use std::path::{Path, PathBuf};

use ldm_core::Model;
use ldm_engine::BatchKey;
use ldm_engine::cost::{KeyProfile, PointProfile, Profile};
use serde::{Deserialize, Serialize};

use crate::options::ModelSource;

/// The file's name in a model's directory.
const NAME: &str = "latentd-profile.json";
/// Profiles of one file: devices and dtypes that a model is served on, and some past.
const MOST: usize = 8;
/// A file longer than this is none of ours.
const LONGEST: u64 = 1 << 20;

/// What a profile holds for: any other machine, program or weights is measured anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    version: String,
    weights: String,
    dtype: String,
    mode: String,
    device: String,
    device_name: String,
    cpu: String,
    cores: usize,
    threads: i32,
}

/// The first value of a key in a file of `key : value` lines, such as those of /proc.
fn line(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| Some(line.split_once(':').filter(|(name, _)| name.trim() == key)?.1.trim().to_owned()))
}

/// What the driver calls the GPUs of this machine.
fn gpus() -> Option<String> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let names = folders.iter().filter_map(|folder| line(&folder.join("information").to_string_lossy(), "Model"));
    Some(names.collect::<Vec<_>>().join(", "))
}

/// The fingerprint of this thread's device with a model.
pub(super) fn fingerprint(about: &Model) -> Fingerprint {
    let on_gpu = about.device.starts_with("cuda");
    Fingerprint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        weights: about.weights.clone(),
        dtype: about.dtype.clone(),
        mode: about.mode.to_string(),
        device: about.device.clone(),
        device_name: if on_gpu { gpus().unwrap_or_default() } else { String::new() },
        cpu: line("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads: tch::get_num_threads(),
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    profiles: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    fingerprint: Fingerprint,
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    model: String,
    latent: [u32; 3],
    cross: [u32; 2],
    memory_rows: Option<u32>,
    prepare: Point,
    decode: Point,
    points: Vec<Point>,
}

#[derive(Serialize, Deserialize)]
struct Point {
    rows: u32,
    mean: f64,
    deviation: f64,
    count: u64,
}

impl From<PointProfile> for Point {
    fn from(point: PointProfile) -> Self {
        let PointProfile { rows, mean, deviation, count } = point;
        Self { rows, mean, deviation, count }
    }
}

impl From<Point> for PointProfile {
    fn from(point: Point) -> Self {
        let Point { rows, mean, deviation, count } = point;
        Self { rows, mean, deviation, count }
    }
}

impl Point {
    fn is_sound(&self) -> bool {
        let times = [self.mean, self.deviation];
        times.iter().all(|seconds| seconds.is_finite() && *seconds >= 0.)
    }
}

impl From<&KeyProfile> for Key {
    fn from(key: &KeyProfile) -> Self {
        let BatchKey { model, latent, cross } = key.key.clone();
        let points = key.points.iter().copied().map(Point::from).collect();
        let (prepare, decode) = (key.prepare.into(), key.decode.into());
        Self { model, latent, cross, memory_rows: key.memory_rows, prepare, decode, points }
    }
}

impl From<Key> for KeyProfile {
    fn from(key: Key) -> Self {
        let Key { model, latent, cross, memory_rows, prepare, decode, points } = key;
        let points = points.into_iter().map(PointProfile::from).collect();
        let key = BatchKey { model, latent, cross };
        Self { key, points, prepare: prepare.into(), decode: decode.into(), memory_rows }
    }
}

impl Key {
    fn is_sound(&self) -> bool {
        let ascending = self.points.windows(2).all(|pair| pair[0].rows < pair[1].rows);
        ascending && self.points.iter().chain([&self.prepare, &self.decode]).all(Point::is_sound)
    }
}

/// Where a model's profiles are looked for, in this order.
pub(super) fn places(source: &ModelSource, cache: Option<&Path>) -> Vec<PathBuf> {
    let beside = if source.dir.is_dir() {
        source.dir.join(NAME)
    } else {
        let file = source.dir.file_name().unwrap_or_default().to_string_lossy();
        source.dir.with_file_name(format!("{file}.{NAME}"))
    };
    // In a folder of many models each is called after where it lies.
    let path = source.dir.canonicalize().unwrap_or_else(|_| source.dir.clone());
    let flat: String = path.to_string_lossy().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let cached = cache.map(|cache| cache.join(format!("{}.{NAME}", flat.trim_start_matches('-'))));
    std::iter::once(beside).chain(cached).collect()
}

/// The file, if it is there and sound.
fn file(path: &Path) -> Option<File> {
    if std::fs::metadata(path).ok()?.len() > LONGEST {
        return None;
    }
    let file: File = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    file.profiles.iter().flat_map(|kept| &kept.keys).all(Key::is_sound).then_some(file)
}

/// The profile of that fingerprint; a file that is not there, damaged, or of other machines alone has none.
pub(super) fn read(path: &Path, fingerprint: &Fingerprint) -> Option<Profile> {
    let found = file(path)?.profiles.into_iter().find(|kept| kept.fingerprint == *fingerprint)?;
    Some(Profile { keys: found.keys.into_iter().map(KeyProfile::from).collect() })
}

/// Keeps the profile in front of the others; `false` where that cannot be.
pub(super) fn write(path: &Path, fingerprint: &Fingerprint, profile: &Profile) -> bool {
    let mut profiles = file(path).map_or(Vec::new(), |file| file.profiles);
    profiles.retain(|kept| kept.fingerprint != *fingerprint);
    profiles.insert(0, Kept { fingerprint: fingerprint.clone(), keys: profile.keys.iter().map(Key::from).collect() });
    profiles.truncate(MOST);
    let Ok(text) = serde_json::to_vec_pretty(&File { profiles }) else { return false };
    // Nobody ever sees half of it.
    let new = path.with_extension(format!("json.{}", std::process::id()));
    let folder = path.parent().is_none_or(|folder| std::fs::create_dir_all(folder).is_ok());
    let written = folder && std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).is_ok();
    if !written {
        // There may be nothing to remove.
        let _ = std::fs::remove_file(&new);
    }
    written
}
