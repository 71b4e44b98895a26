//! `latentd bench --policy`: the same load on an engine of this process, under one policy of the scheduler after the other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ldm_bench::{Mix, Options, Report, ServiceTarget, side_by_side};
use ldm_core::{Failure, FailureKind};
use ldm_engine::{Limits, Policy};
use ldm_pipeline::{DeviceExecutor, Dtype, LoadOptions, ModelSource};

use super::write;

/// What an engine of this process is made of.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Load an engine of this process instead of a server, under that policy; several are loaded in turn, and compared.
    #[arg(long = "policy", value_name = "POLICY", conflicts_with = "url")]
    policies: Vec<Named>,
    /// The engine's model.
    #[arg(long, value_name = "DIR", default_value = "assets/demo", requires = "policies")]
    model: PathBuf,
    /// Number format of its networks: f32, bf16 or f16.
    #[arg(long, default_value_t, requires = "policies")]
    dtype: Dtype,
    /// Threads that compute; the system's choice when it is not given.
    #[arg(long, requires = "policies")]
    threads: Option<usize>,
    /// Rows that a call may hold.
    #[arg(long, value_name = "N", default_value_t = Limits::default().rows, requires = "policies")]
    row_cap: u32,
    /// Pictures that may be unfinished at once.
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue, requires = "policies")]
    queue: usize,
}

/// A policy that can be asked for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Named {
    /// Jobs join and leave at every step.
    Steps,
    /// Whole requests in batches of up to eight, gathered for up to 50 ms: a baseline.
    Requests,
    /// One request after another: a baseline.
    Single,
}

impl Named {
    fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Requests => "requests",
            Self::Single => "single",
        }
    }

    fn policy(self) -> Policy {
        match self {
            Self::Steps => Policy::Steps,
            Self::Requests => Policy::RequestBatches { size: 8, window: Duration::from_millis(50) },
            Self::Single => Policy::OneAtATime,
        }
    }
}

impl Args {
    pub(super) fn is_asked_for(&self) -> bool {
        !self.policies.is_empty()
    }

    async fn target(&self, policy: Policy) -> Result<ServiceTarget> {
        let id = self.model.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        let source = ModelSource::new(id, &self.model);
        let options = LoadOptions { dtype: self.dtype, threads: self.threads, ..LoadOptions::default() };
        let load = move || {
            let device = DeviceExecutor::load(&[source], &options);
            device.map_err(|error| Failure::new(FailureKind::Unsupported, error.to_string()))
        };
        let limits = Limits { rows: self.row_cap, queue: self.queue, policy, ..Limits::default() };
        ServiceTarget::start(limits, load).await.map_err(|reason| anyhow!("{}: {reason}", self.model.display()))
    }
}

/// The load, under one policy after the other.
pub(super) fn run(args: &Args, mix: &Mix, options: Options, json: Option<&Path>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let mut reports: Vec<(&str, Report)> = Vec::new();
    for named in &args.policies {
        let report = runtime.block_on(async {
            let target = Arc::new(args.target(named.policy()).await?);
            let tell = |line: &str| eprintln!("{}: {line}", named.name());
            let report = ldm_bench::run(Arc::clone(&target), mix.clone(), options.clone(), tell).await;
            target.end().await;
            report.map_err(anyhow::Error::from)
        })?;
        println!("policy {}\n{report}", named.name());
        reports.push((named.name(), report));
    }
    let all: Vec<(&str, &Report)> = reports.iter().map(|(name, report)| (*name, report)).collect();
    print!("{}", side_by_side(&all));
    if let Some(path) = json {
        let all: std::collections::BTreeMap<_, _> = all.into_iter().collect();
        write(path, &all)?;
    }
    Ok(ExitCode::SUCCESS)
}
