//! Lanczos resampling of bytes, to the last level as Pillow's `Image.resize(size, Resampling.LANCZOS)` gives them.
//!
//! What a diffusion model is shown shall be what its reference was shown. The crates that resize round otherwise, by a level here and
//! there, which moves a sampling by 1e-3. The rules are those of Pillow's `Resample.c`: across, then down, each pass rounded to a byte;
//! weights in double precision, normalised, then in 22 bits of fixed point.

use std::f64::consts::PI;

/// Half the filter's width, in pixels of the smaller picture.
const SUPPORT: f64 = 3.0;
/// Bits behind the point.
const BITS: u32 = 22;

/// What one pixel of the result is made of: the first source pixel, and the weights of it and those after it.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if (-SUPPORT..SUPPORT).contains(&x) { sinc(x) * sinc(x / SUPPORT) } else { 0.0 }
}

/// The taps of every pixel of a line of `to` made of one of `from`.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Made smaller, the filter is as wide as SUPPORT pixels of the result.
    let width = scale.max(1.0);
    let of = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        let first = (centre - SUPPORT * width + 0.5).max(0.0) as usize;
        let end = ((centre + SUPPORT * width + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end).map(|at| lanczos((at as f64 - centre + 0.5) / width)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        Taps { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(of).collect()
}

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Pixels of `C` bytes of a picture of the size `from`, at the size `to`; sizes are widths and heights, and none is 0.
pub(crate) fn resize<const C: usize>(pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    let mut rows = pixels.to_vec();
    if from[0] != to[0] {
        let across = taps(from[0], to[0]);
        rows =
            pixels.chunks_exact(from[0] * C).flat_map(|row| across.iter().flat_map(|taps| across_at::<C>(row, taps))).collect();
    }
    if from[1] == to[1] {
        return rows;
    }
    let bytes = to[0] * C;
    let mut out = Vec::with_capacity(bytes * to[1]);
    let mut sums = vec![0i64; bytes];
    for taps in taps(from[1], to[1]) {
        sums.fill(0);
        for (row, weight) in rows[taps.first * bytes..].chunks_exact(bytes).zip(&taps.weights) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += i64::from(*value) * i64::from(*weight));
        }
        out.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    out
}

fn across_at<const C: usize>(row: &[u8], taps: &Taps) -> [u8; C] {
    let mut sums = [0i64; C];
    for (pixel, weight) in row[taps.first * C..].chunks_exact(C).zip(&taps.weights) {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i64::from(*value) * i64::from(*weight));
    }
    sums.map(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow 13.0.0: `Image.frombytes("L", (5, 1), bytes([0, 255, 30, 200, 90])).resize((n, 1), Image.Resampling.LANCZOS)`.
    #[test]
    fn lines_are_those_of_pillow() {
        let row = [0, 255, 30, 200, 90];
        let pillow: [&[u8]; 4] = [
            &[106, 137, 128],
            &[72, 164, 115, 131],
            &[0, 121, 255, 90, 52, 195, 151, 73],
            &[0, 43, 185, 254, 137, 30, 84, 191, 182, 112, 68],
        ];
        for wanted in pillow {
            assert_eq!(resize::<1>(&row, [5, 1], [wanted.len(), 1]), wanted);
            assert_eq!(resize::<1>(&row, [1, 5], [1, wanted.len()]), wanted, "down as across");
            let thrice: Vec<u8> = row.iter().flat_map(|level| [*level; 3]).collect();
            assert_eq!(
                resize::<3>(&thrice, [5, 1], [wanted.len(), 1]),
                wanted.iter().flat_map(|level| [*level; 3]).collect::<Vec<_>>()
            );
        }
    }

    /// Pillow 13.0.0, the same of `Image.frombytes("RGB", (7, 5), bytes(i * 37 % 251 for i in range(105)))`: sums of all bytes, each
    /// times its place modulo 251.
    #[test]
    fn pictures_are_those_of_pillow() {
        let bytes: Vec<u8> = (0..105).map(|i| (i * 37 % 251) as u8).collect();
        for (width, height, wanted) in SUMS {
            let out = resize::<3>(&bytes, [7, 5], [width, height]);
            assert_eq!(out.len(), width * height * 3);
            let sum: u64 = out.iter().enumerate().map(|(at, byte)| u64::from(*byte) * (at as u64 % 251)).sum();
            assert_eq!(sum, wanted, "{width}x{height}");
        }
    }

    const SUMS: [(usize, usize, u64); 5] =
        [(3, 2, 18984), (7, 9, 2179887), (14, 5, 2678920), (12, 11, 5226032), (40, 23, 41920584)];
}
