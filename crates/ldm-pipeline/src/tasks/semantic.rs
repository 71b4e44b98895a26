//! A picture from a map of classes, which lies beside the latent, made small by a learned layer (paper, Section 4.3.2).

use ldm_core::Failure;
use ldm_core::task::Semantic;
use ldm_nn::conditioners::spatial_rescaler::one_hot;
use tch::{Kind, Tensor};

use super::{Bench, Start, txt2img};
use crate::system::Concat;

pub(super) fn start(bench: &mut Bench<'_>, work: &Semantic) -> Result<Start, Failure> {
    let Concat::Semantic { rescaler, classes } = bench.concat else { return Err(bench.unsupported()) };
    let (width, height) = (bench.request.width, bench.request.height);
    let map = work.map.nearest(width, height);
    let labels = Tensor::from_slice(map.data()).view([1, i64::from(height), i64::from(width)]).to_kind(Kind::Int64);
    let labels = one_hot(&labels.to_device(bench.stage.device()), *classes, bench.stage.kind()); // [1, classes, H, W]
    let concat = rescaler.forward(&labels).to_kind(Kind::Float); // [1, C', H/f, W/f]
    let latent = txt2img::start(bench);
    Ok(Start { concat: Some(concat), ..Start::at(latent) })
}
