//! Named jobs: whatever happens to a node, each ends once, with the picture of its request.

use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Draft, JobId, Output, Terms};
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::ledger::{
    Clock, JobState, JobView, Ledger, LedgerLimits, ManualClock, Memory, Outcome, Retention, Submitted, SystemClock, Timestamp,
};
use ldm_engine::node::{Encoded, Named, Node, Parts};
use ldm_engine::objects::Objects;
use ldm_engine::{Limits, Service, Silent, Worker};

use crate::rig::{draft, prompted};

/// What outlives a process.
#[derive(Clone)]
struct World {
    ledger: Arc<dyn Ledger>,
    objects: Objects,
    clock: Arc<dyn Clock>,
}

impl World {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let ledger = Arc::new(Memory::with_clock(LedgerLimits::default(), Arc::clone(&clock)));
        Self { ledger, objects: Objects::memory(), clock }
    }
}

/// A process.
struct Process {
    node: Node,
    service: Service,
    control: Arc<FakeControl>,
}

impl Process {
    async fn new(world: &World, options: FakeOptions, checkpoint_every: Duration) -> Self {
        let fake = FakeExecutor::new(options);
        let control = fake.control();
        let limits = Limits { checkpoint_every, ..Limits::default() };
        let service = Service::pool(limits, Arc::new(Silent), vec![Worker::new("fake", fake.maker())]);
        service.wait_ready().await.unwrap();
        while service.workers()[0].residents.is_empty() {
            tokio::task::yield_now().await;
        }
        control.clear();
        let node = Node::start(Parts {
            name: "node".to_owned(),
            service: service.clone(),
            ledger: Arc::clone(&world.ledger),
            objects: world.objects.clone(),
            encode: Arc::new(encode),
            clock: Arc::clone(&world.clock),
            retention: Retention::default(),
            capacity: 8,
        });
        Self { node, service, control }
    }

    fn named(&self, draft: Draft) -> Named {
        let images = draft.images.unwrap_or(1) as u32;
        let request = Draft { images: None, ..draft }.check(&self.service.catalogue().unwrap()).unwrap().remove(0);
        Named {
            id: JobId::new(),
            terms: Terms::default(),
            request,
            images,
            fingerprint: [7; 32],
            key: None,
            name: None,
            note: String::new(),
            hook: None,
        }
    }

    async fn submit(&self, draft: Draft) -> JobId {
        let named = self.named(draft);
        let id = named.id;
        assert!(matches!(self.node.submit(named).await.unwrap(), Submitted::New(_)));
        id
    }

    /// What is left half done is let go of, as on SIGTERM.
    async fn stop(self) {
        self.node.stop_claiming();
        let opened = Arc::clone(&self.control);
        let (drain, ()) = tokio::join!(self.service.drain(Duration::ZERO), async {
            tokio::task::yield_now().await;
            opened.steps.open();
        });
        let () = drain;
        self.node.leave().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.control.steps.open();
        self.control.decoding.open();
    }
}

/// The pixels as they are.
fn encode(output: &Output) -> Result<Encoded, String> {
    Ok(Encoded { bytes: output.image.data().to_vec(), detail: format!("{{\"seed\":{}}}", output.request.seed) })
}

async fn view(world: &World, id: JobId) -> JobView {
    world.ledger.get(&[id]).await.unwrap().remove(0)
}

/// Waits until the ledger says that it has ended.
async fn ended(world: &World, id: JobId) -> JobState {
    loop {
        let view = view(world, id).await;
        if view.state.is_terminal() {
            return view.state;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asserts that the job has these pictures.
async fn has_pictures(world: &World, id: JobId, seeds: &[u64]) {
    let state = ended(world, id).await;
    let JobState::Ended(Outcome::Succeeded { outputs, detail }) = state else { panic!("{state:?}") };
    let details: Vec<String> = seeds.iter().map(|seed| format!("{{\"seed\":{seed}}}")).collect();
    assert_eq!(detail, format!("[{}]", details.join(",")));
    assert_eq!(outputs.len(), seeds.len());
    for (output, &seed) in outputs.iter().zip(seeds) {
        let bytes = world.objects.get(output).await.unwrap();
        assert_eq!(bytes, FakeExecutor::picture(seed, 64, 64).data(), "picture of seed {seed}");
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_job_has_its_pictures() {
    let world = World::new(Arc::new(SystemClock::default()));
    let process = Process::new(&world, FakeOptions::default(), NEVER).await;
    let one = process.submit(draft(5, 3)).await;
    let several = process.submit(Draft { images: Some(3), ..draft(10, 3) }).await;
    has_pictures(&world, one, &[5]).await;
    has_pictures(&world, several, &[10, 11, 12]).await;
    process.stop().await;
    assert_eq!(world.ledger.load().await.unwrap().nodes, 0, "the node said goodbye");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_is_the_same_job() {
    let world = World::new(Arc::new(SystemClock::default()));
    let process = Process::new(&world, FakeOptions::default(), NEVER).await;
    let key = |named: Named, fingerprint| Named { key: Some("k".to_owned()), fingerprint, ..named };
    let first = key(process.named(draft(5, 3)), [1; 32]);
    let id = first.id;
    assert!(matches!(process.node.submit(first).await.unwrap(), Submitted::New(_)));
    let again = process.node.submit(key(process.named(draft(5, 3)), [1; 32])).await.unwrap();
    assert!(matches!(again, Submitted::Existing(view) if view.id == id));
    let other = process.node.submit(key(process.named(draft(6, 3)), [2; 32])).await.unwrap();
    assert_eq!(other, Submitted::Conflict(id));
    has_pictures(&world, id, &[5]).await;
    assert_eq!(process.control.preparations(), [5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_and_cancelling_are_endings() {
    let world = World::new(Arc::new(SystemClock::default()));
    let process = Process::new(&world, FakeOptions::default(), NEVER).await;
    let bad = process.submit(prompted(1, 3, "!nan@2")).await;
    let state = ended(&world, bad).await;
    assert!(matches!(&state, JobState::Ended(Outcome::Failed { reason, .. }) if reason == "not_finite"), "{state:?}");
    process.control.steps.close();
    let unwanted = process.submit(draft(2, 50)).await;
    process.control.steps.wait_blocked();
    process.node.cancel(unwanted).await.unwrap();
    assert_eq!(ended(&world, unwanted).await, JobState::Ended(Outcome::Canceled));
    process.control.steps.open();
    while process.service.load().running > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(process.control.steps_of(2) <= 2, "at most one step is wasted");
    assert_eq!(process.service.load().running + process.service.load().queued, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_sees_the_steps_and_the_end() {
    let world = World::new(Arc::new(SystemClock::default()));
    let process = Process::new(&world, FakeOptions::default(), NEVER).await;
    process.control.steps.close();
    let id = process.submit(draft(3, 3)).await;
    process.control.steps.wait_blocked();
    let mut sightings = process.node.watch(id).expect("it runs here");
    process.control.steps.open();
    sightings.wait_for(|sight| sight.over).await.unwrap();
    assert!(process.node.watch(id).is_none());
    has_pictures(&world, id, &[3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_leaves_goes_on_in_the_next_from_where_it_was() {
    let world = World::new(Arc::new(SystemClock::default()));
    let first = Process::new(&world, FakeOptions::default(), NEVER).await;
    first.control.steps.close();
    let id = first.submit(draft(7, 10)).await;
    first.control.steps.wait_blocked();
    first.control.steps.allow(4);
    first.control.steps.wait_blocked();
    first.stop().await;
    let left = view(&world, id).await;
    assert!(matches!(left.state, JobState::Queued { .. }), "{:?}", left.state);
    assert_eq!(left.crashes, 0, "stopping in good order is no crash");

    let second = Process::new(&world, FakeOptions::default(), NEVER).await;
    has_pictures(&world, id, &[7]).await;
    assert!(second.control.steps_of(7) < 10, "{} steps were made again", second.control.steps_of(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_goes_on_from_its_last_checkpoint() {
    let clock = ManualClock::new(Timestamp(1_000_000));
    let world = World::new(Arc::new(clock.clone()));
    let options = FakeOptions { step: Duration::from_millis(2), ..FakeOptions::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let there = world.clone();
    let start = async move { Process::new(&there, options, Duration::from_millis(4)).await };
    let first = runtime.spawn(start).await.unwrap();
    let id = first.submit(draft(7, 40)).await;
    while !matches!(view(&world, id).await.state, JobState::Running { step, .. } if step > 3) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // From one moment to the next nothing of it runs any more, and nobody renews the lease.
    first.control.steps.close();
    runtime.shutdown_background();
    clock.advance(Duration::from_secs(11));

    let second = Process::new(&world, FakeOptions::default(), NEVER).await;
    has_pictures(&world, id, &[7]).await;
    let view = view(&world, id).await;
    assert_eq!(view.crashes, 1);
    assert!(second.control.steps_of(7) < 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_gone_is_a_reason() {
    let world = World::new(Arc::new(SystemClock::default()));
    let process = Process::new(&world, FakeOptions::default(), NEVER).await;
    process.control.steps.close();
    let busy = process.submit(draft(1, 5)).await;
    process.control.steps.wait_blocked();
    process.node.stop_claiming();
    let init = ldm_core::Raster::filled(64, 64, [9; 3]);
    let img2img = Draft { task: ldm_core::Task::Img2Img, init_image: Some(init), strength: Some(0.5), ..draft(2, 4) };
    let id = process.submit(img2img).await;
    world.objects.delete(&ldm_engine::objects::input_key(id, 0)).await.unwrap();
    process.control.steps.open();
    has_pictures(&world, busy, &[1]).await;

    let _next = Process::new(&world, FakeOptions::default(), NEVER).await;
    let state = ended(&world, id).await;
    assert!(matches!(&state, JobState::Ended(Outcome::Failed { reason, .. }) if reason == "input_lost"), "{state:?}");
}
