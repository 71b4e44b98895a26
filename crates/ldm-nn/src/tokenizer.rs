//! CLIP's byte-pair tokenizer, from a diffusers `tokenizer/` directory (`vocab.json`, `merges.txt`, special tokens).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::config::{ConfigError, read_json};

/// What CLIP takes for a word: contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A tokenizer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// One of its configuration files cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The vocabulary or the merges cannot be used.
    #[error("{dir}: {message}")]
    Format {
        /// The tokenizer's directory.
        dir: PathBuf,
        /// Why.
        message: String,
    },
}

/// A special token, as a word or as a record with it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Special {
    Word(String),
    Record { content: String },
}

impl Special {
    fn word(self) -> String {
        match self {
            Self::Word(content) | Self::Record { content } => content,
        }
    }
}

/// `special_tokens_map.json`, which overrides the same in `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Specials {
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    pad_token: Option<Special>,
    model_max_length: Option<serde_json::Number>,
}

/// Text to token ids, padded to the length that the text encoder reads.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    length: usize,
}

/// The token ids that are no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Before the text.
    pub begin: i64,
    /// Behind it.
    pub end: i64,
    /// From there on: the end mark again in Stable Diffusion 1.x, 0 with OpenCLIP's encoders.
    pub pad: i64,
}

/// Token ids of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Mark of the beginning, text, mark of the end, padding: exactly [`ClipTokenizer::length`] ids.
    pub ids: Vec<i64>,
    /// Tokens of the text that did not fit and were cut off.
    pub cut: usize,
}

impl ClipTokenizer {
    /// Reads `dir`; texts are padded or cut to `positions` tokens, or to `model_max_length` when that is less.
    pub fn read(dir: &Path, positions: usize) -> Result<Self, TokenizerError> {
        let bad = |message: String| TokenizerError::Format { dir: dir.to_owned(), message };
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let bpe = BPE::from_file(&file("vocab.json"), &file("merges.txt"))
            .unk_token("<|endoftext|>".into())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let settings: Specials = read_optional(&dir.join("tokenizer_config.json"))?;
        let map: Specials = read_optional(&dir.join("special_tokens_map.json"))?;
        let special = |a: Option<Special>, b: Option<Special>, default: &str| a.or(b).map_or(default.to_owned(), Special::word);
        let bos = special(map.bos_token, settings.bos_token, "<|startoftext|>");
        let eos = special(map.eos_token, settings.eos_token, "<|endoftext|>");
        let pad = special(map.pad_token, settings.pad_token, "<|endoftext|>");

        let mut tokenizer = Tokenizer::new(bpe);
        let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ");
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true);
        let (spaces, words) = (spaces.map_err(|error| bad(error.to_string()))?, words.map_err(|error| bad(error.to_string()))?);
        tokenizer.with_normalizer(Some(Normalizers::new(vec![
            NormalizerWrapper::NFC(NFC),
            NormalizerWrapper::Replace(spaces),
            NormalizerWrapper::Lowercase(Lowercase),
        ])));
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::Split(words),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ])));
        let id = |tokenizer: &Tokenizer, token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| bad(format!("the vocabulary lacks the special token {token:?}")))
        };
        let (bos_id, eos_id, pad_id) = (id(&tokenizer, &bos)?, id(&tokenizer, &eos)?, id(&tokenizer, &pad)?);
        // The padding too: where it is a word, as SD 2's "!", transformers takes it out of texts before anything else.
        let marks = [&bos, &eos, &pad].map(|token| AddedToken::from(token.clone(), true).normalized(false));
        tokenizer.add_special_tokens(&marks);
        let length = settings
            .model_max_length
            .and_then(|length| length.as_u64())
            .map_or(positions, |length| usize::try_from(length).unwrap_or(usize::MAX).min(positions));
        if length < 3 {
            return Err(bad(format!("model_max_length {length} leaves no room for text")));
        }
        Ok(Self { tokenizer, bos: bos_id, eos: eos_id, pad: pad_id, length })
    }

    /// Tokens of a padded text.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Token ids in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The marks around a text and what stands behind it.
    pub fn marks(&self) -> Marks {
        let [begin, end, pad] = [self.bos, self.eos, self.pad].map(i64::from);
        Marks { begin, end, pad }
    }

    /// The same with another token behind a text, for encoders whose vocabulary's own files do not say theirs.
    pub fn padded_with(self, pad: u32) -> Self {
        Self { pad, ..self }
    }

    /// The token of a comma that ends a word, if the vocabulary has one.
    pub fn comma(&self) -> Option<i64> {
        self.tokenizer.token_to_id(",</w>").map(i64::from)
    }

    /// Token ids of the text alone, without marks, however many.
    pub fn words(&self, text: &str) -> Result<Vec<i64>, String> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().iter().copied().map(i64::from).collect())
    }

    /// Tokenizes, cuts and pads.
    pub fn encode(&self, text: &str) -> Result<Tokens, String> {
        let words = self.words(text)?;
        let kept = &words[..words.len().min(self.length - 2)];
        let marks = self.marks();
        let mut ids = Vec::with_capacity(self.length);
        ids.push(marks.begin);
        ids.extend(kept);
        ids.push(marks.end);
        ids.resize(self.length, marks.pad);
        Ok(Tokens { ids, cut: words.len() - kept.len() })
    }
}

fn read_optional(path: &Path) -> Result<Specials, ConfigError> {
    if path.is_file() { read_json(path) } else { Ok(Specials::default()) }
}
