//! What a model's directory holds, without loading it onto a device.

use std::fmt;
use std::path::Path;

use ldm_core::Task;
use ldm_nn::Layout;
use tch::{Device, Kind};

use crate::blueprint::{Blueprint, Builder, Built, Depth, Site};
use crate::families;
use crate::loras;
use crate::options::{Dtype, ModelSource};

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
    /// What the denoiser predicts: `epsilon`, `v_prediction` or `sample`.
    pub prediction: Option<&'static str>,
    /// Averaged weights of the denoiser are taken.
    pub ema: bool,
    /// How the family was found.
    pub evidence: Vec<String>,
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
    inspect_source(&ModelSource::new("", dir))
}

/// The same with what else is said of a source.
pub fn inspect_source(source: &ModelSource) -> Inspection {
    let dir = source.dir.as_path();
    let blueprint = match families::read(source) {
        Ok(blueprint) => blueprint,
        Err(errors) => {
            let problems = errors.iter().map(ToString::to_string).collect();
            return Inspection {
                family: families::family(dir),
                parts: vec![],
                prediction: None,
                ema: false,
                evidence: vec![],
                tasks: vec![],
                problems,
            };
        }
    };
    // In the stored dtype and layout nothing is copied, so even a large checkpoint is looked at in milliseconds.
    let loras = loras::read(source, &blueprint, Kind::Float, Device::Cpu).err().map(|error| error.to_string());
    let Blueprint { family, tasks, unet, stage, preview, conditioner, concat, scheduler, ema, evidence, .. } = blueprint;
    let prediction = Some(scheduler.config.prediction.name());
    let mut builder = Builder::new(Site { depth: Depth::Survey, kind: None, device: Device::Cpu, layout: Layout::Contiguous });
    let embeddings = builder.conditioner(conditioner, 1, &source.embeddings).err().map(|error| error.to_string());
    builder.concat(concat);
    builder.unet(unet);
    builder.stage(stage);
    if let Some(preview) = preview {
        builder.preview(preview);
    }
    let parts: Vec<Part> = builder.built.into_iter().map(|built| part(dir, built)).collect();
    let wrong = |part: &Part| part.problem.as_ref().map(|problem| format!("{}: {problem}", part.name));
    let problems: Vec<String> = parts.iter().filter_map(wrong).chain(embeddings).chain(loras).collect();
    let tasks = if problems.is_empty() { tasks } else { vec![] };
    Inspection { family: Some(family), parts, prediction, ema, evidence, tasks, problems }
}

fn part(dir: &Path, built: Built) -> Part {
    let files =
        std::fs::read_dir(dir.join(built.name)).map(|entries| entries.flatten().filter_map(|entry| entry.metadata().ok()));
    let bytes = match files {
        Ok(files) => files.map(|file| file.len()).sum(),
        Err(_) => built.bytes,
    };
    let (parameters, problem) = match built.report {
        Ok(report) => (Some(report.parameters), None),
        Err(problem) => (None, Some(problem)),
    };
    Part {
        name: built.name.to_owned(),
        class: built.class.to_owned(),
        parameters,
        dtype: built.stored.map(|kind| Dtype::name_of(kind).to_owned()),
        bytes,
        problem,
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "family        {}", self.family.as_deref().unwrap_or("unknown"))?;
        for part in &self.parts {
            let (dtype, megabytes) = (part.dtype.as_deref().unwrap_or("–"), part.bytes as f64 / 1e6);
            let parameters = part.parameters.map_or("–".to_owned(), |count| count.to_string());
            writeln!(f, "{:<22}{:<28} {parameters:>13} parameters  {dtype:<5} {megabytes:>9.1} MB", part.name, part.class)?;
        }
        writeln!(f, "parameters    {}", self.parameters())?;
        if let Some(prediction) = self.prediction {
            writeln!(f, "prediction    {prediction}")?;
            writeln!(f, "weights       {}", if self.ema { "averaged (EMA)" } else { "as stored" })?;
        }
        for evidence in &self.evidence {
            writeln!(f, "evidence      {evidence}")?;
        }
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.name()).collect();
        writeln!(f, "tasks         {}", if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") })?;
        for problem in &self.problems {
            writeln!(f, "problem       {problem}")?;
        }
        Ok(())
    }
}
