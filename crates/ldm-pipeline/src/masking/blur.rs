//! A Gaussian blur of a mask, across and down, cut where stable-diffusion-webui cuts it: 2.5 standard deviations from the middle.

use ldm_core::Plane;

/// Weights of the middle and of one side, which add up to one with both sides.
fn kernel(sigma: f64) -> Vec<f32> {
    let reach = (2.5 * sigma + 0.5) as usize;
    let weights: Vec<f64> = (0..=reach).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum = 2. * weights.iter().sum::<f64>() - weights[0];
    weights.into_iter().map(|weight| (weight / sum) as f32).collect()
}

/// Place `at` of a line of `length`, mirrored at its ends without repeating them.
fn mirrored(at: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if last == 0 {
        return 0;
    }
    let within = at.rem_euclid(2 * last);
    within.min(2 * last - within) as usize
}

/// The plane blurred by `[across, down]` standard deviations in pixels; 0 leaves it as it is.
pub(super) fn gaussian(plane: &Plane, [across, down]: [f64; 2]) -> Plane {
    let (width, height) = (plane.width() as usize, plane.height() as usize);
    if width == 0 || height == 0 {
        return plane.clone();
    }
    let mut data = plane.data().to_vec();
    if across > 0. {
        let kernel = kernel(across);
        let reach = kernel.len() - 1;
        let mut wide = vec![0f32; width + 2 * reach];
        let mut sum = vec![0f32; width];
        for row in data.chunks_exact_mut(width) {
            for (at, value) in wide.iter_mut().enumerate() {
                *value = f32::from(row[mirrored(at as i64 - reach as i64, width)]);
            }
            sum.iter_mut().zip(&wide[reach..]).for_each(|(sum, value)| *sum = kernel[0] * value);
            for (k, weight) in kernel.iter().enumerate().skip(1) {
                // Both sides at once: what is symmetric stays so to the last bit.
                let sides = wide[reach - k..].iter().zip(&wide[reach + k..]);
                sum.iter_mut().zip(sides).for_each(|(sum, (before, after))| *sum += weight * (before + after));
            }
            row.iter_mut().zip(&sum).for_each(|(value, sum)| *value = rounded(*sum));
        }
    }
    if down > 0. {
        let kernel = kernel(down);
        let source = data.clone();
        let row = |y: i64| {
            let start = mirrored(y, height) * width;
            &source[start..start + width]
        };
        let mut sum = vec![0f32; width];
        for (y, out) in data.chunks_exact_mut(width).enumerate() {
            let y = y as i64;
            sum.iter_mut().zip(row(y)).for_each(|(sum, &value)| *sum = kernel[0] * f32::from(value));
            for (k, weight) in kernel.iter().enumerate().skip(1) {
                let sides = row(y - k as i64).iter().zip(row(y + k as i64));
                sum.iter_mut().zip(sides).for_each(|(sum, (&before, &after))| {
                    *sum += weight * (f32::from(before) + f32::from(after));
                });
            }
            out.iter_mut().zip(&sum).for_each(|(value, sum)| *value = rounded(*sum));
        }
    }
    // As many values as before.
    Plane::new(plane.width(), plane.height(), data).unwrap_or_else(|_| plane.clone())
}

fn rounded(value: f32) -> u8 {
    value.round().clamp(0., 255.) as u8
}
