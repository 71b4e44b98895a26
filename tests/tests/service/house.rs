//! A whole service on a socket of its own, in front of a fake device that a test can hold still.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ldm_core::{Ending, Request, Tenant, Terms};
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::{Batch, Incident, Limits, Load, Monitor, Service, Stage};
use ldm_http::{App, HttpLimits, Metrics};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::{self, Answer, Open};

/// Nothing takes this long, unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the metrics, and the test when the load changes.
struct Watched {
    metrics: Arc<Metrics>,
    load: watch::Sender<(usize, usize)>,
}

impl Monitor for Watched {
    fn accepted(&self, request: &Request, terms: &Terms) {
        self.metrics.accepted(request, terms);
    }
    fn load(&self, load: &Load) {
        self.metrics.load(load);
        self.load.send_replace((load.queued, load.running));
    }
    fn batch(&self, batch: Batch<'_>) {
        self.metrics.batch(batch);
    }
    fn worked(&self, tenant: &Tenant, took: Duration) {
        self.metrics.worked(tenant, took);
    }
    fn wasted(&self, steps: u32) {
        self.metrics.wasted(steps);
    }
    fn incident(&self, incident: Incident<'_>) {
        self.metrics.incident(incident);
    }
    fn stage(&self, stage: Stage, took: Duration) {
        self.metrics.stage(stage, took);
    }
    fn ended(&self, request: &Request, terms: &Terms, ending: &Ending) {
        self.metrics.ended(request, terms, ending);
    }
}

/// A running service.
pub(crate) struct House {
    pub(crate) at: SocketAddr,
    pub(crate) service: Service,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) metrics: Arc<Metrics>,
    load: watch::Receiver<(usize, usize)>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl House {
    /// A service that takes jobs, with nothing counted yet at the fake device.
    pub(crate) async fn ready(limits: Limits) -> Self {
        let house = Self::loading(limits, |_| {}).await;
        house.service.wait_ready().await.unwrap();
        house.control.clear();
        house
    }

    /// A service that may still be loading; `hold` closes gates before it starts.
    pub(crate) async fn loading(limits: Limits, hold: impl FnOnce(&FakeControl)) -> Self {
        Self::dressed(limits, hold, |app, _| app).await
    }

    /// The same with an app of its own.
    pub(crate) async fn dressed(
        limits: Limits,
        hold: impl FnOnce(&FakeControl),
        dress: impl FnOnce(App, &Service) -> App,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (sender, load) = watch::channel((0, 0));
        let executor = FakeExecutor::new(FakeOptions::default());
        let control = executor.control();
        hold(&control);
        let monitor = Watched { metrics: Arc::clone(&metrics), load: sender };
        let service = Service::start(limits, Arc::new(monitor), executor.loader());
        let limits = HttpLimits { body_bytes: 1 << 20, ..HttpLimits::default() };
        let app = dress(App::new(service.clone(), Arc::clone(&metrics)).limits(limits), &service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopping) = oneshot::channel();
        let stopped = async move {
            let _ = stopping.await;
        };
        let server = tokio::spawn(ldm_http::serve(listener, app, stopped, PATIENCE));
        Self { at, service, control, metrics, load, stop: Some(stop), server }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        client::fetch(self.at, "GET", path, "*/*", b"").await
    }

    pub(crate) async fn post(&self, path: &str, accept: &str, body: Value) -> Answer {
        client::fetch(self.at, "POST", path, accept, body.to_string().as_bytes()).await
    }

    /// The answer to a post, once somebody awaits it; the request is sent now.
    pub(crate) async fn sent(&self, path: &str, accept: &str, body: Value) -> tokio::io::BufReader<tokio::net::TcpStream> {
        client::ask(self.at, "POST", path, accept, body.to_string().as_bytes()).await
    }

    /// An event stream.
    pub(crate) async fn stream(&self, path: &str, body: Value) -> Open {
        client::head(self.sent(path, "text/event-stream", body).await).await
    }

    /// Waits until that many jobs wait and run.
    pub(crate) async fn load_is(&mut self, queued: usize, running: usize) {
        let there = self.load.wait_for(|load| *load == (queued, running));
        let there = tokio::time::timeout(PATIENCE, there).await.is_ok();
        assert!(there, "the load stayed at {:?}", self.service.load());
    }

    /// Waits until the metrics have this line. What it waits for has no other voice, so it looks again and again.
    pub(crate) async fn counted(&self, line: &str) {
        let look = async {
            while !self.metrics.text().lines().any(|known| known == line) {
                tokio::task::yield_now().await;
            }
        };
        let there = tokio::time::timeout(PATIENCE, look).await.is_ok();
        assert!(there, "{line} is not among\n{}", self.metrics.text());
    }

    /// Tells the service to stop, as SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("it is stopped once").send(()).unwrap();
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.server).await.expect("the server ends").unwrap().unwrap();
    }
}
