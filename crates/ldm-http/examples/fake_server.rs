//! The whole HTTP edge in front of a device that takes no time, for programs that try the interface: `make contract` does.
//!
//! `cargo run -p ldm-http --example fake_server -- [address]`, by default `127.0.0.1:0`; where it listens is the first line that it
//! prints. Named jobs are kept in memory, models are changed in words alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ldm_core::Failure;
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::ledger::{LedgerLimits, Memory, Retention, SystemClock};
use ldm_engine::node::{Node, Parts};
use ldm_engine::objects::Objects;
use ldm_engine::{Limits, Service};
use ldm_http::{Admin, App, Metrics, ModelOrder, Models};
use tokio::net::TcpListener;

/// Every order is carried out, by doing nothing.
struct Idle;

#[async_trait]
impl Models for Idle {
    async fn change(&self, _: ModelOrder) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let metrics = Arc::new(Metrics::new());
    let executor = FakeExecutor::new(FakeOptions::default());
    let service = Service::start(Limits::default(), Arc::clone(&metrics) as _, executor.loader());
    service.wait_ready().await?;
    let clock = Arc::new(SystemClock::default());
    let node = Node::start(Parts {
        name: "fake".to_owned(),
        service: service.clone(),
        ledger: Arc::new(Memory::with_clock(LedgerLimits::default(), Arc::clone(&clock) as _)),
        objects: Objects::memory(),
        encode: ldm_http::keeper(service.clone()),
        clock,
        retention: Retention::default(),
        capacity: 8,
    });
    let listener = TcpListener::bind(&address).await?;
    println!("http://{}", listener.local_addr()?);
    let app = App::new(service, metrics).named(node).admin(Admin::new(Arc::new(Idle), None));
    ldm_http::serve(listener, app, std::future::pending(), Duration::ZERO).await?;
    Ok(())
}
