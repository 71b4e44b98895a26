//! `latentd bench`: puts a load on a running server, or on an engine of this process, and says how it fared.

mod policies;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use ldm_bench::{HttpTarget, Length, Load, Mix, Options, Report};

use crate::exit::Usage;

/// Arguments of `latentd bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Open loop: requests per second, at the times of a Poisson process.
    #[arg(long, value_name = "R", conflicts_with = "concurrency")]
    rate: Option<f64>,
    /// Closed loop: clients that send one request after the other.
    #[arg(long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value_t = 30.0, conflicts_with = "requests")]
    duration: f64,
    /// Measure that many requests instead.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Seconds of load before it is measured.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    warmup: f64,
    /// What is asked for, a .toml file; a built-in mix for the demo model when it is not given.
    #[arg(long, value_name = "FILE")]
    mix: Option<PathBuf>,
    /// The share of requests, 0 to 1, whose client goes away after a random part of their solo time.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    cancel_share: f64,
    /// Send a refused request again up to that many times, each time after the server's Retry-After.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: u32,
    /// Measured requests of each kind on the idle server before the load; 0 leaves out goodput and wasted steps.
    #[arg(long, value_name = "N", default_value_t = 3)]
    solo_runs: u32,
    /// Seconds after which a request has failed.
    #[arg(long, value_name = "S", default_value_t = 600.0)]
    timeout: f64,
    /// Requests under way at most in an open loop.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    in_flight: usize,
    /// Of arrivals, kinds, prompts, seeds and cancels.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    engine: policies::Args,
    /// Compare two written reports instead.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Option<Vec<PathBuf>>,
}

/// Loads, or compares.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    if let Some([a, b]) = args.compare.as_deref() {
        print!("{}", ldm_bench::compare(&read(a)?, &read(b)?));
        return Ok(ExitCode::SUCCESS);
    }
    let options = options(args)?;
    options.check().map_err(usage)?;
    let mix = mix(args.mix.as_deref())?;
    if args.engine.is_asked_for() {
        return policies::run(&args.engine, &mix, options, args.json.as_deref());
    }
    let target = HttpTarget::new(&args.url, &mix).map_err(usage)?;
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let report = runtime.block_on(ldm_bench::run(target, mix, options, |line| eprintln!("{line}")))?;
    print!("{report}");
    if let Some(path) = &args.json {
        write(path, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, report: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("the report")?;
    std::fs::write(path, json + "\n").with_context(|| path.display().to_string())
}

fn usage(error: impl std::fmt::Display) -> Usage {
    Usage(error.to_string())
}

fn options(args: &Args) -> Result<Options> {
    let time = |field: &str, seconds: f64| {
        let wrong = |_| Usage(format!("`{field}` must be a number of seconds from 0, not {seconds}"));
        Duration::try_from_secs_f64(seconds).map_err(wrong)
    };
    Ok(Options {
        load: match args.rate {
            Some(rate) => Load::Open { rate },
            None => Load::Closed { concurrency: args.concurrency },
        },
        length: match args.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(time("duration", args.duration)?),
        },
        warmup: time("warmup", args.warmup)?,
        cancel_share: args.cancel_share,
        retries: args.retry,
        solo_runs: args.solo_runs,
        timeout: time("timeout", args.timeout)?,
        in_flight: args.in_flight,
        seed: args.seed,
    })
}

fn mix(path: Option<&Path>) -> Result<Mix> {
    let Some(path) = path else { return Ok(Mix::built_in()?) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Mix::parse(&text).map_err(|error| Usage(format!("{}: {error}", path.display())))?)
}

fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report of `latentd bench --json`", path.display()))
}
