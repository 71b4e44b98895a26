//! The devices of a service: where a job goes, and where it goes when its device is lost.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldm_core::{Ending, Failure, FailureKind, JobId, Request, Terms};
use tokio::sync::oneshot;

use crate::device::Command;
use crate::executor::ModelChange;
use crate::guard::lock;
use crate::job::Parcel;
use crate::scheduler::Ask;
use crate::state::{Coming, Desk, Readiness, State};

/// A device's place: what is known of it, and the way in.
pub(crate) struct Seat {
    pub(crate) desk: Arc<Desk>,
    pub(crate) inbox: Mutex<mpsc::Sender<Command>>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

/// The devices of a service. Its threads end when nobody holds it any more.
pub(crate) struct Pool {
    pub(crate) seats: Vec<Seat>,
    pub(crate) state: Arc<State>,
    /// Jobs whose device was lost when no other was ready.
    orphans: Mutex<Vec<Parcel>>,
}

/// When a device could have a job ready, from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) seat: usize,
    /// Until its preparation begins.
    pub(crate) start: Duration,
    /// Until its picture is there.
    pub(crate) finish: Duration,
    /// How long it alone would take.
    pub(crate) solo: Duration,
}

impl Pool {
    pub(crate) fn new(seats: Vec<Seat>, state: Arc<State>) -> Self {
        Self { seats, state, orphans: Mutex::default() }
    }

    /// The device that would have the job's picture first, of those that are ready.
    pub(crate) fn best(&self, request: &Request, terms: &Terms) -> Option<Offer> {
        let ready = self.seats.iter().enumerate().filter(|(_, seat)| seat.desk.readiness() == Readiness::Ready);
        ready.map(|(index, seat)| seat.offer(index, request, terms)).min_by_key(|offer| (offer.finish, offer.seat))
    }

    /// Sends the job to the device that will have it ready first; gives it back when no device is ready.
    fn send(&self, parcel: Parcel) -> Result<(), Box<Parcel>> {
        let reporter = &parcel.reporter;
        let Some(offer) = self.best(&reporter.request, &reporter.terms) else { return Err(Box::new(parcel)) };
        self.send_to(offer, parcel)
    }

    pub(crate) fn send_to(&self, offer: Offer, parcel: Parcel) -> Result<(), Box<Parcel>> {
        let (seat, id) = (&self.seats[offer.seat], parcel.reporter.id);
        let (priority, since) = (parcel.reporter.terms.priority, parcel.reporter.submitted);
        seat.desk.book().coming.insert(id, Coming { priority, since, cost: offer.solo });
        lock(&seat.inbox).send(Command::Admit(Box::new(parcel))).map_err(|unsent| {
            seat.desk.arrived(id);
            match unsent.0 {
                Command::Admit(parcel) => parcel,
                _ => unreachable!("it is what was sent"),
            }
        })
    }

    /// Takes over jobs of a device that was lost.
    pub(crate) fn adopt(&self, jobs: Vec<Parcel>) {
        for job in jobs {
            let mut job = Box::new(job);
            // A worker that ends between the choice and the sending is not ready any more: the next choice is another.
            loop {
                if job.reporter.is_cancelled() {
                    job.reporter.end(Ending::Cancelled);
                    break;
                }
                match self.send(*job) {
                    Ok(()) => break,
                    Err(back) if self.best(&back.reporter.request, &back.reporter.terms).is_some() => job = back,
                    Err(back) => {
                        lock(&self.orphans).push(*back);
                        break;
                    }
                }
            }
        }
        self.tell_the_abandoned();
    }

    /// A device has become ready: it takes the jobs that waited for one.
    pub(crate) fn adopt_orphans(&self) {
        let orphans = std::mem::take(&mut *lock(&self.orphans));
        if !orphans.is_empty() {
            self.adopt(orphans);
        }
    }

    /// When no device is left, and none will come back, nobody waits for one.
    pub(crate) fn tell_the_abandoned(&self) {
        if !*self.state.ended.borrow() {
            return;
        }
        let reason = match self.state.readiness() {
            Readiness::Failed(reason) => reason,
            _ => "the service shut down before the job ended".to_owned(),
        };
        for orphan in std::mem::take(&mut *lock(&self.orphans)) {
            orphan.reporter.end(Ending::Failed(Failure::new(FailureKind::Device, reason.clone())));
        }
    }

    /// Wherever the job is.
    pub(crate) fn cancel(&self, id: JobId) {
        for seat in &self.seats {
            // When the device thread is gone, its jobs have ended already.
            let _ = lock(&seat.inbox).send(Command::Cancel(id));
        }
        let found: Vec<Parcel> = lock(&self.orphans).extract_if(.., |orphan| orphan.reporter.id == id).collect();
        found.into_iter().for_each(|orphan| orphan.reporter.end(Ending::Cancelled));
    }

    /// Tells all devices to finish until then.
    pub(crate) fn stop(&self, at: Instant) {
        for seat in &self.seats {
            // When the thread is gone, it is as stopped as it can be.
            let _ = lock(&seat.inbox).send(Command::Stop(at));
        }
    }

    /// Changes the models of every device, one answer each.
    pub(crate) fn change(&self, change: &ModelChange) -> Vec<oneshot::Receiver<Result<(), Failure>>> {
        let ask = |seat: &Seat| {
            let (done, answer) = oneshot::channel();
            // Unsent, it is dropped, which the receiver sees.
            let _ = lock(&seat.inbox).send(Command::Change(change.clone(), done));
            answer
        };
        self.seats.iter().map(ask).collect()
    }
}

impl Seat {
    fn offer(&self, seat: usize, request: &Request, terms: &Terms) -> Offer {
        let now = self.desk.now();
        let book = self.desk.book();
        let price = book.quotes.quote(request);
        let solo = Duration::try_from_secs_f64(book.costs.solo(&price)).unwrap_or_default();
        let cold = book.residents.iter().any(|resident| resident.id == request.model && !resident.loaded);
        // Loading is not free, even when nobody has seen how long it takes.
        let load = if cold { book.loads.get(&request.model).copied().unwrap_or(Duration::from_secs(1)) } else { Duration::ZERO };
        let on_the_way = book.on_the_way();
        let ask = Ask {
            price,
            tenant: terms.tenant.clone(),
            priority: terms.priority,
            submitted: now,
            deadline: terms.deadline.map(|within| now + within),
            alone: false,
        };
        let forecast = book.scheduler.forecast(&ask, now, &book.costs);
        let from_now = |moment: Duration| moment.saturating_sub(now) + load + on_the_way;
        Offer { seat, start: from_now(forecast.start), finish: from_now(forecast.finish), solo }
    }
}
