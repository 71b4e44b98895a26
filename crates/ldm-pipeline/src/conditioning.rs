//! What a denoiser is conditioned on, beyond the noised latent and the timestep (paper, Section 3.3).

use std::rc::Rc;

use ldm_nn::Context;
use tch::Tensor;

/// Conditioning of some rows.
pub(crate) struct Conditioning {
    /// Keys and values of the cross-attentions, and what is added to the timestep.
    pub(crate) context: Context,
    /// What lies beside the latent, float32 `[B, C', H, W]`.
    pub(crate) concat: Option<Tensor>,
}

impl Conditioning {
    /// Rows of several, one after another.
    pub(crate) fn cat(rows: &[Rc<Conditioning>]) -> Self {
        let concat: Option<Vec<&Tensor>> = rows.iter().map(|row| row.concat.as_ref()).collect();
        Self {
            context: Context::cat(&rows.iter().map(|row| &row.context).collect::<Vec<_>>()),
            concat: concat.filter(|all| !all.is_empty()).map(|all| Tensor::cat(&all, 0)),
        }
    }
}
