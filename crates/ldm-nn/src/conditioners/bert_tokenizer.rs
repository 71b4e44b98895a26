//! BERT's WordPiece tokenizer, from a diffusers `tokenizer/` directory (`vocab.txt` or `tokenizer.json`).

use std::path::Path;

use serde::Deserialize;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use crate::config::read_json;
use crate::tokenizer::{TokenizerError, Tokens};

/// `tokenizer_config.json`, with the defaults of transformers' class.
#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
    }
}

/// Text to token ids, padded to the length that the text encoder reads.
#[derive(Debug)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    begin: i64,
    end: i64,
    pad: i64,
    length: usize,
}

impl BertTokenizer {
    /// Reads `dir`; texts are padded or cut to `positions` tokens.
    pub fn read(dir: &Path, positions: usize) -> Result<Self, TokenizerError> {
        let bad = |message: String| TokenizerError::Format { dir: dir.to_owned(), message };
        if positions < 3 {
            return Err(bad(format!("{positions} tokens leave no room for text")));
        }
        let (words, whole) = (dir.join("vocab.txt"), dir.join("tokenizer.json"));
        let mut tokenizer = if words.is_file() {
            from_words(dir, &words)?
        } else if whole.is_file() {
            Tokenizer::from_file(&whole).map_err(|error| bad(format!("tokenizer.json: {error}")))?
        } else {
            return Err(bad("has neither vocab.txt nor tokenizer.json".into()));
        };
        // What a tokenizer.json says about lengths is the text encoder's to say.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        let id = |token: &str| {
            let id = tokenizer.token_to_id(token).map(i64::from);
            id.ok_or_else(|| bad(format!("the vocabulary lacks the special token {token:?}")))
        };
        let (begin, end, pad, _) = (id("[CLS]")?, id("[SEP]")?, id("[PAD]")?, id("[UNK]")?);
        Ok(Self { tokenizer, begin, end, pad, length: positions })
    }

    /// Tokens of a padded text.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Token ids in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Tokenizes, cuts and pads: `[CLS]`, text, `[SEP]`, `[PAD]`s.
    pub fn encode(&self, text: &str) -> Result<Tokens, String> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| error.to_string())?;
        let words = encoding.get_ids();
        let kept = &words[..words.len().min(self.length - 2)];
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.begin);
        ids.extend(kept.iter().copied().map(i64::from));
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        Ok(Tokens { ids, cut: words.len() - kept.len() })
    }
}

fn from_words(dir: &Path, path: &Path) -> Result<Tokenizer, TokenizerError> {
    let bad = |message: String| TokenizerError::Format { dir: dir.to_owned(), message };
    let settings = dir.join("tokenizer_config.json");
    let Settings { do_lower_case, tokenize_chinese_chars, strip_accents } =
        if settings.is_file() { read_json(&settings)? } else { Settings::default() };
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token("[UNK]".into()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|error| bad(format!("vocab.txt: {error}")))?);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, tokenize_chinese_chars, strip_accents, do_lower_case)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    // Taken out of texts before anything else, as transformers does. One that the vocabulary lacks would be added to it.
    let marks = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].into_iter().filter(|mark| tokenizer.token_to_id(mark).is_some());
    let marks: Vec<AddedToken> = marks.map(|mark| AddedToken::from(mark, true).normalized(false)).collect();
    tokenizer.add_special_tokens(&marks);
    Ok(tokenizer)
}
