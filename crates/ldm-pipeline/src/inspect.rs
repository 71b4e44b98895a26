//! What a model's directory holds, without loading it onto a device.

use std::fmt;
use std::path::Path;

use ldm_core::Task;
use ldm_nn::{
    AutoencoderKl, AutoencoderKlConfig, Checkpoint, ClipTextConfig, ClipTextModel, UNet2DCondition, UNet2DConditionConfig,
};
use ldm_nn::{ClipTokenizer, Layout, Weights};
use tch::{Device, Kind};

use crate::families::family_of;
use crate::options::Dtype;

/// One part of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its directory.
    pub name: String,
    /// The network that reads it.
    pub class: String,
    /// Numbers in the network; `None` when the part has none or cannot be read.
    pub parameters: Option<u64>,
    /// The dtype that they are stored in.
    pub dtype: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The family that claims it.
    pub family: Option<String>,
    /// Its parts in the order in which they run.
    pub parts: Vec<Part>,
    /// What it can do when nothing is wrong.
    pub tasks: Vec<Task>,
    /// Everything that is wrong, parts' problems included.
    pub problems: Vec<String>,
}

impl Inspection {
    /// Parameters of all parts.
    pub fn parameters(&self) -> u64 {
        self.parts.iter().filter_map(|part| part.parameters).sum()
    }
}

/// Looks into `dir` and checks every part as loading would.
pub fn inspect(dir: &Path) -> Inspection {
    let family = match family_of(dir) {
        Ok(family) => family,
        Err(error) => return Inspection { family: None, parts: vec![], tasks: vec![], problems: vec![error.to_string()] },
    };
    let parts: Vec<Part> = family.parts.iter().map(|&(name, stem)| part(dir, name, stem)).collect();
    let mut problems: Vec<String> =
        parts.iter().filter_map(|part| part.problem.as_ref().map(|problem| format!("{}: {problem}", part.name))).collect();
    for problem in [crate::scheduler::read(dir).err(), crate::card::Card::read(dir).err()].into_iter().flatten() {
        problems.push(problem.to_string());
    }
    let tasks = if problems.is_empty() { family.tasks.to_vec() } else { vec![] };
    Inspection { family: Some(family.name.to_owned()), parts, tasks, problems }
}

struct Facts {
    class: &'static str,
    parameters: Option<u64>,
    dtype: Option<String>,
}

fn part(dir: &Path, name: &str, stem: Option<&str>) -> Part {
    let files = std::fs::read_dir(dir.join(name)).map(|entries| entries.flatten().filter_map(|entry| entry.metadata().ok()));
    let bytes = files.map(|files| files.map(|file| file.len()).sum()).unwrap_or(0);
    let (facts, problem) = match facts(dir, name, stem) {
        Ok(facts) => (facts, None),
        Err(error) => (Facts { class: "", parameters: None, dtype: None }, Some(error.to_string())),
    };
    Part {
        name: name.to_owned(),
        class: facts.class.to_owned(),
        parameters: facts.parameters,
        dtype: facts.dtype,
        bytes,
        problem,
    }
}

fn facts(dir: &Path, name: &str, stem: Option<&str>) -> Result<Facts, Box<dyn std::error::Error>> {
    let part = dir.join(name);
    let config = part.join("config.json");
    let Some(stem) = stem else {
        let positions = ClipTextConfig::read(&dir.join("text_encoder/config.json"))?.max_position_embeddings;
        ClipTokenizer::read(&part, positions as usize)?;
        return Ok(Facts { class: "CLIPTokenizer", parameters: None, dtype: None });
    };
    let checkpoint = Checkpoint::open(&part, stem)?;
    let kind = checkpoint.stored_kind().unwrap_or(Kind::Float);
    let mapped = |rename: fn(&str) -> Option<String>| {
        // In the stored dtype and layout nothing is copied, so even a large checkpoint is looked at in milliseconds.
        Weights::from_checkpoint(checkpoint.rename(rename), kind, Device::Cpu, Layout::Contiguous)
    };
    let (class, weights) = match name {
        "text_encoder" => {
            let weights = mapped(ClipTextModel::canonical_name);
            ClipTextModel::new(&weights, &ClipTextConfig::read(&config)?);
            ("CLIPTextModel", weights)
        }
        "unet" => {
            let weights = mapped(|name| Some(name.to_owned()));
            UNet2DCondition::new(&weights, &UNet2DConditionConfig::read(&config)?);
            ("UNet2DConditionModel", weights)
        }
        _ => {
            let weights = mapped(AutoencoderKl::canonical_name);
            AutoencoderKl::new(&weights, &AutoencoderKlConfig::read(&config)?);
            ("AutoencoderKL", weights)
        }
    };
    let report = weights.finish()?;
    Ok(Facts { class, parameters: Some(report.parameters), dtype: Some(Dtype::name_of(kind).to_owned()) })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "family        {}", self.family.as_deref().unwrap_or("unknown"))?;
        for part in &self.parts {
            let (dtype, megabytes) = (part.dtype.as_deref().unwrap_or("–"), part.bytes as f64 / 1e6);
            let parameters = part.parameters.map_or("–".to_owned(), |count| count.to_string());
            writeln!(f, "{:<14}{:<22} {parameters:>13} parameters  {dtype:<5} {megabytes:>9.1} MB", part.name, part.class)?;
        }
        writeln!(f, "parameters    {}", self.parameters())?;
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.name()).collect();
        writeln!(f, "tasks         {}", if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") })?;
        for problem in &self.problems {
            writeln!(f, "problem       {problem}")?;
        }
        Ok(())
    }
}
