//! Encoded prompts that are kept for the next request, counted.

use std::hash::Hash;
use std::num::NonZeroUsize;

use ldm_engine::CacheCounts;
use lru::LruCache;

/// The encodings used last.
pub(crate) struct Known<K: Hash + Eq, V> {
    cache: LruCache<K, V>,
    counts: CacheCounts,
}

impl<K: Hash + Eq, V> Known<K, V> {
    pub(crate) fn new(most: NonZeroUsize) -> Self {
        Self { cache: LruCache::new(most), counts: CacheCounts::default() }
    }

    /// The value of that key, computed if it is not there.
    pub(crate) fn get_or_insert(&mut self, key: K, compute: impl FnOnce() -> V) -> &V {
        let counts = &mut self.counts;
        counts.hits += 1;
        self.cache.get_or_insert(key, || {
            (counts.hits, counts.misses) = (counts.hits - 1, counts.misses + 1);
            compute()
        })
    }

    pub(crate) fn clear(&mut self) {
        self.cache.clear();
    }

    pub(crate) fn counts(&self) -> CacheCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_and_misses_are_counted() {
        let mut known = Known::new(NonZeroUsize::MIN.saturating_add(1));
        let found = [1, 2, 1, 3, 2, 2].map(|key| *known.get_or_insert(key, || 10 * key));
        assert_eq!(found, [10, 20, 10, 30, 20, 20]);
        assert_eq!(known.counts(), CacheCounts { hits: 2, misses: 4 });
        known.clear();
        known.get_or_insert(2, || 0);
        assert_eq!(known.counts(), CacheCounts { hits: 2, misses: 5 });
    }
}
