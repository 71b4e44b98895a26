//! What a job told, for everybody who watches it: a bounded ring of numbered events, so that who was cut off goes on where
//! they were.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ldm_core::JobId;
use tokio::sync::watch;

/// Events of one job that are kept at most.
const MOST_EVENTS: usize = 256;
/// Bytes of them at most; the newest is kept whatever its size.
const MOST_BYTES: usize = 128 << 10;
/// Jobs whose events are kept at once, at most.
const MOST_JOBS: usize = 1024;

/// An event and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) id: u64,
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

/// What follows on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// This.
    Next(Told),
    /// Nothing yet.
    Nothing,
    /// What followed is not kept any more, or the event was never told here.
    Lost,
    /// Nothing, ever.
    Over,
}

#[derive(Debug, Default)]
struct Ring {
    told: VecDeque<Told>,
    bytes: usize,
    /// The last number that was given.
    last: u64,
    over: bool,
}

/// One job's events. Numbers grow by one and begin with the time in microseconds, so that those of a later process, or of a
/// later ring, are larger.
#[derive(Debug)]
pub(super) struct Replay {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
}

/// The number of a job's last event: known wherever and whenever it is asked for.
pub(super) fn last_id(ended_ms: u64) -> u64 {
    ended_ms.saturating_mul(1000).saturating_add(999)
}

impl Replay {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from(u64::try_from(now.as_micros()).unwrap_or(0))
    }

    fn from(last: u64) -> Self {
        Self { ring: Mutex::new(Ring { last, ..Ring::default() }), changed: watch::Sender::new(()) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event.
    pub(super) fn tell(&self, name: &'static str, data: String) {
        self.push(name, data, 0);
        self.changed.send_replace(());
    }

    /// Tells the last event, with that number at least.
    pub(super) fn tell_last(&self, name: &'static str, data: String, id: u64) {
        self.push(name, data, id);
        self.close();
    }

    /// Ends without a last event: who watches asks again.
    pub(super) fn close(&self) {
        self.ring().over = true;
        self.changed.send_replace(());
    }

    fn push(&self, name: &'static str, data: String, least: u64) {
        let mut ring = self.ring();
        ring.last = (ring.last + 1).max(least);
        ring.bytes += data.len();
        let id = ring.last;
        ring.told.push_back(Told { id, name, data: data.into() });
        while ring.told.len() > MOST_EVENTS || (ring.bytes > MOST_BYTES && ring.told.len() > 1) {
            let oldest = ring.told.pop_front().map_or(0, |told| told.data.len());
            ring.bytes -= oldest;
        }
    }

    /// The newest number.
    pub(super) fn newest(&self) -> u64 {
        self.ring().last
    }

    /// What follows on the event of that number.
    pub(super) fn after(&self, id: u64) -> After {
        let ring = self.ring();
        let oldest = ring.told.front().map_or(ring.last + 1, |told| told.id);
        if id.saturating_add(1) < oldest || id > ring.last {
            return After::Lost;
        }
        match ring.told.iter().find(|told| told.id > id) {
            Some(told) => After::Next(told.clone()),
            None if ring.over => After::Over,
            None => After::Nothing,
        }
    }

    /// Changes when something was told after this call.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The jobs that somebody watches, or did a moment ago. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replays(Arc<Mutex<BTreeMap<JobId, Arc<Replay>>>>);

impl Replays {
    fn book(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Replay>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's events; `record` is called for those that nobody writes down yet. `None`: too many jobs are watched.
    pub(super) fn of(&self, id: JobId, record: impl FnOnce(Arc<Replay>)) -> Option<Arc<Replay>> {
        let mut book = self.book();
        if let Some(replay) = book.get(&id) {
            return Some(Arc::clone(replay));
        }
        if book.len() >= MOST_JOBS {
            return None;
        }
        let replay = Arc::new(Replay::new());
        book.insert(id, Arc::clone(&replay));
        record(Arc::clone(&replay));
        Some(replay)
    }

    /// Whether nobody has it but the book, its recorder and that one's scribe.
    pub(super) fn is_unwatched(replay: &Arc<Replay>) -> bool {
        Arc::strong_count(replay) <= 3
    }

    /// Forgets the job's events if nobody watches but their recorder; whether it did.
    pub(super) fn forget_unwatched(&self, id: JobId, replay: &Arc<Replay>) -> bool {
        let mut book = self.book();
        // Others come from the book alone.
        let unwatched = Self::is_unwatched(replay);
        if unwatched {
            book.remove(&id);
        }
        unwatched
    }

    /// Nothing more will be told; those who watch have what there is.
    pub(super) fn forget(&self, id: JobId) {
        self.book().remove(&id);
    }

    /// How many jobs are watched.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.book().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(replay: &Replay, mut id: u64) -> Vec<String> {
        let mut names = Vec::new();
        while let After::Next(told) = replay.after(id) {
            names.push(told.data.to_string());
            id = told.id;
        }
        names
    }

    #[test]
    fn who_was_cut_off_goes_on_where_they_were() {
        let replay = Replay::from(1000);
        assert_eq!((replay.after(1000), replay.after(999), replay.after(1001)), (After::Nothing, After::Lost, After::Lost));
        (0..5).for_each(|n| replay.tell("progress", n.to_string()));
        assert_eq!(names(&replay, 1000), ["0", "1", "2", "3", "4"]);
        assert_eq!(names(&replay, 1003), ["3", "4"]);
        assert_eq!(replay.after(1005), After::Nothing);
        assert_eq!(replay.after(1006), After::Lost, "another process told that");
        replay.tell_last("result", "end".into(), 7000);
        assert_eq!((names(&replay, 1004), replay.newest()), (vec!["4".to_owned(), "end".to_owned()], 7000));
        assert_eq!((replay.after(7000), replay.after(7001)), (After::Over, After::Lost));
    }

    #[test]
    fn the_ring_is_bounded_by_number_and_by_bytes() {
        let replay = Replay::from(0);
        (0..MOST_EVENTS + 10).for_each(|n| replay.tell("progress", n.to_string()));
        assert_eq!((replay.after(9), names(&replay, 10).len()), (After::Lost, MOST_EVENTS));
        replay.tell("preview", "x".repeat(MOST_BYTES + 1));
        assert_eq!(names(&replay, replay.newest() - 1).len(), 1, "the newest stays");
        assert_eq!((replay.after(replay.newest() - 2), replay.ring().told.len()), (After::Lost, 1));
        replay.tell("progress", "small".into());
        assert_eq!(names(&replay, replay.newest() - 1), ["small"]);
        assert_eq!(replay.ring().bytes, 5);
    }
    #[test]
    fn what_nobody_watches_is_let_go_of_and_no_more_jobs_are_watched_than_there_may_be() {
        let replays = Replays::default();
        // A recorder holds it twice: itself and its scribe.
        let mut recorded = Vec::new();
        let mut watch = |id| replays.of(id, |replay| recorded.push([Arc::clone(&replay), replay]));
        let id = JobId::new();
        let watcher = watch(id).unwrap();
        assert!(Arc::ptr_eq(&watcher, &watch(id).unwrap()), "one recorder for all who watch");
        for _ in 1..MOST_JOBS {
            watch(JobId::new()).unwrap();
        }
        assert!(watch(JobId::new()).is_none());
        let [recorder, _] = &recorded[0];
        assert!(!replays.forget_unwatched(id, recorder));
        drop(watcher);
        assert!(replays.forget_unwatched(id, recorder));
        assert_eq!((recorded.len(), replays.len()), (MOST_JOBS, MOST_JOBS - 1));
    }
}
