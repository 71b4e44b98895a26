//! The tensors that a description asks for: names of the original classes, without prefix, and shapes.

mod conditioner;
mod first_stage;
mod unet;

pub use conditioner::conditioner;
pub use first_stage::first_stage;
pub use unet::unet;

/// A tensor by name, with its shape.
pub type Expected = Vec<(String, Vec<u64>)>;

/// Collects names and shapes under a path.
#[derive(Default)]
struct Names {
    list: Expected,
}

impl Names {
    fn tensor(&mut self, name: String, shape: &[u64]) {
        self.list.push((name, shape.to_vec()));
    }

    /// A weight of this shape, and a bias as long as its first dimension.
    fn layer(&mut self, path: &str, shape: &[u64]) {
        self.tensor(format!("{path}.weight"), shape);
        self.tensor(format!("{path}.bias"), &shape[..1]);
    }

    fn norm(&mut self, path: &str, width: u64) {
        self.layer(path, &[width]);
    }

    fn conv(&mut self, path: &str, from: u64, to: u64, side: u64) {
        self.layer(path, &[to, from, side, side]);
    }

    fn linear(&mut self, path: &str, from: u64, to: u64) {
        self.layer(path, &[to, from]);
    }

    fn weight(&mut self, path: &str, from: u64, to: u64) {
        self.tensor(format!("{path}.weight"), &[to, from]);
    }
}

/// The name under which the averaged parameter of a UNet's parameter is stored: `model_ema.`, then `diffusion_model.` and the
/// name without dots (`LitEma` in `ldm/modules/ema.py`). It cannot be read backwards: go from the names that are expected.
pub fn ema_name(name: &str) -> String {
    format!("model_ema.diffusion_model{}", name.replace('.', ""))
}
