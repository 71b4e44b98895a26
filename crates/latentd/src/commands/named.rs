//! Named jobs of `latentd serve`: where they are kept, and who keeps them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ldm_cluster::Sqlite;
use ldm_engine::Service;
use ldm_engine::ledger::{Clock, Ledger, LedgerLimits, Memory, Retention, SystemClock};
use ldm_engine::node::{Node, Parts};
use ldm_engine::objects::Objects;
use ldm_http::WebhookOptions;

use crate::config::{Config, Webhooks};

/// The process's share in named jobs: in memory, or in the configured folder.
pub(super) fn node(config: &Config, service: &Service) -> Result<Node> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let bytes = config.kept_bytes();
    let limits = match config.jobs.state_dir.is_empty() {
        true => LedgerLimits { bytes, ..LedgerLimits::default() },
        false => LedgerLimits::default(),
    };
    let (ledger, objects): (Arc<dyn Ledger>, Objects) = match config.jobs.state_dir.as_str() {
        "" => (Arc::new(Memory::with_clock(limits, Arc::clone(&clock))), Objects::memory()),
        folder => {
            let ledger = Sqlite::with_clock(Path::new(folder), limits, Arc::clone(&clock)).context("jobs.state_dir")?;
            let objects = Objects::folder(&Path::new(folder).join("objects")).context("jobs.state_dir")?;
            (Arc::new(ledger), objects)
        }
    };
    let ttl = Duration::from_secs(u64::from(config.jobs.kept_hours) * 3600);
    Ok(Node::start(Parts {
        name: "latentd".to_owned(),
        service: service.clone(),
        ledger,
        objects,
        encode: ldm_http::keeper(service.clone()),
        clock,
        retention: Retention { ttl, bytes, ..Retention::default() },
        // Claims are leases: more than are run at once would only wait here, and be counted as crashed when this process is.
        capacity: config.engine.running,
    }))
}

/// How webhooks are called; the secrets are read from their file.
pub(super) fn webhooks(config: &Config) -> Result<WebhookOptions> {
    let Webhooks { allow, allow_private, secret_file } = config.webhooks.clone();
    let secrets = match (allow.is_empty(), secret_file.as_str()) {
        (true, _) => String::new(),
        (false, "") => bail!("webhooks.secret_file must be set when webhooks.allow lists an origin"),
        (false, file) => std::fs::read_to_string(file).with_context(|| format!("webhooks.secret_file: {file}"))?,
    };
    Ok(WebhookOptions { allow, allow_private, secrets })
}
