//! How many requests a second one generator can send: `ceiling serve` answers with the least work there is (one step, 64×64, a
//! fake device) and prints its address; `ceiling load URL [CLIENTS]` asks it in a closed loop for ten seconds.

use std::sync::Arc;
use std::time::Duration;

use ldm_bench::{HttpTarget, Length, Load, Mix, Options};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Service};
use ldm_http::{App, Metrics};

const LEAST: &str = "[[kind]]\nwidth = 64\nheight = 64\nsteps = 1\nguidance = 1.0\n";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve().await,
        ["load", url] => load(url, 32).await,
        ["load", url, clients] => load(url, clients.parse()?).await,
        _ => Err("usage: ceiling serve | ceiling load URL [CLIENTS]".into()),
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Arc::new(Metrics::new());
    let limits = Limits { queue: 4096, running: 16, ..Limits::default() };
    let service = Service::start(limits, Arc::clone(&metrics) as _, FakeExecutor::new(FakeOptions::default()).loader());
    service.wait_ready().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(ldm_http::serve(listener, App::new(service, metrics), std::future::pending(), Duration::ZERO).await?)
}

async fn load(url: &str, concurrency: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mix = Mix::parse(LEAST)?;
    let target = HttpTarget::new(url, &mix)?;
    let (length, warmup) = (Length::Time(Duration::from_secs(10)), Duration::from_secs(1));
    let options = Options { load: Load::Closed { concurrency }, length, warmup, ..Options::default() };
    println!("{}", ldm_bench::run(target, mix, options, |line| println!("{line}")).await?);
    Ok(())
}
