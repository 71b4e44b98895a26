//! How the load is put on, and for how long.

use std::time::Duration;

use crate::Mix;

/// Requests per second that one process is asked for at most.
const MAX_RATE: f64 = 100_000.0;
/// Requests that may be under way at once.
const MAX_CONCURRENCY: usize = 65_536;

/// When requests leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// At the times of a Poisson process with that many per second, whatever the server does.
    Open {
        /// Requests per second.
        rate: f64,
    },
    /// From so many clients, each of which sends the next request when the last one was answered.
    Closed {
        /// Clients.
        concurrency: usize,
    },
}

/// How long is measured, after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Requests that leave within that time.
    Time(Duration),
    /// So many requests.
    Requests(u64),
}

/// Everything but the mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// When requests leave.
    pub load: Load,
    /// How long is measured.
    pub length: Length,
    /// Requests that leave within this are sent and not measured.
    pub warmup: Duration,
    /// The share of requests whose client goes away after a random part of their solo time.
    pub cancel_share: f64,
    /// How often a refused request is sent again, each time after the server's `Retry-After`; 0 is never.
    pub retries: u32,
    /// Measured requests of each kind on an idle server, before the load; 0 measures none, and then no goodput.
    pub solo_runs: u32,
    /// A request that takes longer has failed.
    pub timeout: Duration,
    /// Requests under way at most in an open loop; more wait, which their latency shows.
    pub in_flight: usize,
    /// Of arrivals, kinds, prompts, seeds and cancels.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            load: Load::Closed { concurrency: 4 },
            length: Length::Time(Duration::from_secs(30)),
            warmup: Duration::from_secs(5),
            cancel_share: 0.0,
            retries: 0,
            solo_runs: 3,
            timeout: Duration::from_secs(600),
            in_flight: 4096,
            seed: 0,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {limit}, not {value}")]
pub struct OptionsError {
    field: &'static str,
    limit: String,
    value: String,
}

impl Options {
    /// Whether all of it can be.
    ///
    /// # Errors
    /// The first setting that cannot.
    pub fn check(&self) -> Result<(), OptionsError> {
        let wrong = |field, limit: &str, value: String| Err(OptionsError { field, limit: limit.to_owned(), value });
        match self.load {
            Load::Open { rate } if !(rate > 0.0 && rate <= MAX_RATE) => {
                return wrong("rate", &format!("above 0 and at most {MAX_RATE}"), rate.to_string());
            }
            Load::Closed { concurrency } if !(1..=MAX_CONCURRENCY).contains(&concurrency) => {
                return wrong("concurrency", &format!("from 1 to {MAX_CONCURRENCY}"), concurrency.to_string());
            }
            Load::Open { .. } | Load::Closed { .. } => {}
        }
        match self.length {
            Length::Time(Duration::ZERO) => return wrong("duration", "above 0", "0".to_owned()),
            Length::Requests(0) => return wrong("requests", "at least 1", "0".to_owned()),
            Length::Time(_) | Length::Requests(_) => {}
        }
        if !(0.0..=1.0).contains(&self.cancel_share) {
            return wrong("cancel_share", "from 0 to 1", self.cancel_share.to_string());
        }
        if self.cancel_share > 0.0 && self.solo_runs == 0 {
            return wrong("solo_runs", "at least 1 where clients cancel, whose times are parts of solo times", "0".to_owned());
        }
        if self.timeout.is_zero() {
            return wrong("timeout", "above 0", "0".to_owned());
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.in_flight) {
            return wrong("in_flight", &format!("from 1 to {MAX_CONCURRENCY}"), self.in_flight.to_string());
        }
        Ok(())
    }
}

/// How many of `clients` belong to each tenant, by the weights of its kinds (largest remainders, each at least one); `None` where
/// there are fewer clients than tenants.
pub(crate) fn apportion(mix: &Mix, clients: usize) -> Option<Vec<usize>> {
    let weights = mix.tenant_weights();
    let spare = clients.checked_sub(weights.len())?;
    let sum: f64 = weights.iter().sum();
    // One each, and what is left by how much of its share a tenant still lacks.
    let mut counts = vec![1; weights.len()];
    for _ in 0..spare {
        let lack = |tenant: usize| weights[tenant] / sum * clients as f64 - counts[tenant] as f64;
        let neediest = (0..weights.len()).max_by(|&a, &b| lack(a).total_cmp(&lack(b)))?;
        counts[neediest] += 1;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        let wrong = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        Options::default().check().unwrap();
        assert!(wrong(|o| o.load = Load::Open { rate: f64::NAN }).starts_with("`rate` must be above 0"));
        assert!(wrong(|o| o.load = Load::Closed { concurrency: 0 }).starts_with("`concurrency` must be from 1"));
        assert_eq!(wrong(|o| o.cancel_share = 1.5), "`cancel_share` must be from 0 to 1, not 1.5");
        assert_eq!(wrong(|o| o.length = Length::Requests(0)), "`requests` must be at least 1, not 0");
        assert!(wrong(|o| (o.cancel_share, o.solo_runs) = (0.1, 0)).starts_with("`solo_runs`"));
    }

    #[test]
    fn clients_are_shared_out_by_weight() {
        let mix = |weights: [f64; 2]| {
            let kind = |name: &str, weight| {
                format!("[[tenant]]\nname = '{name}'\n[[kind]]\nname = '{name}'\ntenant = '{name}'\nweight = {weight}\n")
            };
            Mix::parse(&(kind("a", weights[0]) + &kind("b", weights[1]))).unwrap()
        };
        assert_eq!(apportion(&mix([3.0, 1.0]), 8), Some(vec![6, 2]));
        assert_eq!(apportion(&mix([100.0, 1.0]), 4), Some(vec![3, 1]));
        assert_eq!(apportion(&mix([1.0, 1.0]), 1), None);
    }
}
