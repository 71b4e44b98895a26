//! A picture from noise: what it shows is the conditioning's part.

use tch::Tensor;

use super::Bench;

/// Scaled noise.
pub(super) fn start(bench: &mut Bench<'_>) -> Tensor {
    bench.draw() * bench.plan.init_scale
}
