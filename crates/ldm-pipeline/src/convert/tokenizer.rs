//! Tokenizers' folders, which original checkpoints do not hold and diffusers' directories do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ldm_nn::ClipTokenizer;
use serde_json::{Value, json};

use super::output::Output;
use super::{ConvertError, io};
use crate::families::{ModelError, read_json};

/// All that a tokenizer's folder may hold.
const FILES: [&str; 6] =
    ["vocab.json", "merges.txt", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// Files of a tokenizer's folder as they are, for `folder` of what is written.
pub(super) fn copies(from: &Path, folder: &str) -> Vec<(PathBuf, String)> {
    let there = FILES.iter().map(|name| (from.join(name), format!("{folder}/{name}")));
    there.filter(|(path, _)| path.is_file()).collect()
}

/// A CLIP tokenizer, with the padding that the text encoder was trained with: files beside an original checkpoint do not say it.
pub(super) fn clip(output: &mut Output, from: &Path, folder: &str, tokenizer: &ClipTokenizer) -> Result<(), ConvertError> {
    let marks = tokenizer.marks();
    let vocabulary: BTreeMap<String, i64> = read_json(&from.join("vocab.json"))?;
    let word = |id: i64| {
        let found = vocabulary.iter().find(|(_, at)| **at == id).map(|(word, _)| word.clone());
        found.ok_or_else(|| {
            let message = format!("no token has the number {id}");
            ModelError::Invalid { path: from.join("vocab.json"), message }
        })
    };
    let (begin, end, pad) = (word(marks.begin)?, word(marks.end)?, word(marks.pad)?);
    for name in ["vocab.json", "merges.txt"] {
        output.copies.push((from.join(name), format!("{folder}/{name}")));
    }
    let settings = json!({
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.length(),
        "add_prefix_space": false,
        "do_lower_case": true,
        "bos_token": begin,
        "eos_token": end.clone(),
        "unk_token": end,
        "pad_token": pad,
    });
    output.json(format!("{folder}/tokenizer_config.json"), &settings);
    Ok(())
}

/// A BERT tokenizer.
pub(super) fn bert(output: &mut Output, from: &Path, folder: &str, length: usize) -> Result<(), ConvertError> {
    let words = if from.join("vocab.txt").is_file() { "vocab.txt" } else { "tokenizer.json" };
    output.copies.push((from.join(words), format!("{folder}/{words}")));
    let path = from.join("tokenizer_config.json");
    let mut settings = json!({ "do_lower_case": true });
    if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(io(&path))?;
        let invalid = |error: serde_json::Error| ModelError::Invalid { path: path.clone(), message: error.to_string() };
        settings = serde_json::from_str(&text).map_err(invalid)?;
    }
    if let Value::Object(settings) = &mut settings {
        settings.insert("tokenizer_class".into(), json!("BertTokenizer"));
        settings.insert("model_max_length".into(), json!(length));
    }
    output.json(format!("{folder}/tokenizer_config.json"), &settings);
    Ok(())
}
