//! A prompt through CLIP: with weights and of any length, as stable-diffusion-webui reads it.

use std::rc::Rc;

use ldm_core::{Failure, Prompting, Request};
use ldm_engine::CacheCounts;
use ldm_nn::adapters::Part;
use ldm_nn::conditioners::{Chunk, ChunkEncoder, Chunker, Emphasis, Inversions};
use ldm_nn::{ClipTextModel, ClipTokenizer, Readout};
use tch::{Kind, Tensor};

use super::{Conditioner, Given, Known, noise_level, unsupported};
use crate::loras::{Chosen, Library};
use crate::run::Guided;

/// A text encoder with its tokenizer.
pub(crate) struct Encoder {
    pub(crate) tokenizer: ClipTokenizer,
    pub(crate) model: ClipTextModel,
    pub(crate) readout: Readout,
    pub(crate) inversions: Rc<Inversions>,
    pub(crate) kind: Kind,
    /// Which of a model's text encoders it is.
    pub(crate) index: usize,
    /// Adapters that jobs may ask for, and whose part in them this is.
    pub(crate) loras: Rc<Library>,
    pub(crate) adapted: Part,
}

impl Encoder {
    /// The chunks of the rows, of as many each.
    pub(crate) fn chunks(&self, prompts: &[&str], prompting: Prompting) -> Result<Vec<Vec<Chunk>>, Failure> {
        let chunker = Chunker::new(&self.tokenizer, &self.inversions);
        if prompting == Prompting::Plain {
            return prompts.iter().map(|prompt| Ok(vec![self.cut(prompt)?])).collect();
        }
        let mut rows = prompts.iter().map(|prompt| chunker.chunks(prompt)).collect::<Result<Vec<_>, _>>().map_err(unsupported)?;
        chunker.even_out(&mut rows);
        Ok(rows)
    }

    /// The one chunk of a prompt that is cut where the encoder ends.
    fn cut(&self, prompt: &str) -> Result<Chunk, Failure> {
        let tokens = self.tokenizer.encode(prompt).map_err(unsupported)?;
        if tokens.cut > 0 {
            tracing::debug!(cut = tokens.cut, "the prompt is longer than the text encoder reads");
        }
        Ok(Chunk { weights: vec![1.; tokens.ids.len()], ids: tokens.ids, vectors: vec![] })
    }

    /// The encoder without its last `skipped` layers.
    pub(crate) fn encoder(&self, skipped: u32) -> Result<ChunkEncoder<'_>, Failure> {
        let readout = self.readout.skipping(skipped.into());
        self.model.config().check_readout(readout).map_err(unsupported)?;
        Ok(ChunkEncoder {
            model: &self.model,
            encoder: self.index,
            inversions: &self.inversions,
            readout,
            emphasis: Emphasis::MeanKept,
            kind: self.kind,
        })
    }

    /// What `call` gives while a job's adapters are attached.
    pub(crate) fn with_loras<T>(&self, chosen: &Chosen, call: impl FnOnce() -> T) -> T {
        self.loras.with(chosen, self.adapted, self.model.slots(), call)
    }
}

/// What names a row in a cache: ids, weights, and vectors in place of tokens.
pub(crate) type Key = Vec<(Vec<i64>, Vec<u32>, Vec<(usize, usize, usize)>)>;

pub(crate) fn key(row: &[Chunk]) -> Key {
    let one = |chunk: &Chunk| {
        let weights = chunk.weights.iter().map(|weight| weight.to_bits()).collect();
        let vectors = chunk.vectors.iter().map(|v| (v.position, v.inversion, v.vector)).collect();
        (chunk.ids.clone(), weights, vectors)
    };
    row.iter().map(one).collect()
}

/// What names a job's adapters in a cache.
pub(crate) type Adapters = Vec<(usize, u64)>;

/// The prompts of a request, the negative one first.
pub(crate) fn prompts(request: &Request, guided: bool) -> Vec<&str> {
    let negative = guided.then_some(request.negative_prompt.as_str());
    negative.into_iter().chain([request.prompt.as_str()]).collect()
}

/// Prompts.
pub(crate) struct Text {
    pub(crate) encoder: Encoder,
    /// Layers left out, adapters and chunks, to the text encoder's output `[1, L, D]`.
    pub(crate) cache: Known<(u32, Adapters, Key), Tensor>,
}

impl Conditioner for Text {
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure> {
        let mut rows = Vec::new();
        let loras = self.encoder.loras.choose(request)?;
        for row in self.encoder.chunks(&prompts(request, guided), request.prompting)? {
            let encoder = self.encoder.encoder(request.tuning.clip_skip)?;
            let known = (request.tuning.clip_skip, loras.key(), key(&row));
            let encode = || self.encoder.with_loras(&loras, || encoder.encode(&[row]));
            let tokens = self.cache.get_or_insert(known, encode).shallow_clone();
            rows.push(Given { tokens: Some(tokens), label: noise_level(request), ..Given::default() });
        }
        pair(rows)
    }

    fn shape(&self, request: &Request, guided: bool) -> Result<[u32; 2], Failure> {
        let chunks = self.encoder.chunks(&prompts(request, guided), request.prompting)?[0].len();
        let width = self.encoder.model.config().hidden_size;
        Ok([(chunks * self.encoder.tokenizer.length()) as u32, width as u32])
    }

    fn forget(&mut self) {
        self.cache.clear();
    }

    fn cache(&self) -> CacheCounts {
        self.cache.counts()
    }
}

/// One row, or the negative one and the positive one.
pub(crate) fn pair<T>(mut rows: Vec<T>) -> Result<Guided<T>, Failure> {
    let positive = rows.pop().ok_or_else(|| unsupported("no prompt"))?;
    Ok(match rows.pop() {
        Some(negative) => Guided::On(negative, positive),
        None => Guided::Off(positive),
    })
}
