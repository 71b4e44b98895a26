//! The list of models: `[[models]]` in the file, `id=dir,id2=dir2` elsewhere. A list replaces the whole list below it.

use std::path::{Path, PathBuf};

use ldm_pipeline::{Merge, ModelSource};
use toml::Value;
use toml::de::{DeArray, DeTable, DeValue};

use super::given::{Expected, Given};
use super::sources::Problem;
use crate::nearest::nearest;

/// A key of a `[[models]]` entry.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) comment: &'static str,
    /// Takes a value over, or says what it must be.
    set: fn(&mut ModelSource, Given<'_>) -> Result<(), Expected>,
    /// The value now.
    pub(super) get: fn(&ModelSource) -> Value,
}

/// A path; an empty text is none, as it is printed.
fn some(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn none_is_empty(path: Option<&Path>) -> Value {
    Value::String(path.map(|path| path.display().to_string()).unwrap_or_default())
}

/// Those that every entry has.
const REQUIRED: [&str; 2] = ["id", "path"];

pub(super) const KEYS: [Key; 8] = [
    Key {
        name: "id",
        comment: "The name that requests use.",
        set: |model, given| given.words().map(|id| model.id = id),
        get: |model| Value::String(model.id.clone()),
    },
    Key {
        name: "path",
        comment: "A diffusers directory, or a .safetensors file in the original layout; a relative path starts where the service was started.",
        set: |model, given| given.words().map(|path| model.dir = path.into()),
        get: |model| Value::String(model.dir.display().to_string()),
    },
    Key {
        name: "preview_decoder",
        comment: "A tiny decoder for previews: TAESD, a .safetensors file or a directory. The model's own first stage without it.",
        set: |model, given| given.words().map(|path| model.preview = some(&path)),
        get: |model| none_is_empty(model.preview.as_deref()),
    },
    Key {
        name: "first_stage",
        comment: "A first stage in place of the model's own: another autoencoder, or TAESD; a .safetensors file or a directory.",
        set: |model, given| given.words().map(|path| model.first_stage = some(&path)),
        get: |model| none_is_empty(model.first_stage.as_deref()),
    },
    Key {
        name: "loras",
        comment: "LoRAs that requests may name: .safetensors files, or folders of them; a LoRA is called like its file, without .safetensors.",
        set: |model, given| paths(given).map(|paths| model.loras = paths),
        get: |model| list(model.loras.iter().map(|path| path.display().to_string())),
    },
    Key {
        name: "merge",
        comment: "LoRAs that every picture has, merged into the weights: files, or \"file=strength\".",
        set: |model, given| {
            let expected = "a list of files or of file=strength with a number";
            let texts = given.list(expected, |text| weighed(text).is_some())?;
            model.merge =
                texts.iter().filter_map(|text| weighed(text)).map(|(path, strength)| Merge { path, strength }).collect();
            Ok(())
        },
        get: |model| list(model.merge.iter().map(|merge| format!("{}={}", merge.path.display(), merge.strength))),
    },
    Key {
        name: "embeddings",
        comment: "Learnt words (textual inversion) that prompts may use: .safetensors files, or folders of them.",
        set: |model, given| paths(given).map(|paths| model.embeddings = paths),
        get: |model| list(model.embeddings.iter().map(|path| path.display().to_string())),
    },
    Key {
        name: "lazy",
        comment: "Whether the model is loaded only when somebody asks for it.",
        set: |model, given| given.flag().map(|lazy| model.lazy = lazy),
        get: |model| Value::Boolean(model.lazy),
    },
];

const ENTRY: &str = "`[[models]]` with `id` and `path`";
const WRITTEN: &str = "ID=DIR, several of them with commas between";

/// A file, and a strength behind its last `=`; 1 when there is none.
pub(crate) fn weighed(text: &str) -> Option<(PathBuf, f64)> {
    let (path, strength) = match text.rsplit_once('=') {
        Some((path, strength)) => (path, strength.trim().parse().ok().filter(|strength: &f64| strength.is_finite())?),
        None => (text, 1.),
    };
    (!path.trim().is_empty()).then(|| (path.into(), strength))
}

fn paths(given: Given<'_>) -> Result<Vec<PathBuf>, Expected> {
    let texts = given.list("a list of files and folders", |path| !path.trim().is_empty())?;
    Ok(texts.into_iter().map(PathBuf::from).collect())
}

fn list(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(Value::String).collect())
}

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
    let (mut model, mut found, before) = (ModelSource::new("", ""), Vec::new(), bad.len());
    for (key, value) in table.iter() {
        let full = format!("models.{}", key.get_ref());
        let Some(known) = KEYS.iter().find(|known| known.name == key.get_ref()) else {
            let names: Vec<String> = KEYS.iter().map(|known| format!("models.{}", known.name)).collect();
            bad.push((key.span().start, Problem::unknown(&full, nearest(&full, names.iter().map(String::as_str)))));
            continue;
        };
        let given = Given::Toml(value.get_ref());
        match (known.set)(&mut model, given) {
            Ok(()) => found.push(known.name),
            Err(expected) => bad.push((value.span().start, Problem::new(format!("`{full}` must be {expected}, not {given}")))),
        }
    }
    if bad.len() > before {
        return None;
    }
    if let Some(missing) = REQUIRED.into_iter().find(|name| !found.contains(name)) {
        bad.push((start, Problem::new(format!("`models.{missing}` is required in {ENTRY}"))));
        return None;
    }
    Some(model)
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
