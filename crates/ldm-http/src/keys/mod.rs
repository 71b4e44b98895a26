//! Keys: who is let in, on whose behalf, and how much of the service one caller may have.
//!
//! A key is a secret of 32 random bytes; the file of keys holds its SHA-256 alone. Every request goes through [`admit`] before
//! anything of it is read: it becomes a [`Caller`](crate::caller::Caller), or an answer that says what is missing.

mod admit;
mod book;
mod file;
#[cfg(test)]
mod limit_tests;
mod places;
mod rate;
mod shown;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use book::{Keys, KeysError, Secret};
pub use rate::Rate;

pub(crate) use admit::admit;
pub(crate) use places::Places;
pub(crate) use rate::{Bucket, Peer, Peers};

/// Who is let in. By default there are no keys, and everybody is.
#[derive(Clone, Default)]
pub struct Door {
    pub(crate) keys: Option<Keys>,
    pub(crate) anonymous: bool,
    pub(crate) open_metrics: bool,
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Door {
    /// Only who shows one of these keys.
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Whether those who show no key are served all the same, as one tenant. Without keys it makes no difference.
    pub fn anonymous(mut self, anonymous: bool) -> Self {
        self.anonymous = anonymous;
        self
    }

    /// Whether `/metrics` is there without a key. Without keys it always is.
    pub fn open_metrics(mut self, open: bool) -> Self {
        self.open_metrics = open;
        self
    }

    /// How often those without a key may ask for work, each address by itself.
    pub fn peer_rate(mut self, rate: Option<Rate>) -> Self {
        self.peers = rate.map(|rate| Arc::new(Peers::new(rate)));
        self
    }
}
