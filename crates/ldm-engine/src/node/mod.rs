//! Named jobs: accepted into a ledger before anybody is told so, run by whoever claims them, ended once, whatever happens to
//! this process.
//!
//! A [`Node`] is one process's share: it hands jobs in, claims some for its [`Service`], keeps their checkpoints and pictures in
//! the object store, and ends them in the ledger. Everything durable lies in those two; a node that dies leaves nothing behind
//! but a lease that ends.

mod bundle;
mod keep;
mod named;
mod run;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldm_core::{JobId, Priority, Terms};
use tokio::sync::{Notify, watch as watch_channel};
use tokio::task::JoinSet;

use crate::Service;
use crate::guard::lock;
use crate::ledger::{
    BEAT, Claim, Clock, Fence, JobView, Lane, Ledger, LedgerError, NewJob, NodeId, NodeState, Order, Reaped, Retention, Spec,
    Submitted, Timestamp, Want, sweep, upkeep,
};
use crate::objects::{Objects, input_key};
pub use named::{Encode, Encoded, Named, NodeError};
use watch::Watched;
pub use watch::{Sight, Sightings};

/// How long a node waits for the doorbell before it looks by itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often objects that no record knows are looked for, and how old they must be.
const SWEEP: Duration = Duration::from_secs(3600);

/// One process's share in named jobs. A clone is the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    id: NodeId,
    service: Service,
    ledger: Arc<dyn Ledger>,
    objects: Objects,
    encode: Encode,
    clock: Arc<dyn Clock>,
    retention: Retention,
    capacity: u32,
    draining: AtomicBool,
    held: Mutex<HashMap<Fence, Arc<Watched>>>,
    /// Rung when a job has ended here.
    freed: Notify,
    /// Changes when a job begins here.
    taken: watch_channel::Sender<()>,
}

/// What a node is made of.
pub struct Parts {
    /// The process's name; a restarted one is another node all the same.
    pub name: String,
    /// Who runs jobs.
    pub service: Service,
    /// Who knows them.
    pub ledger: Arc<dyn Ledger>,
    /// Where pictures, inputs and checkpoints lie.
    pub objects: Objects,
    /// What makes files of pictures.
    pub encode: Encode,
    /// The ledger's clock.
    pub clock: Arc<dyn Clock>,
    /// Which records of ended jobs are kept.
    pub retention: Retention,
    /// Jobs that are claimed at once.
    pub capacity: u32,
}

impl Node {
    /// A node that works until it is told to [`leave`](Self::leave). Must be called in a tokio runtime.
    pub fn start(parts: Parts) -> Self {
        let Parts { name, service, ledger, objects, encode, clock, retention, capacity } = parts;
        let (id, draining) = (NodeId::new(&name), AtomicBool::new(false));
        let (held, freed, taken) = (Mutex::default(), Notify::new(), watch_channel::Sender::new(()));
        let inner = Inner { id, service, ledger, objects, encode, clock, retention, capacity, draining, held, freed, taken };
        let node = Self { inner: Arc::new(inner) };
        tokio::spawn(beat(Arc::downgrade(&node.inner)));
        tokio::spawn(claim(Arc::downgrade(&node.inner)));
        tokio::spawn(clean(Arc::downgrade(&node.inner)));
        node
    }

    /// Hands a job in. What it needs is in the object store before the ledger knows of it.
    pub async fn submit(&self, named: Named) -> Result<Submitted, NodeError> {
        let Inner { service, ledger, objects, clock, .. } = &*self.inner;
        let Named { id, terms, request, images, fingerprint, key, name, note, hook } = named;
        let (bucket, cost) = service.quote(&request);
        let spec = Spec { request, images, terms };
        let packed = spec.pack()?;
        let mut inputs = Vec::with_capacity(packed.objects.len());
        for (n, input) in packed.objects.into_iter().enumerate() {
            inputs.push(objects.put(&input_key(id, n), input).await?);
        }
        let Spec { request, terms: Terms { tenant, priority, deadline }, .. } = spec;
        let submitted = ledger
            .submit(NewJob {
                id,
                tenant,
                priority,
                model: request.model,
                bucket,
                cost_ms: cost.saturating_mul(images).as_millis() as u64,
                spec: packed.json,
                inputs: inputs.clone(),
                fingerprint,
                key,
                name,
                deadline: deadline.map(|within| clock.now().after(within)),
                not_before: None,
                note,
                hook,
            })
            .await;
        // The same id handed in twice has its inputs already, in the same places.
        let elsewhere = match &submitted {
            Ok(Submitted::New(_)) => false,
            Ok(Submitted::Existing(view)) => view.id != id,
            Ok(Submitted::Conflict(other)) => *other != id,
            Ok(Submitted::Full(_)) => true,
            // Nobody knows: the job may have been accepted.
            Err(_) => false,
        };
        if elsewhere {
            for input in inputs {
                self.inner.forget(&input.key).await;
            }
        }
        Ok(submitted?)
    }

    /// The ledger, for looking at jobs and cancelling them.
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.inner.ledger
    }

    /// The ledger's time.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Which records of ended jobs are kept.
    pub fn retention(&self) -> &Retention {
        &self.inner.retention
    }

    /// Where pictures lie.
    pub fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// Wants a job stopped; one that runs here is stopped at once.
    pub async fn cancel(&self, id: JobId) -> Result<Option<JobView>, LedgerError> {
        let view = self.inner.ledger.cancel(id).await?;
        let running: Vec<Arc<Watched>> =
            lock(&self.inner.held).iter().filter(|(fence, _)| fence.id == id).map(|(_, watched)| Arc::clone(watched)).collect();
        running.iter().for_each(|watched| watched.cancel());
        Ok(view)
    }

    /// What a job that runs here tells, from now on; `None` when it does not run here.
    pub fn watch(&self, id: JobId) -> Option<Sightings> {
        lock(&self.inner.held).iter().find(|(fence, _)| fence.id == id).map(|(_, watched)| watched.subscribe())
    }

    /// Changes whenever a job begins here, which can be [`watched`](Self::watch) then.
    pub fn taken(&self) -> watch_channel::Receiver<()> {
        self.inner.taken.subscribe()
    }

    /// Claims nothing more.
    pub fn stop_claiming(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until the jobs that ran here have been ended or let go of, which [`Service::drain`] brings about, and says
    /// goodbye to the ledger.
    pub async fn leave(&self) {
        self.stop_claiming();
        loop {
            let freed = self.inner.freed.notified();
            if lock(&self.inner.held).is_empty() {
                break;
            }
            freed.await;
        }
        if let Err(error) = self.inner.ledger.leave(&self.inner.id).await {
            tracing::warn!(%error, "the ledger does not know that this node goes");
        }
    }
}

impl Inner {
    /// Deletes an object that nobody needs. When that fails, it goes with its job.
    async fn forget(&self, key: &str) {
        if let Err(error) = self.objects.delete(key).await {
            tracing::warn!(key, %error, "an object was not deleted");
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What this node would take now.
    fn want(&self) -> Want {
        let held = lock(&self.held).len() as u32;
        let residents = self.service.workers().into_iter().flat_map(|worker| worker.residents);
        let mut models: Vec<String> = residents.map(|resident| resident.id).collect();
        models.sort_unstable();
        models.dedup();
        let lane = |model: &String, priority| Lane { model: model.clone(), priority, hot: Vec::new() };
        let lanes = models.iter().flat_map(|model| Priority::ALL.map(|priority| lane(model, priority))).collect();
        Want { lanes, credit: self.capacity.saturating_sub(held) }
    }

    fn take(self: &Arc<Self>, claim: Claim, tasks: &mut JoinSet<()>) {
        let watched = Arc::new(Watched::new());
        lock(&self.held).insert(claim.fence, Arc::clone(&watched));
        self.taken.send_replace(());
        let inner = Arc::clone(self);
        tasks.spawn(async move {
            let fence = claim.fence;
            run::run(&inner, claim, &watched).await;
            lock(&inner.held).remove(&fence);
            watched.tell(|sight| sight.over = true);
            inner.freed.notify_waiters();
        });
    }
}

type Weak = std::sync::Weak<Inner>;

/// Renews the lease and obeys the orders that come with it.
async fn beat(node: Weak) {
    let mut pulse = tokio::time::interval(BEAT);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let Some(node) = node.upgrade() else { return };
        let held: Vec<Fence> = lock(&node.held).keys().copied().collect();
        let state = NodeState { capacity: node.capacity, draining: node.is_draining(), held };
        match node.ledger.beat(&node.id, state).await {
            Ok(orders) => orders.into_iter().for_each(|order| obey(&node, order)),
            Err(LedgerError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the lease was not renewed"),
        }
    }
}

fn obey(node: &Inner, order: Order) {
    let (Order::Cancel(fence) | Order::Lost(fence)) = order;
    if let Some(watched) = lock(&node.held).get(&fence) {
        if matches!(order, Order::Lost(_)) {
            watched.lose();
        }
        watched.cancel();
    }
}

/// Claims whenever there is room and something may have come.
async fn claim(node: Weak) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Some(node) = node.upgrade() else { break };
        if node.is_draining() {
            break;
        }
        let want = node.want();
        if want.credit == 0 || want.lanes.is_empty() {
            let freed = node.freed.notified();
            let _ = tokio::time::timeout(PATIENCE, freed).await;
            continue;
        }
        match node.ledger.claim(&node.id, &want).await {
            Ok(claims) if claims.is_empty() => {
                let _ = node.ledger.idle(&node.id, PATIENCE).await;
            }
            Ok(claims) => claims.into_iter().for_each(|claim| node.take(claim, &mut tasks)),
            Err(LedgerError::Closed) => break,
            Err(error) => {
                tracing::debug!(%error, "nothing was claimed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // What runs is let run: a dropped task would leave its job to the lease.
    while tasks.join_next().await.is_some() {}
}

/// Puts jobs of dead nodes back, and deletes what nobody asks for any more.
async fn clean(node: Weak) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept: Option<tokio::time::Instant> = None;
    loop {
        second.tick().await;
        let Some(node) = node.upgrade() else { return };
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            swept = Some(tokio::time::Instant::now());
            match sweep(&*node.ledger, &node.objects, SWEEP).await {
                Ok(0) => {}
                Ok(jobs) => tracing::info!(jobs, "objects that no record knows were deleted"),
                Err(LedgerError::Closed) => return,
                Err(error) => tracing::warn!(%error, "objects that no record knows were not looked for"),
            }
        }
        match upkeep(&*node.ledger, &node.objects, &node.retention).await {
            Ok(reaped) if reaped != Reaped::default() => tracing::info!(?reaped, "jobs of lost nodes, and late ones"),
            Ok(_) => {}
            Err(LedgerError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the ledger was not looked after"),
        }
    }
}
