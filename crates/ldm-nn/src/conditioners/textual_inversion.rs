//! Learnt words (Gal et al. 2022, "An Image is Worth One Word"): vectors that stand in a prompt under a name.

use std::ops::Range;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use crate::weights::{Checkpoint, CheckpointError};

/// An embedding that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InversionError {
    /// The file cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file has no embedding, or not one that this model can read.
    #[error("{path}: {message}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Two embeddings of one name.
    #[error("there are two embeddings of the name `{0}`")]
    Twice(String),
}

/// One learnt word.
#[derive(Debug)]
pub struct TextualInversion {
    /// What it is called in prompts.
    pub name: String,
    /// Of each text encoder, float32 `[n, D]`; `n` is the same for all.
    pub vectors: Vec<Tensor>,
}

/// Vectors of one word at most: a chunk of CLIP has no room for more.
pub const MAX_VECTORS: i64 = 75;

/// Keys that hold the embedding of a file that is named like its word.
const NAMELESS: &str = "emb_params";

/// Keys of SDXL's two text encoders.
const PAIR: [&str; 2] = ["clip_l", "clip_g"];

impl TextualInversion {
    /// Reads the embeddings of a safetensors file for text encoders of these `widths` (one; SDXL: 768 and 1280).
    ///
    /// A tensor `emb_params` (webui, kohya), or `clip_l` and `clip_g` (SDXL), is called like the file; any other tensor has
    /// its own name (diffusers).
    pub fn read(path: &Path, widths: &[i64]) -> Result<Vec<Self>, InversionError> {
        let unfit = |message: String| InversionError::Unfit { path: path.to_owned(), message };
        let file = Checkpoint::open_files([path.to_owned()])?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<&str> = file.names().collect();
        let words: Vec<(String, Vec<&str>)> = if names.len() == 2 && PAIR.iter().all(|key| names.contains(key)) {
            let keys = match widths {
                // The refiner of SDXL has only the second encoder.
                [width] if file.shape(PAIR[1]).and_then(|shape| shape.last().copied()) == Some(*width) => vec![PAIR[1]],
                _ => PAIR.to_vec(),
            };
            vec![(stem, keys)]
        } else {
            let called = |name: &str| if name == NAMELESS { stem.clone() } else { name.to_owned() };
            names.into_iter().map(|name| (called(name), vec![name])).collect()
        };
        if words.is_empty() {
            return Err(unfit("has no embedding".into()));
        }
        let word = |(name, keys): (String, Vec<&str>)| {
            if name.trim().is_empty() {
                return Err(unfit("has an embedding without a name".into()));
            }
            if keys.len() != widths.len() {
                let (found, wanted) = (keys.len(), widths.len());
                return Err(unfit(format!("`{name}` is for {found} text encoder(s), but this model has {wanted}")));
            }
            let vectors = keys.iter().zip(widths).map(|(key, &width)| vectors(&file, key, width).map_err(unfit));
            let vectors: Vec<Tensor> = vectors.collect::<Result<_, _>>()?;
            let counts: Vec<i64> = vectors.iter().map(|vectors| vectors.size()[0]).collect();
            if counts.iter().any(|&count| count != counts[0]) {
                return Err(unfit(format!("`{name}` has {counts:?} vectors for the text encoders, not the same number")));
            }
            Ok(Self { name, vectors })
        };
        words.into_iter().map(word).collect()
    }
}

/// The tensor `key` as float32 `[n, width]`.
fn vectors(file: &Checkpoint, key: &str, width: i64) -> Result<Tensor, String> {
    let shape = file.shape(key).unwrap_or_default();
    let (count, found) = match shape[..] {
        [found] => (1, found),
        [count, found] => (count, found),
        _ => return Err(format!("`{key}` has the shape {shape:?}, not [vectors, width]")),
    };
    if found != width {
        return Err(format!("the vectors of `{key}` have width {found}, but the text encoder has {width}"));
    }
    if !(1..=MAX_VECTORS).contains(&count) {
        return Err(format!("`{key}` has {count} vectors, not between 1 and {MAX_VECTORS}"));
    }
    let vectors = file.tensor(key).view([count, width]).to_kind(Kind::Float).copy();
    if vectors.isfinite().all().int64_value(&[]) == 0 {
        return Err(format!("`{key}` has numbers that are not finite"));
    }
    Ok(vectors)
}

/// The learnt words of a model, by name.
#[derive(Debug, Default)]
pub struct Inversions {
    /// Longest names first, so that the first that fits is the longest.
    words: Vec<TextualInversion>,
}

impl Inversions {
    /// Refuses two of one name; upper and lower case are the same.
    pub fn new(mut words: Vec<TextualInversion>) -> Result<Self, InversionError> {
        words.sort_by_key(|word| (std::cmp::Reverse(word.name.len()), word.name.to_ascii_lowercase()));
        let twice = words.windows(2).find(|pair| pair[0].name.eq_ignore_ascii_case(&pair[1].name));
        match twice {
            Some(pair) => Err(InversionError::Twice(pair[0].name.clone())),
            None => Ok(Self { words }),
        }
    }

    /// The name of an embedding.
    ///
    /// # Panics
    /// When there are fewer embeddings; so do the next two.
    pub fn name(&self, inversion: usize) -> &str {
        &self.words[inversion].name
    }

    /// How many vectors it has.
    pub fn vectors(&self, inversion: usize) -> usize {
        self.words[inversion].vectors[0].size()[0] as usize
    }

    /// One of its vectors for one of the text encoders, `[D]`.
    pub fn vector(&self, inversion: usize, encoder: usize, vector: usize) -> Tensor {
        self.words[inversion].vectors[encoder].select(0, vector as i64)
    }

    /// The first name in `text`, as a word of its own: where it stands, and whose it is.
    pub fn find(&self, text: &str) -> Option<(Range<usize>, usize)> {
        text.char_indices().find_map(|(at, _)| {
            let word = self.words.iter().position(|word| stands_at(text, at, &word.name))?;
            Some((at..at + self.words[word].name.len(), word))
        })
    }
}

/// Whether `name` stands there, and letters and digits at its ends do not go on.
fn stands_at(text: &str, at: usize, name: &str) -> bool {
    let Some(found) = text.get(at..at + name.len()) else { return false };
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let (before, after) = (text[..at].chars().next_back(), text[at + name.len()..].chars().next());
    found.eq_ignore_ascii_case(name)
        && !(is_word(name.chars().next()) && is_word(before))
        && !(is_word(name.chars().next_back()) && is_word(after))
}
