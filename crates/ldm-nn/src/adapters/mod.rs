//! Low-rank adapters (LoRA; Hu et al. 2021): files, the layers that they are for, and their way into a network.
//!
//! A network's layers carry empty slots. [`Slots::with`] puts branches into them for one call, each for some rows of the batch:
//! `y[rows] += strength · alpha/rank · up(down(x[rows]))`, so that jobs with different adapters share a call. What a deployment
//! always wants is [merged](crate::Weights::merging) into the weights instead, when they are read.

mod file;
mod low_rank;
mod names;
mod slot;

use std::collections::BTreeMap;
use std::rc::Rc;

pub use file::{AdapterError, AdapterProblem, MAX_BYTES, MAX_RANK};
pub use low_rank::LowRank;
pub use names::{Part, Targets};
pub use slot::{Attachment, Slots};
pub(crate) use slot::{Slot, SlotsInTheMaking};

use tch::{Device, Kind};

/// Changes of layers, by the layer's path.
pub type Layers = BTreeMap<String, LowRank>;

/// One adapter: what it changes in the denoiser and in the text encoders.
#[derive(Clone, Debug, Default)]
pub struct Adapter {
    /// The denoiser's layers.
    pub unet: Rc<Layers>,
    /// Those of the text encoders; the second is SDXL's larger one.
    pub text: [Rc<Layers>; 2],
}

impl Adapter {
    /// The same in another dtype, on a device.
    pub fn to(&self, kind: Kind, device: Device) -> Self {
        let to = |layers: &Layers| {
            Rc::new(layers.iter().map(|(path, layer)| (path.clone(), layer.to(kind, device))).collect::<Layers>())
        };
        Self { unet: to(&self.unet), text: [to(&self.text[0]), to(&self.text[1])] }
    }

    /// The changes of one part.
    pub fn part(&self, part: Part) -> &Rc<Layers> {
        match part {
            Part::Unet => &self.unet,
            Part::Text => &self.text[0],
            Part::Text2 => &self.text[1],
        }
    }

    /// Layers that it changes.
    pub fn len(&self) -> usize {
        self.unet.len() + self.text[0].len() + self.text[1].len()
    }

    /// Whether it changes nothing; no file does that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
