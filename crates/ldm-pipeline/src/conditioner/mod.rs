//! Conditioners: what a request says becomes what the denoiser attends to (paper, Section 3.3, τ). One file each.

mod class;
mod known;
mod layout;
mod ldm_bert;
mod neighbors;
mod text;
mod text_pair;

pub(crate) use class::Classes;
pub(crate) use known::Known;
pub(crate) use layout::Boxes;
pub(crate) use ldm_bert::Bert;
pub(crate) use neighbors::Neighbors;
pub(crate) use text::{Encoder, Text};
pub(crate) use text_pair::{Numbers, TextPair};

use ldm_core::task::Work;
use ldm_core::{Failure, FailureKind, Request};
use ldm_engine::CacheCounts;
use tch::Tensor;

use crate::run::Guided;

/// What one row of a network call is given, beside the latent.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// What is attended to, `[1, L, D]`.
    pub(crate) tokens: Option<Tensor>,
    /// A class, or a noise level.
    pub(crate) label: Option<i64>,
    /// What is embedded beside the timestep, `[1, V]`.
    pub(crate) vector: Option<Tensor>,
}

/// What a model makes of a request.
pub(crate) trait Conditioner {
    /// The row of the request, and under guidance the row of its opposite; both of as many tokens.
    fn condition(&mut self, request: &Request, guided: bool) -> Result<Guided<Given>, Failure>;

    /// Tokens and their width, for requests that are to be run together.
    fn shape(&self, request: &Request, guided: bool) -> Result<[u32; 2], Failure>;

    /// Lets go of what is kept for the next request.
    fn forget(&mut self) {}

    /// How often what is kept was asked for.
    fn cache(&self) -> CacheCounts {
        CacheCounts::default()
    }
}

fn wrong_task(request: &Request) -> Failure {
    let (task, model) = (request.work.task(), &request.model);
    Failure::new(FailureKind::Unsupported, format!("model {model:?} has no conditioner for {task}"))
}

fn unsupported(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Unsupported, error.to_string())
}

/// No condition at all, or none but what lies beside the latent.
pub(crate) struct Unconditioned;

impl Conditioner for Unconditioned {
    fn condition(&mut self, _: &Request, _: bool) -> Result<Guided<Given>, Failure> {
        Ok(Guided::Off(Given::default()))
    }

    fn shape(&self, _: &Request, _: bool) -> Result<[u32; 2], Failure> {
        Ok([0, 0])
    }
}

/// The noise level that the small picture of super-resolution is brought to, as a class of the denoiser.
fn noise_level(request: &Request) -> Option<i64> {
    match &request.work {
        Work::SuperResolution(work) => work.noise_level.map(i64::from),
        _ => None,
    }
}
