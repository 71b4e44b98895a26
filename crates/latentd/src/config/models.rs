//! The list of models: `[[models]]` in the file, `id=dir,id2=dir2` elsewhere. A list replaces the whole list below it.

use std::path::PathBuf;

use ldm_pipeline::ModelSource;
use toml::de::{DeArray, DeTable, DeValue};

use super::given::Given;
use super::sources::Problem;
use crate::nearest::nearest;

/// The keys of a `[[models]]` entry, with their comments.
pub(super) const KEYS: [(&str, &str); 4] = [
    ("id", "The name that requests use."),
    (
        "path",
        "A diffusers directory, or a .safetensors file in the original layout; a relative path starts where the service was started.",
    ),
    (
        "preview_decoder",
        "A tiny decoder for previews: TAESD, a .safetensors file or a directory. The model's own first stage without it.",
    ),
    (
        "first_stage",
        "A first stage in place of the model's own: another autoencoder, or TAESD; a .safetensors file or a directory.",
    ),
];

/// The settings of a model in the order of [`KEYS`]; those that are none are not written.
pub(super) fn values(model: &ModelSource) -> [Option<String>; 4] {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    [Some(model.id.clone()), Some(model.dir.display().to_string()), path(&model.preview), path(&model.first_stage)]
}

const ENTRY: &str = "`[[models]]` with `id` and `path`";
const WRITTEN: &str = "ID=DIR, several of them with commas between";

/// Of the file's `[[models]]`; problems name their offset in it.
pub(super) fn from_file(entries: &DeArray<'_>) -> Result<Vec<ModelSource>, Vec<(usize, Problem)>> {
    let (mut models, mut bad) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.get_ref() {
            DeValue::Table(table) => models.extend(from_table(entry.span().start, table, &mut bad)),
            _ => bad.push((entry.span().start, Problem::new(format!("a model must be {ENTRY}")))),
        }
    }
    if bad.is_empty() {
        let start = entries.iter().next().map_or(0, |entry| entry.span().start);
        bad.extend(checked(&models).map(|problem| (start, problem)));
    }
    if bad.is_empty() { Ok(models) } else { Err(bad) }
}

fn from_table(start: usize, table: &DeTable<'_>, bad: &mut Vec<(usize, Problem)>) -> Option<ModelSource> {
    let (mut found, before) = ([None; 4], bad.len());
    for (key, value) in table.iter() {
        let known = KEYS.iter().position(|(known, _)| known == key.get_ref());
        match (known, value.get_ref().as_str()) {
            (Some(index), Some(text)) => found[index] = Some(text),
            (Some(_), None) => {
                let message = format!("`models.{}` must be a text, not {}", key.get_ref(), Given::Toml(value.get_ref()));
                bad.push((value.span().start, Problem::new(message)));
            }
            (None, _) => {
                let full = format!("models.{}", key.get_ref());
                let names = ["models.id", "models.path", "models.preview_decoder", "models.first_stage"];
                bad.push((key.span().start, Problem::unknown(&full, nearest(&full, names))));
            }
        }
    }
    match found {
        [Some(id), Some(path), preview, first_stage] => {
            // An empty text is none, as it is printed.
            let [preview, first_stage] =
                [preview, first_stage].map(|path| path.filter(|path| !path.is_empty()).map(PathBuf::from));
            return Some(ModelSource { preview, first_stage, ..ModelSource::new(id, path) });
        }
        [id, ..] if bad.len() == before => {
            let missing = if id.is_none() { "id" } else { "path" };
            bad.push((start, Problem::new(format!("`models.{missing}` is required in {ENTRY}"))));
        }
        _ => {}
    }
    None
}

/// Of `id=dir,id2=dir2`.
pub(super) fn from_text(text: &str) -> Result<Vec<ModelSource>, Problem> {
    let mut models = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.split_once('=') {
            Some((id, dir)) if !dir.trim().is_empty() => {
                models.push(ModelSource::new(id.trim(), dir.trim()));
            }
            _ => return Err(Problem::new(format!("a model must be {WRITTEN}, not {entry:?}"))),
        }
    }
    checked(&models).map_or(Ok(models), Err)
}

/// What is wrong with the list as a whole.
fn checked(models: &[ModelSource]) -> Option<Problem> {
    let plain = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c));
    if models.is_empty() {
        return Some(Problem::new("`models` must name at least one model".to_owned()));
    }
    if let Some(model) = models.iter().find(|model| !plain(&model.id)) {
        return Some(Problem::new(format!("a model's id must be letters, digits and . _ - / : alone, not {:?}", model.id)));
    }
    let twice = models.iter().enumerate().find(|(at, model)| models[..*at].iter().any(|other| other.id == model.id));
    twice.map(|(_, model)| Problem::new(format!("two models are called {:?}", model.id)))
}
