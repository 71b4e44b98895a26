//! A Brownian path over noise levels, refined by halves wherever it is asked (Li et al. 2020, algorithm 3): the same
//! seed and ends give the same path, whatever is asked of it and in whatever order.
//!
//! The tree is that of torchsde's `BrownianTree`, with its seeds, its resolution and its noise, so that seeds mean what
//! they mean in k-diffusion, diffusers and A1111.

use super::RandomSource;
use super::seeds::first_word;
use crate::Interval;

/// How many points of the path are remembered: a step asks for its beginning twice, and for two points more.
const REMEMBERED: usize = 4;
/// Halvings of the widest path of a table of noise levels (4096) down to the resolution of 1e-6, and a few more.
const DEPTH: u64 = 48;

/// One picture's path.
#[derive(Debug, Clone)]
pub(super) struct BrownianTree {
    seed: u64,
    source: RandomSource,
    low: f64,
    high: f64,
    size: usize,
    /// Points of the path, oldest first, and the path there.
    known: Vec<(f64, Vec<f64>)>,
}

impl BrownianTree {
    /// A path of `size` numbers that starts at zero at the lowest level of an interval's run.
    pub(super) fn new(seed: u64, source: RandomSource, interval: &Interval, size: usize) -> BrownianTree {
        BrownianTree { seed, source, low: interval.low, high: interval.high, size, known: Vec::new() }
    }

    /// Whether this is the path of an interval's run.
    pub(super) fn fits(&self, interval: &Interval, size: usize) -> bool {
        (self.low, self.high, self.size) == (interval.low, interval.high, size)
    }

    /// Standard normals: the increment from one level to another over the root of their distance. Levels closer than the
    /// resolution have no increment.
    pub(super) fn increment(&mut self, from: f64, to: f64) -> Vec<f32> {
        let scale = (to - from).abs().sqrt().recip();
        if !scale.is_finite() {
            return vec![0.0; self.size];
        }
        let (before, after) = (self.at(from), self.at(to));
        before.iter().zip(&after).map(|(before, after)| (scale * (after - before)) as f32).collect()
    }

    /// The path at a level.
    fn at(&mut self, level: f64) -> Vec<f64> {
        let level = rounded(level.clamp(self.low, self.high));
        if let Some((_, path)) = self.known.iter().find(|(known, _)| *known == level) {
            return path.clone();
        }
        let path = self.descend(level);
        if self.known.len() == REMEMBERED {
            self.known.remove(0);
        }
        self.known.push((level, path.clone()));
        path
    }

    fn descend(&self, level: f64) -> Vec<f64> {
        let (mut start, mut end) = (rounded(self.low), rounded(self.high));
        let mut path = vec![0.0; self.size];
        let deviation = (self.high - self.low).sqrt();
        let mut rise: Vec<f64> = self.normal(&[]).map(|z| deviation * z).collect();
        let mut place = 0;
        for depth in 0..DEPTH {
            if level <= start {
                return path;
            }
            if level >= end {
                break;
            }
            // A bridge: the path half way is normal around the mean of its ends.
            let middle = rounded(0.5 * (end + start));
            let (left, right, whole) = (middle - start, end - middle, end - start);
            let deviation = (left * right / whole).sqrt();
            let noise = self.normal(&[place, depth]);
            let left_rise: Vec<f64> = rise.iter().zip(noise).map(|(rise, z)| left / whole * rise + deviation * z).collect();
            place *= 2;
            if level <= middle {
                (end, rise) = (middle, left_rise);
            } else {
                start = middle;
                rise.iter_mut().zip(&left_rise).for_each(|(rise, left)| *rise -= left);
                path.iter_mut().zip(&left_rise).for_each(|(path, left)| *path += left);
                place += 1;
            }
        }
        path.iter().zip(&rise).map(|(path, rise)| path + rise).collect()
    }

    /// The normals of a node of the tree.
    fn normal(&self, node: &[u64]) -> impl Iterator<Item = f64> + use<> {
        let seed = u64::from(first_word(self.seed, node));
        self.source.generator(seed).normal(self.size).into_iter().map(f64::from)
    }
}

/// A level at the tree's resolution of six decimals, rounded as Python does.
fn rounded(level: f64) -> f64 {
    format!("{level:.6}").parse().unwrap_or(level)
}
