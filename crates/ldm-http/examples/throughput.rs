//! How many requests a second go through HTTP, queue and scheduler when the device takes no time: one pixel a picture, both ends in
//! this process, on two threads. And how long a job takes from its submission to its first step: the queue hop.
//!
//! `cargo run --release -p ldm-http --example throughput -- [requests] [connections] [pause in µs] [log]`: a client pauses so long
//! after each answer; with `log` the records of requests are written as JSON to standard error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ldm_core::{Ending, Request, Tenant, Terms};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Batch, CacheCounts, Incident, Limits, Load, Monitor, Service, Stage};
use ldm_http::{App, Metrics};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const BODY: &str = r#"{"prompt": "a cat", "steps": 1, "seed": 1}"#;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The metrics as they are served, and how long jobs took to their first step, in nanoseconds.
struct Hops {
    metrics: Arc<Metrics>,
    waits: Mutex<Histogram<u64>>,
}

impl Monitor for Hops {
    fn accepted(&self, request: &Request, terms: &Terms) {
        self.metrics.accepted(request, terms);
    }
    fn load(&self, load: &Load) {
        Monitor::load(&*self.metrics, load);
    }
    fn batch(&self, batch: Batch<'_>) {
        self.metrics.batch(batch);
    }
    fn stage(&self, stage: Stage, took: Duration) {
        self.metrics.stage(stage, took);
    }
    fn worked(&self, tenant: &Tenant, took: Duration) {
        self.metrics.worked(tenant, took);
    }
    fn cache(&self, counts: CacheCounts) {
        self.metrics.cache(counts);
    }
    fn wasted(&self, steps: u32) {
        Monitor::wasted(&*self.metrics, steps);
    }
    fn incident(&self, incident: Incident<'_>) {
        self.metrics.incident(incident);
    }
    fn ended(&self, request: &Request, terms: &Terms, ending: &Ending) {
        if let Ending::Finished(output) = ending {
            let took = output.timings.queued + output.timings.prepare;
            // It grows as it must.
            let _ = self.waits.lock().unwrap_or_else(PoisonError::into_inner).record(took.as_nanos() as u64);
        }
        self.metrics.ended(request, terms, ending);
    }
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (requests, connections, pause) = (number(20_000)?, number(32)?, number(0)?);
    if arguments.next().as_deref() == Some("log") {
        tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(requests, connections, Duration::from_micros(pause as u64)))
}

async fn measure(requests: usize, connections: usize, pause: Duration) -> Outcome<()> {
    let metrics = Arc::new(Metrics::new());
    let limits = Limits { queue: 4 * connections, running: connections.max(16), ..Limits::default() };
    let options = FakeOptions { models: vec![("pixel".to_owned(), true)], ..FakeOptions::default() };
    let executor = FakeExecutor::new(options);
    let control = executor.control();
    let hops = Arc::new(Hops { metrics: Arc::clone(&metrics), waits: Mutex::new(Histogram::new(3)?) });
    let service = Service::start(limits, Arc::clone(&hops) as _, executor.loader());
    service.wait_ready().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(ldm_http::serve(listener, App::new(service, metrics), std::future::pending(), Duration::ZERO));
    let left = Arc::new(AtomicUsize::new(requests));
    let began = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let left = Arc::clone(&left);
            tokio::spawn(async move { ask(at, &left, pause).await })
        })
        .collect();
    let watch = Arc::clone(&left);
    let marks = tokio::spawn(async move {
        let mut marks = Vec::new();
        while watch.load(Ordering::Relaxed) > 0 {
            marks.push(resident_kib());
            // The fake device remembers its calls for tests; that is no part of the service.
            control.clear();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        marks
    });
    let mut waits = Vec::new();
    for client in clients {
        waits.extend(client.await??);
    }
    let took = began.elapsed();
    let marks = marks.await?;
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    let rate = requests as f64 / took.as_secs_f64();
    println!("{requests} requests over {connections} connections in {took:.2?}: {rate:.0}/s");
    println!("latency p50 {:.2?}, p99 {:.2?}", at(0.5), at(0.99));
    let hop = hops.waits.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |share: f64| Duration::from_nanos(hop.value_at_quantile(share));
    println!("submission to first step p50 {:.2?}, p95 {:.2?}, p99 {:.2?}", at(0.5), at(0.95), at(0.99));
    let settled = marks.len() / 4;
    println!("resident memory: {} KiB after a quarter, {} KiB at the end", marks[settled], resident_kib());
    Ok(())
}

/// Asks over one connection until nothing is left to ask; how long every sixteenth answer took.
async fn ask(at: std::net::SocketAddr, left: &AtomicUsize, pause: Duration) -> Outcome<Vec<Duration>> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let request = format!(
        "POST /v1/txt2img HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let (mut waits, mut line, mut body) = (Vec::new(), String::new(), Vec::new());
    let mut nth_answer = 0_usize;
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut length = 0;
        for nth in 0.. {
            line.clear();
            stream.read_line(&mut line).await?;
            if nth == 0 && !line.starts_with("HTTP/1.1 200") {
                return Err(line.into());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        // A sample will do, so that the client's own memory stays small.
        if nth_answer.is_multiple_of(16) {
            waits.push(began.elapsed());
        }
        nth_answer += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(waits)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
