//! Checkpoints of a training: `checkpoint.safetensors` beside `checkpoint.json`, replaced atomically.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ldm_nn::Checkpoint;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::optimizer::Optimizer;

#[derive(Deserialize, Serialize)]
struct Cursor {
    /// Steps done.
    step: u64,
    /// The configuration, so that a resumed training is the same one.
    run: serde_json::Value,
    /// The file that holds the state.
    file: String,
}

/// Writes the state after `step` steps.
pub(crate) fn save(out: &Path, step: u64, run: &impl Serialize, optimizer: &Optimizer) -> Result<()> {
    let file = format!("checkpoint-{step}.safetensors");
    let state = optimizer.state();
    ldm_nn::weights::save(state.iter().map(|(name, tensor)| (*name, tensor)), Kind::Float, &out.join(&file))?;
    let cursor = Cursor { step, run: serde_json::to_value(run)?, file: file.clone() };
    let partial = out.join("checkpoint.json.partial");
    std::fs::write(&partial, serde_json::to_vec_pretty(&cursor)?)?;
    std::fs::rename(partial, out.join("checkpoint.json"))?;
    for entry in std::fs::read_dir(out)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("checkpoint-") && name.ends_with(".safetensors") && name != file {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Resumes from `out` if there is a checkpoint: steps done.
pub(crate) fn resume(out: &Path, run: &impl Serialize, optimizer: &mut Optimizer) -> Result<u64> {
    let path = out.join("checkpoint.json");
    if !path.is_file() {
        return Ok(0);
    }
    let cursor: Cursor = serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
    ensure!(
        cursor.run == serde_json::to_value(run)?,
        "{} is of another configuration: change `out`, or move it away to start anew",
        path.display()
    );
    let checkpoint = Checkpoint::open_files([out.join(&cursor.file)])?;
    let tensor = |name: &str| -> Result<Tensor> {
        ensure!(checkpoint.shape(name).is_some(), "{} lacks {name}", cursor.file);
        Ok(checkpoint.tensor(name))
    };
    optimizer.restore(&tensor)?;
    Ok(cursor.step)
}
