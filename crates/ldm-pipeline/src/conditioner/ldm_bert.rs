//! A prompt through the paper's own transformer on BERT's tokens (latent-diffusion, encoders/modules.py `BERTEmbedder`).

use ldm_core::{Failure, Request};
use ldm_engine::CacheCounts;
use ldm_nn::conditioners::{BertTokenizer, LdmBertModel};
use tch::{Device, Kind, Tensor};

use super::{Conditioner, Given, Known, unsupported};
use crate::run::Guided;

/// Prompts, each of one length.
pub(crate) struct Bert {
    pub(crate) tokenizer: BertTokenizer,
    pub(crate) model: LdmBertModel,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// Token ids to the transformer's output `[1, L, D]`.
    pub(crate) cache: Known<Vec<i64>, Tensor>,
}

impl Bert {
    fn given(&mut self, prompt: &str) -> Result<Given, Failure> {
        let ids = self.tokenizer.encode(prompt).map_err(unsupported)?.ids;
        let (model, device, kind) = (&self.model, self.device, self.kind);
        let encode = |ids: &Vec<i64>| model.forward_as(&Tensor::from_slice(ids).unsqueeze(0).to_device(device), kind);
        let tokens = self.cache.get_or_insert(ids.clone(), || encode(&ids)).shallow_clone();
        Ok(Given { tokens: Some(tokens), ..Given::default() })
    }
}

impl Conditioner for Bert {
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure> {
        let positive = self.given(&request.prompt)?;
        Ok(if guided { Guided::On(self.given(&request.negative_prompt)?, positive) } else { Guided::Off(positive) })
    }

    fn shape(&self, _: &Request, _: bool) -> Result<[u32; 2], Failure> {
        Ok([self.tokenizer.length() as u32, self.model.config().d_model as u32])
    }

    fn forget(&mut self) {
        self.cache.clear();
    }

    fn cache(&self) -> CacheCounts {
        self.cache.counts()
    }
}
