//! A denoiser on a latent larger than it was trained for: overlapping tiles, blended by their distance to the border, as
//! latent-diffusion's super-resolution does (ddpm.py `apply_model` with `split_input_params`; paper, Section 4.3.2).

use tch::{Kind, Tensor};

/// Starts of tiles of `tile` cells with half of it as the stride over `side` cells; the last one ends where the latent does.
fn starts(side: i64, tile: i64) -> Vec<i64> {
    if side <= tile {
        return vec![0];
    }
    let stride = (tile / 2).max(1);
    let last = side - tile;
    let mut starts: Vec<i64> = (0..).map(|i| i * stride).take_while(|&start| start < last).collect();
    starts.push(last);
    starts
}

/// Weight of each cell of a tile: its distance to the nearest border, as a fraction of the side, from 0.01 to 0.5.
fn weights(height: i64, width: i64, like: &Tensor) -> Tensor {
    let ramp = |side: i64| {
        let at: Vec<f32> = (0..side)
            .map(|i| {
                let x = i as f32 / (side - 1).max(1) as f32;
                x.min(1. - x)
            })
            .collect();
        Tensor::from_slice(&at).to_device(like.device())
    };
    let (rows, columns) = (ramp(height).view([height, 1]), ramp(width).view([1, width]));
    rows.minimum(&columns).clamp(0.01, 0.5)
}

/// `forward` of every tile of `x` `[B, C, H, W]`, blended → `[B, C', H, W]`; the whole at once when it fits one tile.
pub(crate) fn apply(x: &Tensor, tile: i64, forward: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (_, _, height, width) = x.size4().expect("a latent has four dimensions");
    if height <= tile && width <= tile {
        return forward(x);
    }
    let (rows, columns) = (tile.min(height), tile.min(width));
    let weight = weights(rows, columns, x);
    let total = Tensor::zeros([height, width], (Kind::Float, x.device()));
    let mut sum: Option<Tensor> = None;
    for top in starts(height, tile) {
        for left in starts(width, tile) {
            let part = forward(&x.narrow(2, top, rows).narrow(3, left, columns)) * &weight; // [B, C', h, w]
            let sum = sum.get_or_insert_with(|| {
                let (batch, channels, _, _) = part.size4().expect("a latent has four dimensions");
                Tensor::zeros([batch, channels, height, width], (part.kind(), part.device()))
            });
            let _ = sum.narrow(2, top, rows).narrow(3, left, columns).g_add_(&part);
            let _ = total.narrow(0, top, rows).narrow(1, left, columns).g_add_(&weight);
        }
    }
    sum.expect("there is a tile") / total
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn tiles_cover_the_latent_and_blend_to_what_is_local() {
        assert_eq!(starts(64, 128), [0]);
        assert_eq!(starts(128, 128), [0]);
        assert_eq!(starts(200, 128), [0, 64, 72]);
        assert_eq!(starts(256, 128), [0, 64, 128]);
        let x = Tensor::arange(20 * 12, (Kind::Float, Device::Cpu)).view([1, 1, 20, 12]);
        let doubled = apply(&x, 8, |tile| tile * 2.);
        assert!((doubled - x * 2.).abs().max().double_value(&[]) < 1e-3);
    }
}
