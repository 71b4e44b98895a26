//! The demo model's tokenizer: CLIP's byte-pair format with merges for the words of the scene grammar.
//!
//! Any text still has tokens, because every byte has one; only the grammar's words are single tokens.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
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

/// The letters of a word, the last one with the mark.
fn letters(word: &str) -> Vec<String> {
    let mut letters: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = letters.last_mut() {
        last.push_str(END);
    }
    letters
}

/// Applies merges to a word, the first of the list first, as byte-pair tokenizers do.
fn pieces(word: &str, rank: &HashMap<(String, String), usize>) -> Vec<String> {
    let mut pieces = letters(word);
    loop {
        let pairs = pieces.windows(2).enumerate();
        let ranked = pairs.filter_map(|(at, pair)| Some((rank.get(&(pair[0].clone(), pair[1].clone()))?, at)));
        let Some((_, at)) = ranked.min() else { return pieces };
        let right = pieces.remove(at + 1);
        pieces[at].push_str(&right);
    }
}

/// Merges that make one token of each word, letter by letter from the left.
///
/// They apply in the order of the list, so a merge of one word can take letters out of the middle of another: words that
/// come apart are moved to the front until none does.
fn merges(words: &[&str]) -> Result<Vec<(String, String)>> {
    let mut words = words.to_vec();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for _ in 0..=words.len() {
        let (mut merges, mut rank) = (Vec::new(), HashMap::new());
        for word in &words {
            let letters = letters(word);
            let mut left = letters[0].clone();
            for right in &letters[1..] {
                let merge = (left.clone(), right.clone());
                left.push_str(right);
                if !rank.contains_key(&merge) {
                    rank.insert(merge.clone(), merges.len());
                    merges.push(merge);
                }
            }
        }
        match words.iter().position(|word| pieces(word, &rank).len() > 1) {
            None => return Ok(merges),
            Some(apart) => words[..=apart].rotate_right(1),
        }
    }
    bail!("no order of merges makes one token of each of the words {words:?}")
}

/// Writes `vocab.json`, `merges.txt` and the two files of settings; returns the number of tokens.
pub(crate) fn write(dir: &Path, words: &[&str], length: i64) -> Result<i64> {
    std::fs::create_dir_all(dir)?;
    let letters = byte_letters();
    let mut vocabulary: Vec<String> = letters.iter().map(char::to_string).collect();
    vocabulary.extend(letters.iter().map(|letter| format!("{letter}{END}")));
    let merges = merges(words)?;
    vocabulary.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let mut lines = String::from("#version: 0.2\n");
    for (left, right) in &merges {
        writeln!(lines, "{left} {right}")?;
    }
    let (bos, eos) = ("<|startoftext|>", "<|endoftext|>");
    vocabulary.extend([bos.to_owned(), eos.to_owned()]);
    let ids: Map<_, _> = vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    std::fs::write(dir.join("vocab.json"), serde_json::to_vec(&ids)?)?;
    std::fs::write(dir.join("merges.txt"), lines)?;
    let special = json!({"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos});
    std::fs::write(dir.join("special_tokens_map.json"), serde_json::to_vec_pretty(&special)?)?;
    let settings = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": true,
        "bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos,
    });
    std::fs::write(dir.join("tokenizer_config.json"), serde_json::to_vec_pretty(&settings)?)?;
    Ok(vocabulary.len() as i64)
}
