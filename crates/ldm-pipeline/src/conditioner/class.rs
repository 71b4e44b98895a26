//! A class as one token (latent-diffusion, encoders/modules.py `ClassEmbedder`).

use ldm_core::task::Work;
use ldm_core::{Failure, Request};
use ldm_nn::conditioners::ClassEmbedder;
use tch::{Device, Tensor};

use super::{Conditioner, Given, wrong_task};
use crate::run::Guided;

/// Classes.
pub(crate) struct Classes {
    pub(crate) embedder: ClassEmbedder,
    /// The class that stands for none, if there is one.
    pub(crate) none: Option<i64>,
    pub(crate) device: Device,
}

impl Classes {
    fn given(&self, class: i64) -> Given {
        let class = Tensor::from_slice(&[class]).to_device(self.device);
        Given { tokens: Some(self.embedder.forward(&class)), ..Given::default() } // [1, 1, D]
    }
}

impl Conditioner for Classes {
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure> {
        let Work::Class(work) = &request.work else { return Err(wrong_task(request)) };
        let positive = self.given(work.class.into());
        Ok(match self.none.filter(|_| guided) {
            Some(none) => Guided::On(self.given(none), positive),
            None => Guided::Off(positive),
        })
    }

    fn shape(&self, _: &Request, _: bool) -> Result<[u32; 2], Failure> {
        Ok([1, self.embedder.config().embed_dim as u32])
    }
}
