//! Chunks through CLIP, with each token's vector multiplied by its weight, as stable-diffusion-webui does.

use tch::{Kind, Tensor};

use super::chunks::Chunk;
use super::textual_inversion::Inversions;
use crate::clip_text::{ClipTextModel, Placed, Readout};

/// What weights do to the encoder's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// Vectors are multiplied, then all of the chunk's are scaled so that their mean is what it was (webui's "Original").
    MeanKept,
    /// Vectors are multiplied (webui's "No norm").
    Plain,
}

/// A text encoder and how its output is read.
#[derive(Clone, Copy, Debug)]
pub struct ChunkEncoder<'a> {
    /// The network.
    pub model: &'a ClipTextModel,
    /// Which of the model's text encoders it is: that embedding's vectors are taken.
    pub encoder: usize,
    /// Embeddings by name, those of the [`Chunker`](super::Chunker).
    pub inversions: &'a Inversions,
    /// Where vectors leave the network.
    pub readout: Readout,
    /// What weights do.
    pub emphasis: Emphasis,
    /// What is computed in.
    pub kind: Kind,
}

impl ChunkEncoder<'_> {
    /// Rows of the same number of chunks (see [`Chunker::even_out`](super::Chunker::even_out)), `[B]` of `n` →
    /// `[B, n·L, D]`. webui takes the mean of all rows together; here it is each row's own.
    pub fn encode(&self, rows: &[Vec<Chunk>]) -> Tensor {
        let chunks = Batch::new(self, rows);
        let hidden = self.model.encode(&chunks.ids, &chunks.placed(), self.readout, self.kind);
        self.joined(&hidden, &chunks)
    }

    /// [`encode`](Self::encode)d, and the pooled output of each row's first chunk, `[B, P]`, which weights do not touch.
    pub fn encode_pooled(&self, rows: &[Vec<Chunk>]) -> (Tensor, Tensor) {
        let chunks = Batch::new(self, rows);
        let (hidden, pooled) = self.model.encode_pooled(&chunks.ids, &chunks.placed(), self.readout, self.kind);
        let pooled = pooled.view([chunks.rows, -1, pooled.size()[1]]).select(1, 0);
        (self.joined(&hidden, &chunks), pooled)
    }

    /// `[B·n, L, D]` → `[B, n·L, D]`, weighed.
    fn joined(&self, hidden: &Tensor, chunks: &Batch) -> Tensor {
        let width = hidden.size()[2];
        let hidden = match &chunks.weights {
            None => hidden.shallow_clone(),
            Some(weights) => self.emphasised(&hidden.to_kind(Kind::Float), weights).to_kind(self.kind),
        };
        hidden.view([chunks.rows, -1, width])
    }

    fn emphasised(&self, hidden: &Tensor, weights: &Tensor) -> Tensor {
        let weighed = hidden * weights.to_device(hidden.device()).unsqueeze(2);
        match self.emphasis {
            Emphasis::Plain => weighed,
            Emphasis::MeanKept => {
                let mean = |x: &Tensor| x.mean_dim([1i64, 2].as_slice(), true, Kind::Float); // [B·n, 1, 1]
                let ratio = mean(hidden) / mean(&weighed);
                // A mean of 0 cannot be restored.
                let ratio = ratio.where_self(&ratio.isfinite(), &ratio.ones_like());
                weighed * ratio
            }
        }
    }
}

/// All chunks of all rows.
struct Batch {
    rows: i64,
    /// `[B·n, L]`.
    ids: Tensor,
    /// `[B·n, L]`; none when all are 1.
    weights: Option<Tensor>,
    /// Chunk, position, vector.
    vectors: Vec<(i64, i64, Tensor)>,
}

impl Batch {
    /// # Panics
    /// When rows have different numbers of chunks.
    fn new(encoder: &ChunkEncoder<'_>, rows: &[Vec<Chunk>]) -> Self {
        let chunks: Vec<&Chunk> = rows.iter().flatten().collect();
        assert!(rows.iter().all(|row| row.len() * rows.len() == chunks.len()), "rows must have the same number of chunks");
        let count = chunks.len() as i64;
        let ids: Vec<i64> = chunks.iter().flat_map(|chunk| chunk.ids.iter().copied()).collect();
        let weights: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.weights.iter().copied()).collect();
        let vectors = chunks.iter().enumerate().flat_map(|(row, chunk)| {
            chunk.vectors.iter().map(move |place| {
                let vector = encoder.inversions.vector(place.inversion, encoder.encoder, place.vector);
                (row as i64, place.position as i64, vector)
            })
        });
        Self {
            rows: rows.len() as i64,
            ids: Tensor::from_slice(&ids).view([count, -1]).to_device(encoder.model.device()),
            weights: weights.iter().any(|&weight| weight != 1.).then(|| Tensor::from_slice(&weights).view([count, -1])),
            vectors: vectors.collect(),
        }
    }

    fn placed(&self) -> Vec<Placed<'_>> {
        self.vectors.iter().map(|(row, position, vector)| Placed { row: *row, position: *position, vector }).collect()
    }
}
