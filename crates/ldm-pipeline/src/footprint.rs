//! How much memory a model takes, from its files' headers.
//!
//! An estimate: parameters in the dtype that they are served in. On a CPU, 3×3 convolutions count 16/9 of that, because they are
//! kept in Winograd's domain, where nine numbers become sixteen; other packed weights are as large as they were. The mapped file
//! behind them is the page cache's, which the system takes back when it needs to.

use ldm_nn::Checkpoint;
use tch::Kind;

use crate::blueprint::{Blueprint, ConcatPlan, ConditionerPlan};
use crate::options::{Device, LoadOptions};

/// The checkpoints of all networks but the first stage.
fn checkpoints(blueprint: &Blueprint) -> Vec<&Checkpoint> {
    let mut all = vec![&blueprint.unet.checkpoint];
    match &blueprint.conditioner {
        ConditionerPlan::None | ConditionerPlan::Neighbors { .. } => {}
        ConditionerPlan::Text(text) => all.push(&text.network.checkpoint),
        ConditionerPlan::TextPair { first, second, .. } => {
            all.extend(first.iter().chain([second]).map(|text| &text.network.checkpoint));
        }
        ConditionerPlan::Bert { network, .. } | ConditionerPlan::Layout { network, .. } => all.push(&network.checkpoint),
        ConditionerPlan::Class { network, .. } => all.push(&network.checkpoint),
    }
    if let ConcatPlan::Semantic(part) = &blueprint.concat {
        all.push(&part.checkpoint);
    }
    all.extend(blueprint.preview.as_ref().map(|part| &part.checkpoint));
    all
}

/// Numbers stored, all networks together.
pub(crate) fn parameters(blueprint: &Blueprint) -> u64 {
    let others: u64 = checkpoints(blueprint).into_iter().map(Checkpoint::parameters).sum();
    others + blueprint.stage.checkpoint.parameters()
}

/// Bytes of the model when it is loaded.
pub(crate) fn bytes(blueprint: &Blueprint, options: &LoadOptions) -> u64 {
    let kind = options.dtype.kind();
    let stage = if kind == Kind::Half && blueprint.stage.config.force_upcast() { Kind::Float } else { kind };
    let on_cpu = options.device == Device::Cpu;
    let others: u64 = checkpoints(blueprint).into_iter().map(|checkpoint| taken(checkpoint, kind, on_cpu)).sum();
    others + taken(&blueprint.stage.checkpoint, stage, on_cpu)
}

fn taken(checkpoint: &Checkpoint, kind: Kind, on_cpu: bool) -> u64 {
    let winograd = on_cpu && matches!(kind, Kind::Float | Kind::BFloat16);
    let shapes = checkpoint.names().filter_map(|name| checkpoint.shape(name));
    let numbers = shapes.map(|shape| {
        let count = shape.iter().product::<i64>().unsigned_abs();
        if winograd && shape.ends_with(&[3, 3]) && shape.len() == 4 { count * 16 / 9 } else { count }
    });
    numbers.sum::<u64>() * kind.elt_size_in_bytes() as u64
}
