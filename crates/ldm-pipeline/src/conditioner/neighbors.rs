//! Embeddings of a prompt and its neighbours as tokens (latent-diffusion, scripts/knn2img.py; Blattmann et al. 2022).

use ldm_core::task::Work;
use ldm_core::{Failure, Request};
use ldm_nn::conditioners::vectors::normalised;
use tch::{Device, Tensor};

use super::{Conditioner, Given, wrong_task};
use crate::run::Guided;

/// Embeddings of width `width`.
pub(crate) struct Neighbors {
    pub(crate) width: i64,
    pub(crate) device: Device,
}

impl Conditioner for Neighbors {
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure> {
        let Work::Rdm(work) = &request.work else { return Err(wrong_task(request)) };
        let flat: Vec<f32> = work.neighbors.iter().flatten().copied().collect();
        let tokens = Tensor::from_slice(&flat).view([1, -1, self.width]).to_device(self.device); // [1, L, D]
        let given = |tokens: Tensor| Given { tokens: Some(tokens), ..Given::default() };
        let none = tokens.zeros_like();
        let positive = given(normalised(&tokens));
        Ok(if guided { Guided::On(given(none), positive) } else { Guided::Off(positive) })
    }

    fn shape(&self, request: &Request, _: bool) -> Result<[u32; 2], Failure> {
        let Work::Rdm(work) = &request.work else { return Err(wrong_task(request)) };
        Ok([work.neighbors.len() as u32, self.width as u32])
    }
}
