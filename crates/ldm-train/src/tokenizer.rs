//! The demo model's tokenizer: CLIP's byte-pair format with merges for the words of the scene grammar.
//!
//! Any text still has tokens, because every byte has one; only the grammar's words are single tokens.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, json};

/// The end-of-word mark.
const END: &str = "</w>";

/// The printable character that stands for each byte (gpt-2 `bytes_to_unicode`): printable Latin-1 stands for itself, the
/// rest follows from U+0100 on.
fn byte_letters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    (0..=0xff)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap_or('\u{fffd}')
        })
        .collect()
}

/// Writes `vocab.json`, `merges.txt` and the two files of settings; returns the number of tokens.
pub(crate) fn write(dir: &Path, words: &[&str], length: i64) -> Result<i64> {
    std::fs::create_dir_all(dir)?;
    let letters = byte_letters();
    let mut vocabulary: Vec<String> = letters.iter().map(char::to_string).collect();
    vocabulary.extend(letters.iter().map(|letter| format!("{letter}{END}")));
    let mut known: BTreeSet<String> = vocabulary.iter().cloned().collect();
    let mut merges = String::from("#version: 0.2\n");
    for word in words {
        // Left to right: each merge adds one letter, the last one carries the mark. Merges of an earlier word are shared.
        let mut pieces: Vec<String> = word.chars().map(|c| c.to_string()).collect();
        if let Some(last) = pieces.last_mut() {
            last.push_str(END);
        }
        let mut left = pieces[0].clone();
        for right in &pieces[1..] {
            let merged = format!("{left}{right}");
            if known.insert(merged.clone()) {
                writeln!(merges, "{left} {right}")?;
                vocabulary.push(merged.clone());
            }
            left = merged;
        }
    }
    let (bos, eos) = ("<|startoftext|>", "<|endoftext|>");
    vocabulary.extend([bos.to_owned(), eos.to_owned()]);
    let ids: Map<_, _> = vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    std::fs::write(dir.join("vocab.json"), serde_json::to_vec(&ids)?)?;
    std::fs::write(dir.join("merges.txt"), merges)?;
    let special = json!({"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos});
    std::fs::write(dir.join("special_tokens_map.json"), serde_json::to_vec_pretty(&special)?)?;
    let settings = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": true,
        "bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos,
    });
    std::fs::write(dir.join("tokenizer_config.json"), serde_json::to_vec_pretty(&settings)?)?;
    Ok(vocabulary.len() as i64)
}
