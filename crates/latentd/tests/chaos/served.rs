//! The process that breaks: the tiny model on two devices, named jobs in a folder, the real routes.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldm_cluster::Sqlite;
use ldm_core::{Failure, FailureKind, Mode};
use ldm_engine::ledger::{Clock, LedgerLimits, Retention, SystemClock};
use ldm_engine::node::{Node, Parts};
use ldm_engine::objects::Objects;
use ldm_engine::{Limits, Service, Worker};
use ldm_http::{App, Metrics};
use ldm_pipeline::{DeviceExecutor, LoadOptions, ModelSource};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::faulty::{Faulty, World, tell};
use crate::script;
use crate::telling::Telling;

/// A diffusers directory of a model of a million random parameters: 4×16×16 latents, pictures of 64×64.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/tiny-sd");
/// How long the process takes to stop at most.
const GRACE: Duration = Duration::from_secs(60);

/// The model on a device without faults.
pub(crate) fn device() -> Result<DeviceExecutor, Failure> {
    let options = LoadOptions { mode: Mode::BatchInvariant, threads: Some(1), ..LoadOptions::default() };
    let model = [ModelSource::new("tiny", TINY)];
    DeviceExecutor::load(&model, &options).map_err(|error| Failure::new(FailureKind::Device, error.to_string()))
}

/// Serves until its standard input ends.
pub(crate) fn run(folder: &Path, is_first: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(folder, is_first));
}

async fn serve(folder: &Path, is_first: bool) {
    let world = Arc::new(World::new(script::jobs(), is_first));
    let worker = |name: &str| {
        let world = Arc::clone(&world);
        Worker::new(name, move || Ok(Faulty::new(device()?, Arc::clone(&world))))
    };
    let limits = Limits { checkpoint_every: Duration::from_millis(10), ..Limits::default() };
    let metrics = Arc::new(Metrics::new());
    let service = Service::pool(limits, Arc::clone(&metrics) as _, vec![worker("one"), worker("two")]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let ledger = Sqlite::with_clock(folder, LedgerLimits::default(), Arc::clone(&clock)).unwrap();
    let node = Node::start(Parts {
        name: "chaos".to_owned(),
        service: service.clone(),
        ledger: Arc::new(Telling::new(ledger)),
        objects: Objects::folder(&folder.join("objects")).unwrap(),
        encode: ldm_http::keeper(service.clone()),
        clock,
        retention: Retention::default(),
        capacity: 12,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell(&format!("listening {}", listener.local_addr().unwrap()));
    let (driver_gone, gone) = oneshot::channel();
    std::thread::spawn(move || {
        // It ends when the driver lets go of it, also by dying.
        let _ = std::io::stdin().read(&mut [0]);
        if is_first {
            // It may stand still, and could not stop in good order.
            std::process::exit(1);
        }
        let _ = driver_gone.send(());
    });
    let stop = async {
        let _ = gone.await;
    };
    ldm_http::serve(listener, App::new(service, metrics).named(node), stop, GRACE).await.unwrap();
}
