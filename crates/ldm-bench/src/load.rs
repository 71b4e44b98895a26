//! The load itself: who sends what when, until the time or the count is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::flight::{Order, fly};
use crate::mix::Drawer;
use crate::options::apportion;
use crate::random::Random;
use crate::solo::{Solo, shot};
use crate::tally::Tally;
use crate::targets::Target;
use crate::{Length, Load, Mix, Options};

/// What all requests of a load share.
pub(crate) struct Ground<T> {
    pub(crate) target: Arc<T>,
    pub(crate) mix: Mix,
    pub(crate) options: Options,
    pub(crate) solos: Vec<Solo>,
    pub(crate) start: Instant,
    tally: Mutex<Tally>,
}

impl<T: Target> Ground<T> {
    pub(crate) fn new(target: Arc<T>, mix: Mix, options: Options, solos: Vec<Solo>) -> Self {
        let start = Instant::now();
        let from = start + options.warmup;
        let until = match options.length {
            Length::Time(time) => Some(from + time),
            Length::Requests(_) => None,
        };
        let times = solos.iter().map(|solo| solo.time).collect();
        Self { target, mix, options, solos, start, tally: Mutex::new(Tally::new(times, (from, until))) }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When measuring begins.
    pub(crate) fn from(&self) -> Instant {
        self.start + self.options.warmup
    }

    /// Draws a request for that time.
    fn order(&self, dice: &mut Dice, scheduled: Instant) -> Order {
        let kind = dice.drawer.draw(&mut dice.kinds);
        let shot = shot(&self.mix.kinds[kind], &mut dice.kinds);
        let (leaves, part) = (dice.cancels.unit() < self.options.cancel_share, dice.cancels.unit());
        let leave = self.solos[kind].time.filter(|_| leaves).map(|solo| solo.mul_f64(part));
        Order { shot, kind, scheduled, measured: scheduled >= self.from(), leave }
    }

    async fn fly(&self, order: Order) {
        let flown = fly(&*self.target, order, self.options.retries, self.options.timeout).await;
        self.tally().note(&flown);
    }
}

/// One sender's random numbers.
struct Dice {
    drawer: Drawer,
    kinds: Random,
    cancels: Random,
}

impl Dice {
    fn new(mix: &Mix, tenant: Option<usize>, seed: u64, sender: u64) -> Self {
        let stream = |purpose| Random::stream(seed, purpose + 16 * sender);
        Self { drawer: Drawer::new(mix, tenant), kinds: stream(2), cancels: stream(3) }
    }
}

/// Puts the load on and waits until every request has ended. The clients of each tenant, in a closed loop where each has its own.
pub(crate) async fn put_on<T: Target>(ground: &Arc<Ground<T>>) -> Option<Vec<usize>> {
    match ground.options.load {
        Load::Open { rate } => {
            open(ground, rate).await;
            None
        }
        Load::Closed { concurrency } => closed(ground, concurrency).await,
    }
}

/// Requests leave at the times of a Poisson process. Where too many are under way the next one waits; its latency shows it.
async fn open<T: Target>(ground: &Arc<Ground<T>>, rate: f64) {
    let limit = ground.options.in_flight;
    let places = Arc::new(Semaphore::new(limit));
    let mut dice = Dice::new(&ground.mix, None, ground.options.seed, 0);
    for scheduled in arrivals(ground.start, rate, &ground.options) {
        sleep_until(scheduled).await;
        let order = ground.order(&mut dice, scheduled);
        if places.available_permits() == 0 && order.measured {
            ground.tally().waited += 1;
        }
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let ground = Arc::clone(ground);
        tokio::spawn(async move {
            let _place = place;
            ground.fly(order).await;
        });
    }
    // All places are free again when all requests have ended.
    let _ = places.acquire_many(u32::try_from(limit).unwrap_or(u32::MAX)).await;
}

/// The times at which requests are to leave, the warm-up's first.
pub(crate) fn arrivals(start: Instant, rate: f64, options: &Options) -> impl Iterator<Item = Instant> {
    let mut random = Random::stream(options.seed, 1);
    let (mut at, mut measured) = (0.0, 0);
    let (warmup, length) = (options.warmup.as_secs_f64(), options.length);
    std::iter::from_fn(move || {
        at += random.exponential(1.0 / rate);
        measured += u64::from(at >= warmup);
        let over = match length {
            Length::Time(time) => at >= warmup + time.as_secs_f64(),
            Length::Requests(count) => measured > count,
        };
        (!over).then(|| start + Duration::from_secs_f64(at))
    })
}

/// Every client sends one request after the other. Clients belong to tenants, unless there are fewer clients than tenants.
async fn closed<T: Target>(ground: &Arc<Ground<T>>, concurrency: usize) -> Option<Vec<usize>> {
    let clients = apportion(&ground.mix, concurrency);
    let owners: Vec<Option<usize>> = match &clients {
        Some(clients) => clients.iter().enumerate().flat_map(|(tenant, &count)| vec![Some(tenant); count]).collect(),
        None => vec![None; concurrency],
    };
    let taken = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = owners
        .into_iter()
        .enumerate()
        .map(|(sender, tenant)| {
            let dice = Dice::new(&ground.mix, tenant, ground.options.seed, sender as u64);
            tokio::spawn(client(Arc::clone(ground), dice, Arc::clone(&taken)))
        })
        .collect();
    for sender in senders {
        // A client's panic would have been told by its thread; the others go on.
        let _ = sender.await;
    }
    clients
}

/// After this long a refused client sends again, so that refusals do not make a closed loop spin.
const BREATH: Duration = Duration::from_millis(100);

async fn client<T: Target>(ground: Arc<Ground<T>>, mut dice: Dice, taken: Arc<AtomicU64>) {
    loop {
        let now = Instant::now();
        let over = match ground.options.length {
            Length::Time(time) => now >= ground.from() + time,
            Length::Requests(count) => now >= ground.from() && taken.fetch_add(1, Ordering::Relaxed) >= count,
        };
        if over {
            return;
        }
        let order = ground.order(&mut dice, now);
        let flown = fly(&*ground.target, order, ground.options.retries, ground.options.timeout).await;
        let turned_away = matches!(flown.end, crate::flight::End::Rejected { .. } | crate::flight::End::Failed { .. });
        ground.tally().note(&flown);
        if turned_away {
            tokio::time::sleep(BREATH).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_as_many_as_asked_for_and_repeat_with_the_seed() {
        let options = |length, seed| Options { length, warmup: Duration::from_secs(10), seed, ..Options::default() };
        let start = Instant::now();
        let times = |length, seed| arrivals(start, 50.0, &options(length, seed)).collect::<Vec<_>>();
        let hundred = Length::Time(Duration::from_secs(100));
        let drawn = times(hundred, 1);
        // 110 s at 50/s: 5500 ± 74 (the deviation of a Poisson count is its root).
        assert!((5500 - 300..5500 + 300).contains(&drawn.len()), "{}", drawn.len());
        assert_eq!(drawn, times(hundred, 1));
        assert_ne!(drawn, times(hundred, 2));
        assert!(drawn.is_sorted());
        let counted = times(Length::Requests(70), 1);
        assert_eq!(counted.iter().filter(|time| **time >= start + Duration::from_secs(10)).count(), 70);
    }
}
