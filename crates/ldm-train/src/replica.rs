//! The trained networks, once per thread over the same parameters, so that the parts of a batch run side by side.
//!
//! Two threads with one libtorch thread each do nearly twice the work of one; two libtorch threads inside one step do not,
//! since most of a step's operations are small.

use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;
use ldm_nn::{Checkpoint, ClipTextConfig, ClipTextModel, UNet2DCondition, UNet2DConditionConfig, Variables, Weights};
use tch::{Device, Kind, Tensor};

use crate::optimizer::gradient;

/// The denoiser and its text encoder.
pub(crate) struct Replica {
    pub(crate) unet: UNet2DCondition,
    pub(crate) text: ClipTextModel,
    /// Those of the denoiser, then those of the text encoder.
    pub(crate) variables: Variables,
    /// How many of them are the denoiser's.
    pub(crate) unet_count: usize,
}

/// Part of a batch.
pub(crate) struct Part {
    /// Noised latents, `[B, C, H, W]`.
    pub(crate) x: Tensor,
    /// Timesteps, `[B]`.
    pub(crate) t: Tensor,
    /// Token ids, `[B, L]`.
    pub(crate) ids: Tensor,
    /// What the network should predict, `[B, C, H, W]`.
    pub(crate) target: Tensor,
    /// Weights of the squared errors, `[B, 1, 1, 1]`.
    pub(crate) weight: Tensor,
}

impl Replica {
    /// Fresh networks, or those of the exported model `init`.
    pub(crate) fn new(unet: &UNet2DConditionConfig, text: &ClipTextConfig, init: Option<&Path>, device: Device) -> Result<Self> {
        let (unet_weights, text_weights) = (Weights::fresh(device), Weights::fresh(device));
        let unet = UNet2DCondition::new(&unet_weights, unet);
        let text = ClipTextModel::new(&text_weights, text);
        let (mut variables, text_variables) = (unet_weights.into_variables(), text_weights.into_variables());
        if let Some(init) = init {
            variables.load(&Checkpoint::open(&init.join("unet"), "diffusion_pytorch_model")?)?;
            text_variables.load(&Checkpoint::open(&init.join("text_encoder"), "model")?)?;
        }
        let unet_count = variables.iter().count();
        variables.extend(text_variables);
        Ok(Self { unet, text, variables, unet_count })
    }

    /// Weighted mean squared error of the prediction (paper, Eq. 3) and its gradient.
    fn gradient(&self, part: &Part, kind: Kind) -> (f64, Tensor) {
        let context = self.unet.context(&self.text.forward_as(&part.ids, kind));
        let out = self.unet.forward(&part.x.to_kind(kind), &part.t.to_kind(Kind::Float), &context).to_kind(Kind::Float);
        let loss = ((out - &part.target).square() * &part.weight).mean(Kind::Float);
        (loss.double_value(&[]), gradient(&self.variables, &loss))
    }
}

/// Mean loss over the parts and its gradient: each replica takes the next part when it is free. The sum is in the order of
/// the parts, so the numbers do not depend on how many replicas there are.
pub(crate) fn gradients(replicas: &mut [Replica], parts: Vec<Part>, kind: Kind) -> (f64, Tensor) {
    let count = parts.len();
    let waiting = Mutex::new(parts.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let work = |replica: &mut Replica| {
        loop {
            let next = waiting.lock().expect("no thread panics while it holds the lock").next();
            let Some((index, part)) = next else { return };
            let found = replica.gradient(&part, kind);
            done.lock().expect("no thread panics while it holds the lock").push((index, found));
        }
    };
    match replicas {
        [replica] => work(replica),
        replicas => std::thread::scope(|scope| {
            for replica in replicas {
                scope.spawn(|| work(replica));
            }
        }),
    }
    let mut done = done.into_inner().expect("no thread panics while it holds the lock");
    done.sort_by_key(|(index, _)| *index);
    let mut done = done.into_iter().map(|(_, found)| found);
    let (mut loss, mut sum) = done.next().expect("a batch has parts");
    tch::no_grad(|| {
        for (more, gradient) in done {
            loss += more;
            let _ = sum.g_add_(&gradient);
        }
        (loss / count as f64, sum.g_mul_scalar_(1. / count as f64))
    })
}
