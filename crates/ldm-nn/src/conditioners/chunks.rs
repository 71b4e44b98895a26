//! Prompts of any length as chunks that CLIP reads, as stable-diffusion-webui cuts them: each with its own two marks, ending
//! early at a comma rather than amid a phrase.

use super::prompt::{Piece, PromptError, parse};
use super::textual_inversion::Inversions;
use crate::tokenizer::ClipTokenizer;

/// What CLIP reads at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Mark of the beginning, text, mark of the end, padding: [`ClipTokenizer::length`] ids.
    pub ids: Vec<i64>,
    /// What each token's vector is multiplied by: 1 for marks and padding.
    pub weights: Vec<f32>,
    /// Vectors in place of tokens, in order.
    pub vectors: Vec<ChunkVector>,
}

/// A vector of an embedding in place of a token (whose id is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkVector {
    /// Its place in the chunk.
    pub position: usize,
    /// The embedding, by its place in [`Inversions`].
    pub inversion: usize,
    /// Which of the embedding's vectors.
    pub vector: usize,
}

/// A prompt that cannot be cut into chunks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChunkError {
    /// Its weights cannot be used.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// It is too long.
    #[error("the prompt takes more than {limit} chunks of {room} tokens")]
    TooLong {
        /// Chunks at most.
        limit: usize,
        /// Tokens of a chunk.
        room: usize,
    },
    /// An embedding that no chunk has room for.
    #[error("the embedding `{name}` has {vectors} vectors, more than the {room} tokens of a chunk")]
    Embedding {
        /// Its name.
        name: String,
        /// Its vectors.
        vectors: usize,
        /// Tokens of a chunk.
        room: usize,
    },
    /// The tokenizer failed.
    #[error("the prompt cannot be tokenized: {0}")]
    Tokenizer(String),
}

/// How prompts are cut.
#[derive(Clone, Copy, Debug)]
pub struct Chunker<'a> {
    /// The text encoder's.
    pub tokenizer: &'a ClipTokenizer,
    /// Embeddings by name.
    pub inversions: &'a Inversions,
    /// A full chunk ends at its last comma when that is among its last `backtrack` tokens; 0 for never.
    pub backtrack: usize,
    /// Chunks at most.
    pub limit: usize,
}

/// webui's `comma_padding_backtrack`.
pub const BACKTRACK: usize = 20;

/// One place of a chunk.
#[derive(Clone, Copy)]
struct Slot {
    id: i64,
    weight: f32,
    vector: Option<(usize, usize)>,
}

impl<'a> Chunker<'a> {
    /// With webui's backtracking, and 16 chunks at most.
    pub fn new(tokenizer: &'a ClipTokenizer, inversions: &'a Inversions) -> Self {
        Self { tokenizer, inversions, backtrack: BACKTRACK, limit: 16 }
    }

    /// The chunks of a prompt with weights: at least one, all of [`ClipTokenizer::length`] tokens.
    pub fn chunks(&self, prompt: &str) -> Result<Vec<Chunk>, ChunkError> {
        self.cut(&parse(prompt)?)
    }

    /// The chunks of a prompt that was parsed, or was not meant to be (one piece of weight 1).
    pub fn cut(&self, pieces: &[Piece]) -> Result<Vec<Chunk>, ChunkError> {
        let room = self.tokenizer.length() - 2;
        let mut writer = Writer { chunker: self, room, slots: Vec::new(), comma: None, done: Vec::new() };
        for piece in pieces {
            match piece {
                Piece::Break => writer.end()?,
                Piece::Text { text, weight } => self.write(&mut writer, text, *weight as f32)?,
            }
        }
        if !writer.slots.is_empty() || writer.done.is_empty() {
            writer.end()?;
        }
        Ok(writer.done)
    }

    fn write(&self, writer: &mut Writer<'_>, text: &str, weight: f32) -> Result<(), ChunkError> {
        let mut rest = text;
        loop {
            let found = self.inversions.find(rest);
            let plain = found.as_ref().map_or(rest, |(range, _)| &rest[..range.start]);
            for id in self.tokenizer.words(plain).map_err(ChunkError::Tokenizer)? {
                writer.token(Slot { id, weight, vector: None })?;
            }
            let Some((range, inversion)) = found else { return Ok(()) };
            writer.embedding(inversion, weight)?;
            rest = &rest[range.end..];
        }
    }

    /// The chunk of an empty prompt.
    pub fn empty(&self) -> Chunk {
        self.chunk(&[])
    }

    /// Adds empty chunks to the shorter ones, so that all rows (a prompt and its negative) have the same number.
    pub fn even_out(&self, rows: &mut [Vec<Chunk>]) {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        for row in rows {
            row.resize(longest, self.empty());
        }
    }

    fn chunk(&self, slots: &[Slot]) -> Chunk {
        let (length, marks) = (self.tokenizer.length(), self.tokenizer.marks());
        let mut ids = vec![marks.begin];
        ids.extend(slots.iter().map(|slot| slot.id));
        ids.push(marks.end);
        ids.resize(length, marks.pad);
        let mut weights = vec![1.];
        weights.extend(slots.iter().map(|slot| slot.weight));
        weights.resize(length, 1.);
        let vectors = slots.iter().enumerate().filter_map(|(i, slot)| {
            let (inversion, vector) = slot.vector?;
            Some(ChunkVector { position: i + 1, inversion, vector })
        });
        Chunk { ids, weights, vectors: vectors.collect() }
    }
}

struct Writer<'a> {
    chunker: &'a Chunker<'a>,
    /// Tokens of a chunk.
    room: usize,
    slots: Vec<Slot>,
    /// The place of the last comma.
    comma: Option<usize>,
    done: Vec<Chunk>,
}

impl Writer<'_> {
    fn end(&mut self) -> Result<(), ChunkError> {
        if self.done.len() >= self.chunker.limit {
            return Err(ChunkError::TooLong { limit: self.chunker.limit, room: self.room });
        }
        self.done.push(self.chunker.chunk(&self.slots));
        self.slots.clear();
        self.comma = None;
        Ok(())
    }

    /// Ends a full chunk; what stands behind its last comma goes to the next.
    fn make_room(&mut self) -> Result<(), ChunkError> {
        if self.slots.len() == self.room {
            let after_comma = self.comma.map(|comma| comma + 1).filter(|start| self.room - start < self.chunker.backtrack);
            let moved = after_comma.map_or(Vec::new(), |start| self.slots.split_off(start));
            self.end()?;
            self.slots = moved;
        }
        Ok(())
    }

    fn token(&mut self, slot: Slot) -> Result<(), ChunkError> {
        let is_comma = self.chunker.tokenizer.comma() == Some(slot.id);
        if is_comma && self.slots.len() == self.room {
            self.end()?;
        }
        self.make_room()?;
        if is_comma {
            self.comma = Some(self.slots.len());
        }
        self.slots.push(slot);
        Ok(())
    }

    fn embedding(&mut self, inversion: usize, weight: f32) -> Result<(), ChunkError> {
        let (name, vectors) = (self.chunker.inversions.name(inversion), self.chunker.inversions.vectors(inversion));
        if vectors > self.room {
            return Err(ChunkError::Embedding { name: name.to_owned(), vectors, room: self.room });
        }
        self.make_room()?;
        // An embedding is never torn.
        if self.slots.len() + vectors > self.room {
            self.end()?;
        }
        self.slots.extend((0..vectors).map(|vector| Slot { id: 0, weight, vector: Some((inversion, vector)) }));
        Ok(())
    }
}
