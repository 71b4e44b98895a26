//! Independent seeds from one seed and a place in a tree: numpy's `SeedSequence` (M. E. O'Neill's seed_seq_fe), which
//! torchsde seeds the nodes of a Brownian tree with.

/// Words of the entropy pool (torchsde `BrownianTree`).
const POOL: usize = 24;
/// Words that are hashed into a node's pool: the pool's worth of entropy, and two words or more that name the node.
const SHIFT: u32 = 16;

/// The first word of `SeedSequence(entropy, spawn_key, pool_size=24).generate_state(n)`.
pub(super) fn first_word(entropy: u64, spawn_key: &[u64]) -> u32 {
    let mut words = split(entropy);
    if !spawn_key.is_empty() {
        words.resize(POOL, 0);
    }
    words.extend(spawn_key.iter().flat_map(|key| split(*key)));
    let pool = pool(&words);
    // The first step of the output hash.
    let mut word = pool[0] ^ 0x8b51_f9dd;
    word = word.wrapping_mul(0x8b51_f9dd_u32.wrapping_mul(0x58f3_8ded));
    word ^ (word >> SHIFT)
}

/// The 32-bit words of a number, low first, at least one.
fn split(number: u64) -> Vec<u32> {
    match (number as u32, (number >> 32) as u32) {
        (low, 0) => vec![low],
        (low, high) => vec![low, high],
    }
}

fn pool(words: &[u32]) -> [u32; POOL] {
    let mut factor = 0x43b0_d7e5_u32;
    let mut hash = |word: u32| {
        let mixed = word ^ factor;
        factor = factor.wrapping_mul(0x931e_8875);
        let mixed = mixed.wrapping_mul(factor);
        mixed ^ (mixed >> SHIFT)
    };
    let mix = |x: u32, y: u32| {
        let mixed = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
        mixed ^ (mixed >> SHIFT)
    };
    let mut pool = [0; POOL];
    for (at, slot) in pool.iter_mut().enumerate() {
        *slot = hash(words.get(at).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hash(pool[from]));
        }
    }
    for word in words.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash(*word));
        }
    }
    pool
}
