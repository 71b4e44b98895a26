//! The tokenizer against transformers' `CLIPTokenizer`.

use ldm_nn::ClipTokenizer;
use serde::Deserialize;

use crate::goldens::{MODELS, directory, scratch};

#[derive(Deserialize)]
struct Golden {
    text: String,
    cut: usize,
    #[serde(rename = "tiny-sd")]
    tiny_sd: Vec<i64>,
    variant: Vec<i64>,
}

fn goldens() -> Vec<Golden> {
    let file = std::fs::read(directory().join("tokens.json")).expect("the goldens");
    serde_json::from_slice(&file).expect("the goldens")
}

#[test]
fn ids_are_the_reference() {
    let mut wrong = Vec::new();
    for model in MODELS {
        let tokenizer = ClipTokenizer::read(&directory().join(model).join("tokenizer"), 77).expect("the tokenizer");
        assert_eq!(tokenizer.length(), 77);
        assert_eq!(tokenizer.vocabulary(), 774);
        for golden in goldens() {
            let ids = if model == "variant" { &golden.variant } else { &golden.tiny_sd };
            let tokens = tokenizer.encode(&golden.text).expect("every text has tokens");
            if tokens.ids != *ids || tokens.cut != golden.cut {
                wrong.push(format!("{model} {:?}:\n  found {:?}\n  not   {ids:?}", golden.text, tokens.ids));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shorter_text_encoders_cut_earlier() {
    let tokenizer = ClipTokenizer::read(&directory().join("tiny-sd/tokenizer"), 7).expect("the tokenizer");
    let whole = ClipTokenizer::read(&directory().join("tiny-sd/tokenizer"), 77).expect("the tokenizer");
    let text = "a photo of a cat sitting on the table";
    let (short, long) = (tokenizer.encode(text).expect("tokens"), whole.encode(text).expect("tokens"));
    assert_eq!(short.ids.len(), 7);
    assert_eq!(short.ids[..6], long.ids[..6]);
    assert_eq!(short.ids[6], long.ids[76]);
    assert!(short.cut > 0 && long.cut == 0);
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let source = directory().join("tiny-sd/tokenizer");
    let with = |name: &str, file: &str, content: Option<&str>| {
        let dir = scratch(name);
        for entry in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
            std::fs::copy(source.join(entry), dir.join(entry)).expect("a copy");
        }
        match content {
            Some(content) => std::fs::write(dir.join(file), content).expect("a file"),
            None => std::fs::remove_file(dir.join(file)).expect("a file"),
        }
        ClipTokenizer::read(&dir, 77).map(|tokenizer| tokenizer.length())
    };
    let message = |result: Result<usize, ldm_nn::TokenizerError>| result.expect_err("refused").to_string();
    assert!(message(with("tokenizer-vocab", "vocab.json", None)).contains("tokenizer-vocab"));
    assert!(message(with("tokenizer-merges", "merges.txt", None)).contains("tokenizer-merges"));
    assert!(message(with("tokenizer-broken", "vocab.json", Some("{\"a\": "))).contains("tokenizer-broken"));
    assert!(message(with("tokenizer-config", "tokenizer_config.json", Some("[}"))).contains("tokenizer_config.json"));
    let pad = Some(r#"{"pad_token": "<|pad|>"}"#);
    assert!(message(with("tokenizer-pad", "special_tokens_map.json", pad)).contains("<|pad|>"));
    // Both files of settings may be absent: CLIP's own marks are the default.
    assert_eq!(with("tokenizer-bare", "special_tokens_map.json", None).expect("read"), 77);
    // transformers writes 1e30 where there is no limit.
    let unlimited = Some(r#"{"model_max_length": 1000000000000000019884624838656}"#);
    assert_eq!(with("tokenizer-unlimited", "tokenizer_config.json", unlimited).expect("read"), 77);
}
