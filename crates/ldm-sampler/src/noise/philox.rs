//! Normal noise as `torch.randn` draws it in float32 on an NVIDIA GPU: Philox-4x32-10 and Box-Muller (A1111's "NV"
//! source, `modules/rng_philox.py`; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

/// The multipliers of a round.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key grows by from round to round.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// The counter-based generator. As A1111 has it, every draw takes one number of the first word of the counter and a
/// draw's `i`-th value is subsequence `i`: what a GPU does for draws that are no larger than one wave of its threads.
#[derive(Debug, Clone)]
pub(super) struct Philox {
    key: [u32; 2],
    /// Draws made.
    offset: u32,
}

impl Philox {
    /// The generator of a seed, all 64 bits of it.
    pub(super) fn new(seed: u64) -> Philox {
        Philox { key: [seed as u32, (seed >> 32) as u32], offset: 0 }
    }

    /// The next draw of `n` normals.
    pub(super) fn normal(&mut self, n: usize) -> Vec<f32> {
        let offset = self.offset;
        self.offset = self.offset.wrapping_add(1);
        (0..n).map(|i| box_muller(philox([offset, 0, i as u32, 0], self.key))).collect()
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [first, second] =
            [(MULTIPLIERS[0], counter[0]), (MULTIPLIERS[1], counter[2])].map(|(m, c)| u64::from(m) * u64::from(c));
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The sine half of a pair; curand keeps the cosine for a second number that torch does not ask for.
fn box_muller([x, y, ..]: [u32; 4]) -> f32 {
    // 2^-32 and 2 pi 2^-32, rounded to float32 as curand has them.
    let (unit, turn) = (f64::from(2.328_306_4e-10_f32), f64::from((2.328_306_4e-10 * 6.283_185_5) as f32));
    let (u, v) = (f64::from(x) * unit + unit / 2.0, f64::from(y) * turn + turn / 2.0);
    ((-2.0 * u.ln()).sqrt() * v.sin()) as f32
}
