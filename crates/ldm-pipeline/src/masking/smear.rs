//! Colours smeared into what a mask hides, from coarse to fine (`fill` of stable-diffusion-webui's `modules/masking.py`).

use image::{ImageBuffer, Rgba, imageops};
use ldm_core::{Plane, Raster};

/// Standard deviations in pixels, and how often each is laid over what is there.
const ROUNDS: [(f32, usize); 5] = [(256., 1), (64., 1), (16., 2), (4., 4), (2., 2)];

/// The picture with the colours around the mask in place of what it hides (255). Where nothing is hidden its bytes stay.
pub(super) fn smeared(picture: &Raster, mask: &Plane) -> Raster {
    let (width, height) = (picture.width(), picture.height());
    // Premultiplied: what is hidden has neither colour nor weight.
    let seen = |(rgb, &mask): (&[u8], &u8)| {
        let alpha = f32::from(255 - mask) / 255.;
        [rgb[0], rgb[1], rgb[2]].map(|level| f32::from(level) / 255. * alpha).into_iter().chain([alpha])
    };
    let seen: Vec<f32> = picture.data().chunks_exact(3).zip(mask.data()).flat_map(seen).collect();
    let Some(seen) = ImageBuffer::<Rgba<f32>, _>::from_raw(width, height, seen) else { return picture.clone() };
    let mut sum = vec![0f32; seen.as_raw().len()];
    for (sigma, times) in ROUNDS {
        let blurred = imageops::fast_blur(&seen, sigma);
        for _ in 0..times {
            let pixels = sum.chunks_exact_mut(4).zip(blurred.as_raw().chunks_exact(4));
            pixels.for_each(|(below, above)| {
                let left = 1. - above[3];
                below.iter_mut().zip(above).for_each(|(below, above)| *below = above + *below * left);
            });
        }
    }
    let level = |value: f32, alpha: f32| if alpha > 0. { (value / alpha * 255.).round().clamp(0., 255.) as u8 } else { 0 };
    let pixels = picture.data().chunks_exact(3).zip(mask.data()).zip(sum.chunks_exact(4));
    let bytes = pixels.flat_map(|((own, &mask), smeared)| match mask {
        0 => [own[0], own[1], own[2]],
        _ => [0, 1, 2].map(|channel| level(smeared[channel], smeared[3])),
    });
    // As many pixels as before.
    Raster::new(width, height, bytes.collect::<Vec<u8>>()).unwrap_or_else(|_| picture.clone())
}
