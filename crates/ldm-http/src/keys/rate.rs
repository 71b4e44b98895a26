//! How often somebody may ask for work: a bucket that holds `burst` requests and fills up steadily (GCRA).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};

use crate::error::ApiError;

/// Addresses that are remembered at most; beyond it those that are new share a bucket.
const MOST_PEERS: usize = 1 << 16;
/// How often the remembered addresses are looked through when there are too many, in requests.
const SWEEP: u32 = 1024;

/// Requests per minute in the long run, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per minute.
    pub per_minute: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

impl Rate {
    fn quota(self) -> Quota {
        Quota::per_minute(self.per_minute).allow_burst(self.burst)
    }

    /// How long it takes until so many more requests are allowed.
    fn refill(self, requests: u32) -> Duration {
        Duration::from_secs(60).mul_f64(f64::from(requests) / f64::from(self.per_minute.get()))
    }
}

/// Where somebody stands: what their answers say of it (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    rate: Rate,
    /// Requests that may come now.
    remaining: u32,
}

impl Standing {
    /// Writes it down; drafts up to 07 had three headers where there is one now.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let (quota, burst, remaining) = (self.rate.per_minute, self.rate.burst, self.remaining);
        let reset = whole(self.rate.refill(burst.get().saturating_sub(remaining)));
        let told = [
            ("ratelimit-policy", format!("\"requests\";q={quota};w=60;burst={burst}")),
            ("ratelimit", format!("\"requests\";r={remaining};t={reset}")),
            ("ratelimit-limit", quota.to_string()),
            ("ratelimit-remaining", remaining.to_string()),
            ("ratelimit-reset", reset.to_string()),
        ];
        for (name, value) in told {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Seconds, rounded up.
fn whole(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// One request too many: when the next is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooSoon {
    rate: Rate,
    pub(super) wait: Duration,
}

impl TooSoon {
    pub(super) fn standing(&self) -> Standing {
        Standing { rate: self.rate, remaining: 0 }
    }

    pub(super) fn error(&self) -> ApiError {
        let Rate { per_minute, burst } = self.rate;
        let message =
            format!("more than {per_minute} requests per minute, {burst} at once; the next is allowed after `retry-after`");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).later(self.wait)
    }
}

type Limiter<K, S> = RateLimiter<K, S, DefaultClock, StateInformationMiddleware>;

fn verdict<I: governor::clock::Reference>(
    rate: Rate,
    outcome: Result<StateSnapshot, NotUntil<I>>,
    now: I,
) -> Result<Standing, TooSoon> {
    match outcome {
        Ok(state) => Ok(Standing { rate, remaining: state.remaining_burst_capacity() }),
        Err(until) => Err(TooSoon { rate, wait: until.wait_time_from(now) }),
    }
}

/// What one key has left.
pub(crate) struct Bucket {
    rate: Rate,
    limiter: Limiter<NotKeyed, InMemoryState>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        let limiter = RateLimiter::direct(rate.quota()).with_middleware::<StateInformationMiddleware>();
        Self { rate, limiter }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn take(&self) -> Result<Standing, TooSoon> {
        verdict(self.rate, self.limiter.check(), self.limiter.clock().now())
    }
}

/// Who a connection comes from, as far as the socket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// What shares a bucket: an IPv4 address, or the 64 bits of an IPv6 address that one customer has.
    fn group(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

/// What each address has left.
pub(crate) struct Peers {
    rate: Rate,
    limiter: Limiter<IpAddr, HashMapStateStore<IpAddr>>,
    crowded: AtomicU32,
}

impl Peers {
    pub(super) fn new(rate: Rate) -> Self {
        let limiter = RateLimiter::hashmap(rate.quota()).with_middleware::<StateInformationMiddleware>();
        Self { rate, limiter, crowded: AtomicU32::new(0) }
    }

    pub(super) fn take(&self, peer: Peer) -> Result<Standing, TooSoon> {
        let mut group = peer.group();
        if self.limiter.len() >= MOST_PEERS {
            if self.crowded.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP) {
                self.limiter.retain_recent();
            }
            group = Ipv4Addr::UNSPECIFIED.into();
        }
        verdict(self.rate, self.limiter.check_key(&group), self.limiter.clock().now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate { per_minute: NonZeroU32::new(per_minute).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    #[test]
    fn a_bucket_is_emptied_and_says_when_there_is_more() {
        // One request per minute, so that no test is slow enough for the bucket to fill up.
        let bucket = Bucket::new(rate(1, 3));
        let left: Vec<_> = (0..3).map(|_| bucket.take().unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let late = bucket.take().unwrap_err();
        assert!(late.wait > Duration::from_secs(50) && late.wait <= Duration::from_secs(60), "{late:?}");
        let mut headers = HeaderMap::new();
        late.standing().write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"requests\";q=1;w=60;burst=3");
        assert_eq!(headers["ratelimit"], "\"requests\";r=0;t=180");
        assert_eq!(late.error().code, "rate_limited");
    }

    #[test]
    fn addresses_have_a_bucket_each_and_a_network_of_one_customer_has_one() {
        let peers = Peers::new(rate(1, 1));
        let take = |address: &str| peers.take(Peer(address.parse().unwrap())).is_ok();
        assert!(take("10.0.0.1") && take("10.0.0.2") && !take("10.0.0.1"));
        assert!(!take("::ffff:10.0.0.2"), "the same address in IPv6's clothes");
        assert!(take("2001:db8:1:2::1") && !take("2001:db8:1:2:ffff::9") && take("2001:db8:1:3::1"));
    }
}
