//! How a connection is getting on: what it waits for, since when, and when that has been too long.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ConnectionLimits;

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The head of a request took too long to come.
    SlowHead,
    /// Nothing was asked for.
    Idle,
    /// An answer was not read.
    SlowReader,
    /// Another connection wanted its place.
    Crowded,
}

impl Cut {
    /// The word for metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::Crowded => "crowded",
        }
    }
}

/// What the peer is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To ask for something, or to go.
    Idle(Instant),
    /// To say the rest of what it asks for.
    Head(Instant),
    /// To wait: an answer is being made or written.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    requests: usize,
    /// Whether requests share the connection, as in HTTP/2: then bytes come between requests that belong to none.
    shared: bool,
    /// Since when the socket takes nothing.
    stalled: Option<Instant>,
    /// Pieces of answers that were handed out, since when nobody came for the next one.
    waiting: BTreeMap<u64, Instant>,
    answers: u64,
    crowded: bool,
    /// What the watcher sleeps until.
    armed: Option<Instant>,
}

/// The state of one connection, told by its socket and its requests, watched by its task.
#[derive(Debug)]
pub(super) struct Pulse {
    head: Duration,
    idle: Duration,
    write: Duration,
    state: Mutex<State>,
    sooner: Notify,
}

impl Pulse {
    /// Of a connection that has just come.
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let ConnectionLimits { header_time: head, idle_time: idle, write_time: write, .. } = *limits;
        let state = State {
            phase: Phase::Head(Instant::now()),
            requests: 0,
            shared: false,
            stalled: None,
            waiting: BTreeMap::new(),
            answers: 0,
            crowded: false,
            armed: None,
        };
        Self { head, idle, write, state: Mutex::new(state), sooner: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state; the watcher is woken if it would sleep too long now.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let next = self.deadline(&state).map(|(at, _)| at);
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.sooner.notify_one();
        }
    }

    fn deadline(&self, state: &State) -> Option<(Instant, Cut)> {
        if state.crowded {
            return Some((Instant::now(), Cut::Crowded));
        }
        let read = match state.phase {
            Phase::Idle(since) => Some((since + self.idle, Cut::Idle)),
            Phase::Head(since) => Some((since + self.head, Cut::SlowHead)),
            Phase::Busy => None,
        };
        let unread = state.stalled.into_iter().chain(state.waiting.values().copied()).min();
        let write = unread.map(|since| (since + self.write, Cut::SlowReader));
        read.into_iter().chain(write).min_by_key(|(at, _)| *at)
    }

    /// Bytes came.
    pub(super) fn came(&self) {
        self.change(|state| {
            if matches!(state.phase, Phase::Idle(_)) && !state.shared {
                state.phase = Phase::Head(Instant::now());
            }
        });
    }

    /// The socket took bytes.
    pub(super) fn went(&self) {
        self.change(|state| state.stalled = None);
    }

    /// The socket takes nothing just now.
    pub(super) fn stalls(&self) {
        self.change(|state| {
            state.stalled.get_or_insert_with(Instant::now);
        });
    }

    /// A request is there, with its head.
    pub(super) fn begins(&self, shared: bool) {
        self.change(|state| {
            state.requests += 1;
            (state.phase, state.shared) = (Phase::Busy, shared);
        });
    }

    /// A request was answered, or let go of.
    pub(super) fn ends(&self) {
        self.change(|state| {
            state.requests = state.requests.saturating_sub(1);
            if state.requests == 0 {
                state.phase = Phase::Idle(Instant::now());
            }
        });
    }

    /// A name for an answer.
    pub(super) fn answer(&self) -> u64 {
        let mut state = self.state();
        state.answers += 1;
        state.answers
    }

    /// A piece of that answer was handed out; the next one is made when somebody comes for it.
    pub(super) fn handed_out(&self, answer: u64) {
        self.change(|state| {
            state.waiting.insert(answer, Instant::now());
        });
    }

    /// Somebody came for the next piece, or the answer is over.
    pub(super) fn fetched(&self, answer: u64) {
        self.change(|state| {
            state.waiting.remove(&answer);
        });
    }

    /// Since when nothing is done for it, if nothing is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Idle(since) | Phase::Head(since) => Some(since),
            Phase::Busy => None,
        }
    }

    /// Its place is wanted.
    pub(super) fn crowd_out(&self) {
        self.change(|state| state.crowded = true);
    }

    /// Waits until the connection is to be cut.
    pub(super) async fn cut(&self) -> Cut {
        loop {
            let next = {
                let mut state = self.state();
                let next = self.deadline(&state);
                state.armed = next.map(|(at, _)| at);
                next
            };
            match next {
                Some((at, why)) if at <= Instant::now() => return why,
                Some((at, _)) => {
                    // Either way it is looked at anew.
                    let _ = tokio::time::timeout_at(at, self.sooner.notified()).await;
                }
                None => self.sooner.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(10);
    const WRITE: Duration = Duration::from_secs(3);

    fn pulse() -> Pulse {
        Pulse::new(&ConnectionLimits { header_time: HEAD, idle_time: IDLE, write_time: WRITE, ..ConnectionLimits::default() })
    }

    /// Why it is cut, and after how long, in seconds.
    async fn cut(pulse: &Pulse) -> (Cut, u64) {
        let began = Instant::now();
        let why = pulse.cut().await;
        (why, began.elapsed().as_secs())
    }

    /// That nothing happens for a day.
    async fn lasts(pulse: &Pulse) -> bool {
        tokio::time::timeout(Duration::from_secs(86_400), pulse.cut()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_must_come_and_between_requests_there_is_more_time() {
        let pulse = pulse();
        pulse.came();
        assert_eq!(cut(&pulse).await, (Cut::SlowHead, 1));

        let pulse = super::tests::pulse();
        pulse.begins(false);
        assert!(lasts(&pulse).await, "an answer may take as long as it takes");
        pulse.came();
        assert!(lasts(&pulse).await);
        pulse.ends();
        assert_eq!(cut(&pulse).await, (Cut::Idle, 10));

        pulse.begins(false);
        pulse.ends();
        pulse.came();
        tokio::time::advance(HEAD / 2).await;
        pulse.came();
        assert_eq!(cut(&pulse).await.0, Cut::SlowHead, "more bytes win no time");
        assert_eq!(pulse.idle_since().map(|since| since.elapsed()), Some(HEAD));
    }

    #[tokio::test(start_paused = true)]
    async fn shared_connections_are_idle_whatever_comes_between_requests() {
        let pulse = pulse();
        pulse.begins(true);
        pulse.begins(true);
        pulse.ends();
        assert!(lasts(&pulse).await, "one is still being answered");
        pulse.ends();
        pulse.came();
        assert_eq!(cut(&pulse).await, (Cut::Idle, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_must_be_read() {
        let pulse = pulse();
        pulse.begins(false);
        pulse.stalls();
        tokio::time::advance(WRITE / 2).await;
        pulse.stalls();
        assert_eq!(cut(&pulse).await, (Cut::SlowReader, 1));
        pulse.went();
        assert!(lasts(&pulse).await);

        let answer = pulse.answer();
        pulse.handed_out(answer);
        assert_eq!(cut(&pulse).await, (Cut::SlowReader, 3));
        pulse.fetched(answer);
        assert!(lasts(&pulse).await);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_watches_hears_of_what_comes_sooner() {
        let pulse = std::sync::Arc::new(pulse());
        pulse.begins(false);
        let watched = std::sync::Arc::clone(&pulse);
        let watch = tokio::spawn(async move { cut(&watched).await });
        tokio::task::yield_now().await;
        pulse.ends();
        tokio::task::yield_now().await;
        pulse.crowd_out();
        assert_eq!(watch.await.unwrap(), (Cut::Crowded, 0));
    }
}
