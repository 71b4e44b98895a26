//! A prompt through SDXL's text encoders, with the numbers about the picture that it was trained with (Podell et al. 2023).

use ldm_core::{Failure, Request};
use ldm_engine::CacheCounts;
use ldm_nn::conditioners::vectors::{Sizes, sdxl_vector};
use tch::Tensor;

use super::text::{Adapters, Encoder, Key, key, pair, prompts};
use super::{Conditioner, Given, Known};
use crate::run::Guided;

/// Which numbers the model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Original size, crop, target size.
    Base,
    /// Original size, crop, aesthetic score.
    Refiner,
}

/// Scores of the refiner's prompt and negative prompt, as diffusers' defaults.
const AESTHETIC: [f64; 2] = [6.0, 2.5];

/// Prompts.
pub(crate) struct TextPair {
    /// CLIP-L of the base model; the refiner has none.
    pub(crate) first: Option<Encoder>,
    /// OpenCLIP bigG, whose pooled output is the vector.
    pub(crate) second: Encoder,
    pub(crate) numbers: Numbers,
    /// An empty negative prompt is zeros, not the encoding of nothing.
    pub(crate) zeros_for_empty: bool,
    /// Layers left out, adapters and chunks, to tokens `[1, L, D]` and the pooled text `[1, P]`.
    pub(crate) cache: Known<(u32, Adapters, Key, Key), (Tensor, Tensor)>,
}

impl Conditioner for TextPair {
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure> {
        let prompts = prompts(request, guided);
        let second = self.second.chunks(&prompts, request.prompting)?;
        let first = match &self.first {
            Some(first) => first.chunks(&prompts, request.prompting)?,
            None => vec![vec![]; second.len()],
        };
        let size = [f64::from(request.height), f64::from(request.width)];
        let sizes = Sizes { original: size, crop: [0., 0.], target: size };
        let loras = self.second.loras.choose(request)?;
        let mut rows = Vec::new();
        for (index, (first_row, second_row)) in first.into_iter().zip(second).enumerate() {
            let is_negative = guided && index == 0;
            let skipped = request.tuning.clip_skip;
            let known = (skipped, loras.key(), key(&first_row), key(&second_row));
            let one = self.first.as_ref().map(|first| Ok((first, first.encoder(skipped)?))).transpose()?;
            let two = self.second.encoder(skipped)?;
            let encode = || {
                let (hidden, pooled) = self.second.with_loras(&loras, || two.encode_pooled(&[second_row]));
                let hidden = match one {
                    Some((first, one)) => Tensor::cat(&[first.with_loras(&loras, || one.encode(&[first_row])), hidden], 2),
                    None => hidden,
                };
                (hidden, pooled)
            };
            let (tokens, pooled) = self.cache.get_or_insert(known, encode);
            let (mut tokens, mut pooled) = (tokens.shallow_clone(), pooled.shallow_clone());
            if is_negative && self.zeros_for_empty && request.negative_prompt.is_empty() {
                (tokens, pooled) = (tokens.zeros_like(), pooled.zeros_like());
            }
            let vector = match self.numbers {
                Numbers::Base => sdxl_vector(&pooled, &sizes.base()),
                Numbers::Refiner => sdxl_vector(&pooled, &sizes.refiner(AESTHETIC[usize::from(is_negative)])),
            };
            rows.push(Given { tokens: Some(tokens), vector: Some(vector), ..Given::default() });
        }
        pair(rows)
    }

    fn shape(&self, request: &Request, guided: bool) -> Result<[u32; 2], Failure> {
        let chunks = self.second.chunks(&prompts(request, guided), request.prompting)?[0].len();
        let width = self.first.as_ref().map_or(0, |first| first.model.config().hidden_size);
        let width = width + self.second.model.config().hidden_size;
        Ok([(chunks * self.second.tokenizer.length()) as u32, width as u32])
    }

    fn forget(&mut self) {
        self.cache.clear();
    }

    fn cache(&self) -> CacheCounts {
        self.cache.counts()
    }
}
