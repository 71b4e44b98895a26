//! A service with a fake executor, ready, with counts at zero and gates open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ldm_core::{Catalogue, Draft, Ending, Event, Progress, Request, Task, Tenant, Terms};
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::{Batch, Incident, Limits, Load, Monitor, Service, Stage, Ticket};
use tokio::sync::watch;

/// A monitor that remembers.
#[derive(Default)]
pub(crate) struct Tally {
    load: watch::Sender<(usize, usize)>,
    accepted: Mutex<usize>,
    ended: Mutex<BTreeMap<&'static str, usize>>,
    stages: Mutex<Vec<&'static str>>,
    batches: Mutex<Vec<(usize, u32)>>,
    worked: Mutex<BTreeMap<String, std::time::Duration>>,
    wasted: Mutex<u32>,
    incidents: Mutex<Vec<String>>,
}

impl Monitor for Tally {
    fn accepted(&self, _: &Request, _: &Terms) {
        *self.accepted.lock().unwrap() += 1;
    }
    fn load(&self, load: &Load) {
        self.load.send_replace((load.queued, load.running));
    }
    fn batch(&self, batch: Batch<'_>) {
        self.batches.lock().unwrap().push((batch.jobs, batch.rows));
    }
    fn worked(&self, tenant: &Tenant, took: std::time::Duration) {
        *self.worked.lock().unwrap().entry(tenant.name().to_owned()).or_default() += took;
    }
    fn wasted(&self, steps: u32) {
        *self.wasted.lock().unwrap() += steps;
    }
    fn incident(&self, incident: Incident<'_>) {
        self.incidents.lock().unwrap().push(format!("{incident:?}"));
    }
    fn stage(&self, stage: Stage, _: std::time::Duration) {
        self.stages.lock().unwrap().push(stage.name());
    }
    fn ended(&self, _: &Request, _: &Terms, ending: &Ending) {
        *self.ended.lock().unwrap().entry(ending.reason()).or_default() += 1;
    }
}

impl Tally {
    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap()
    }
    pub(crate) fn ended(&self) -> BTreeMap<&'static str, usize> {
        self.ended.lock().unwrap().clone()
    }
    pub(crate) fn stages(&self) -> Vec<&'static str> {
        self.stages.lock().unwrap().clone()
    }
    pub(crate) fn batches(&self) -> Vec<(usize, u32)> {
        self.batches.lock().unwrap().clone()
    }
    pub(crate) fn wasted(&self) -> u32 {
        *self.wasted.lock().unwrap()
    }
    pub(crate) fn incidents(&self) -> Vec<String> {
        self.incidents.lock().unwrap().clone()
    }
    /// Device time by tenant.
    pub(crate) fn worked(&self) -> BTreeMap<String, std::time::Duration> {
        self.worked.lock().unwrap().clone()
    }
    /// Waits until that many wait and run.
    pub(crate) async fn load_is(&self, queued: usize, running: usize) {
        self.load.subscribe().wait_for(|load| *load == (queued, running)).await.unwrap();
    }
}

pub(crate) struct Rig {
    pub(crate) service: Service,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) catalogue: Arc<Catalogue>,
}

impl Rig {
    pub(crate) async fn new(queue: usize, running: usize) -> Self {
        Self::with(Limits { queue, running, ..Limits::default() }, FakeOptions::default()).await
    }

    pub(crate) async fn with(limits: Limits, options: FakeOptions) -> Self {
        let fake = FakeExecutor::new(options);
        let (control, tally) = (fake.control(), Arc::new(Tally::default()));
        let service = Service::start(limits, Arc::clone(&tally) as Arc<dyn Monitor>, fake.loader());
        let catalogue = service.wait_ready().await.expect("the fake becomes ready");
        control.clear();
        Self { service, control, tally, catalogue }
    }

    pub(crate) fn requests(&self, draft: Draft) -> Vec<Request> {
        draft.check(&self.catalogue).expect("a valid draft")
    }

    pub(crate) fn submit(&self, draft: Draft) -> Ticket {
        self.service.submit(self.requests(draft)).expect("a free place").remove(0)
    }

    /// The jobs of every network call, by seed.
    pub(crate) fn seeds(&self) -> Vec<Vec<u64>> {
        self.control.calls().into_iter().map(|call| call.seeds).collect()
    }
}

impl Drop for Rig {
    // A device thread that a failed test left before a gate goes home.
    fn drop(&mut self) {
        self.control.steps.open();
        self.control.decoding.open();
    }
}

/// A job with this seed and so many steps, without guidance: one row.
pub(crate) fn draft(seed: i64, steps: i64) -> Draft {
    Draft {
        seed: Some(seed),
        steps: Some(steps),
        guidance: Some(1.0),
        sampler: Some("euler".to_owned()),
        ..Draft::new(Task::Txt2Img)
    }
}

/// The same with a prompt, which may be a script.
pub(crate) fn prompted(seed: i64, steps: i64, prompt: &str) -> Draft {
    Draft { prompt: Some(prompt.to_owned()), ..draft(seed, steps) }
}

/// The next event, which is progress.
pub(crate) async fn progress(ticket: &mut Ticket) -> Progress {
    match ticket.next().await {
        Some(Event::Progress(progress)) => progress,
        other => panic!("expected progress, got {other:?}"),
    }
}
