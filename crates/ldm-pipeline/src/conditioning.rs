//! What a denoiser is conditioned on, beyond the noised latent and the timestep.

use std::rc::Rc;

use ldm_nn::Context;

/// Conditioning of some rows. Concatenated maps and vectors join the keys and values when a family needs them.
pub(crate) struct Conditioning {
    /// Keys and values of the cross-attentions.
    pub(crate) cross: Context,
}

impl Conditioning {
    /// Rows of several, one after another.
    pub(crate) fn cat(rows: &[Rc<Conditioning>]) -> Self {
        Self { cross: Context::cat(&rows.iter().map(|row| &row.cross).collect::<Vec<_>>()) }
    }
}
