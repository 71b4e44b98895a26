//! Seeded random numbers: the same seed gives the same load.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Independent numbers for each `stream` of one seed, so that cancels do not move arrivals.
    pub(crate) fn stream(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let base = mixed.bits();
        Self(base ^ stream.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// 64 of them.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly below `count`, which is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// Exponential with that mean: the time between two arrivals of a Poisson process.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_and_a_seed_repeats_them() {
        let gaps = |seed| {
            let mut random = Random::stream(seed, 1);
            (0..100_000).map(|_| random.exponential(0.02)).collect::<Vec<_>>()
        };
        let drawn = gaps(7);
        assert_eq!(drawn, gaps(7));
        assert_ne!(drawn[..10], gaps(8)[..10]);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        // The mean of n exponentials has a standard error of mean / √n, here 0.3 %; its deviation equals its mean.
        assert!((mean / 0.02 - 1.0).abs() < 0.015, "{mean}");
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.03, "{variance}");
        let longer = drawn.iter().filter(|gap| **gap > 0.02).count() as f64 / drawn.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.01, "{longer}");
    }

    #[test]
    fn streams_of_a_seed_differ() {
        assert_ne!(Random::stream(1, 1).bits(), Random::stream(1, 2).bits());
        let mut random = Random::stream(1, 1);
        let mut seen = [0; 3];
        (0..3000).for_each(|_| seen[random.below(3)] += 1);
        assert!(seen.iter().all(|count| (900..1100).contains(count)), "{seen:?}");
    }
}
