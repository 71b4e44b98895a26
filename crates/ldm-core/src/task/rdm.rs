//! A picture from embeddings of a prompt and its retrieved neighbours (retrieval-augmented diffusion).

use super::img2img::required;
use crate::{NeighborBounds, Violation, Violations};

/// What only retrieval-augmented sampling needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rdm {
    /// CLIP embeddings, the prompt's first; their length does not matter, they are normalised.
    pub neighbors: Vec<Vec<f32>>,
}

impl Rdm {
    /// Checks the embeddings; `None` when there are none.
    pub(crate) fn check(neighbors: Option<Vec<Vec<f32>>>, bounds: NeighborBounds, bad: &mut Violations) -> Option<Self> {
        let neighbors = required("neighbours", neighbors, bad)?;
        if neighbors.is_empty() || neighbors.len() > bounds.count as usize {
            let message = format!("`neighbours` must hold from 1 to {} embeddings, not {}", bounds.count, neighbors.len());
            bad.push(Violation::new("neighbours", message, format!("1..={}", bounds.count), neighbors.len()));
        }
        for (index, one) in neighbors.iter().take(bounds.count as usize).enumerate() {
            let field = format!("neighbours[{index}]");
            if one.len() != bounds.width as usize {
                let message = format!("`{field}` must hold {} numbers, not {}", bounds.width, one.len());
                bad.push(Violation::new(&field, message, bounds.width, one.len()));
            } else if !one.iter().all(|value| value.is_finite()) || one.iter().all(|&value| value == 0.0) {
                let message = format!("`{field}` must hold finite numbers that are not all 0");
                bad.push(Violation::new(&field, message, "finite, not all 0", "NaN, infinite, or all 0"));
            }
        }
        Some(Self { neighbors })
    }
}
