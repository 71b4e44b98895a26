//! Normal noise as `torch.randn` draws it in float32 on the CPU from `torch.Generator().manual_seed(seed)`.
//!
//! Source: ATen `MT19937RNGEngine.h`, `CPUGeneratorImpl.cpp`, `native/cpu/DistributionTemplates.h` (`normal_fill`).
//! Values agree with torch to a unit or two in the last place, which is what its own vectorised and scalar kernels
//! differ by.

use std::f32::consts::TAU;

/// torch's generator on the CPU.
#[derive(Debug, Clone)]
pub(super) struct Cpu {
    engine: Mt19937,
    /// The second normal of the last pair, if nobody took it yet (small draws only).
    spare: Option<f64>,
}

/// Draws of at least this many values fill a buffer with uniforms first and transform it in blocks.
const BLOCK: usize = 16;

impl Cpu {
    /// The generator of a seed, of which torch's engine knows only the low 32 bits.
    pub(super) fn new(seed: u64) -> Cpu {
        Cpu { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// The next `torch.randn(n)`. How values are consumed depends on `n`, so drawing in pieces gives other noise.
    pub(super) fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.next_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        values.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !n.is_multiple_of(BLOCK) {
            // The rest is made whole by drawing the last block anew, over values already made.
            let tail = &mut values[n - BLOCK..];
            tail.iter_mut().for_each(|value| *value = self.uniform());
            box_muller(tail);
        }
        values
    }

    /// A float32 uniform in [0, 1): 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.engine.next() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// A float64 uniform in [0, 1): 53 bits of two words, the first one high.
    fn uniform_double(&mut self) -> f64 {
        let high = u64::from(self.engine.next());
        let word = high << 32 | u64::from(self.engine.next());
        (word & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    /// A single normal, made in pairs in float64.
    fn next_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_double(), self.uniform_double());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}

/// Sixteen uniforms to sixteen normals: the first eight give radii, the last eight angles.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (u1, u2) in first.iter_mut().zip(second) {
        let radius = (-2.0 * f64::from(1.0 - *u1).ln()).sqrt();
        // The angle is rounded to float32 as in torch; the rest is done in more than enough precision.
        let (sin, cos) = f64::from(TAU * *u2).sin_cos();
        *u1 = (radius * cos) as f32;
        *u2 = (radius * sin) as f32;
    }
}

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// The Mersenne Twister (Matsumoto & Nishimura 1998).
#[derive(Clone)]
struct Mt19937 {
    state: Box<[u32; WORDS]>,
    next: usize,
}

impl std::fmt::Debug for Mt19937 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mt19937").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Mt19937 {
    fn new(seed: u32) -> Mt19937 {
        let mut state = Box::new([seed; WORDS]);
        for i in 1..WORDS {
            let before = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { state, next: WORDS }
    }

    fn next(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % WORDS] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }
}
