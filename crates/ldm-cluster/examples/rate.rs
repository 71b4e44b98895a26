//! How many jobs a second go through a ledger: handed in, claimed by fours, ended. `rate [callers] [jobs]`.

use std::sync::Arc;
use std::time::Instant;

use ldm_cluster::Sqlite;
use ldm_engine::ledger::contract::{done, job, want};
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, NewJob, NodeId, NodeState};

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<usize>().expect("a number"));
    let (callers, jobs) = (numbers.next().unwrap_or(16), numbers.next().unwrap_or(4_000));
    let folder = tempfile::tempdir().expect("a folder");
    let limits =
        LedgerLimits { jobs: 1 << 30, tenant_jobs: 1 << 30, records: 1 << 30, bytes: 1 << 60, ..LedgerLimits::default() };
    measure("memory", Arc::new(Memory::new(limits.clone())), callers, jobs).await;
    let sqlite = Sqlite::open(folder.path(), limits).expect("a ledger");
    measure("sqlite", Arc::new(sqlite), callers, jobs).await;
}

async fn measure(name: &str, ledger: Arc<dyn Ledger>, callers: usize, jobs: usize) {
    let began = Instant::now();
    let each = jobs / callers;
    let work = (0..callers).map(|_| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            for _ in 0..each {
                ledger.submit(NewJob { spec: "x".repeat(2_000), ..job("a") }).await.expect("accepted");
            }
        })
    });
    all(work.collect()).await;
    let submitted = began.elapsed();
    let began = Instant::now();
    let work = (0..callers).map(|_| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let node = NodeId::new("node");
            let state = NodeState { capacity: 4, ..NodeState::default() };
            ledger.beat(&node, state.clone()).await.expect("a lease");
            let mut renewed = Instant::now();
            loop {
                let claims = ledger.claim(&node, &want(4)).await.expect("claims");
                if claims.is_empty() {
                    break;
                }
                for claim in claims {
                    ledger.finish(&claim.fence, done()).await.expect("an ending");
                }
                if renewed.elapsed().as_secs() >= 2 {
                    ledger.beat(&node, state.clone()).await.expect("a lease");
                    renewed = Instant::now();
                }
            }
        })
    });
    all(work.collect()).await;
    let ended = began.elapsed();
    let rate = |time: std::time::Duration| (each * callers) as f64 / time.as_secs_f64();
    let whole = rate(submitted + ended);
    println!(
        "{name}: {callers} callers: submit {:.0}/s, claim and finish {:.0}/s, all three {whole:.0}/s",
        rate(submitted),
        rate(ended)
    );
}

async fn all(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("no panic");
    }
}
