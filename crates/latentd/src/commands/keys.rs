//! `latentd keys`: keys for the file that `server.keys_file` names.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use ldm_http::{Keys, Secret};

use crate::exit::Usage;

/// What is done with keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a new key: its entry for the keys file goes to stdout, the key itself to stderr, once.
    New(New),
}

/// What the new key may.
#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// On whose behalf: letters, digits and . _ -
    #[arg(long)]
    name: String,
    /// user, or admin, who may change models and read metrics.
    #[arg(long, default_value = "user")]
    role: String,
    /// Requests for work per minute.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How many of them may come at once.
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Jobs that may be unfinished at once.
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// The most urgent that its jobs may be: interactive or batch.
    #[arg(long)]
    priority: Option<String>,
    /// A model that it may use; may be given several times. Every one without it.
    #[arg(long = "model", value_name = "ID")]
    models: Vec<String>,
    /// Until when it is good, such as 2030-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

/// Does what was asked for.
pub(super) fn run(command: &Command) -> Result<ExitCode> {
    let Command::New(new) = command;
    let Secret { secret, sha256 } = Secret::new()?;
    let entry = new.entry(&sha256);
    Keys::check(&entry).map_err(|error| Usage(error.to_string()))?;
    std::io::stdout().write_all(entry.as_bytes())?;
    eprintln!("The key of {}, which is kept nowhere: {secret}", new.name);
    Ok(ExitCode::SUCCESS)
}

impl New {
    /// The entry of the keys file.
    fn entry(&self, sha256: &str) -> String {
        let text = |text: &str| toml::Value::from(text).to_string();
        let lines = [
            ("name", Some(text(&self.name))),
            ("sha256", Some(text(sha256))),
            ("role", Some(text(&self.role))),
            ("rate", self.rate.map(|rate| rate.to_string())),
            ("burst", self.burst.map(|burst| burst.to_string())),
            ("concurrency", self.concurrency.map(|most| most.to_string())),
            ("priority", self.priority.as_deref().map(text)),
            ("models", (!self.models.is_empty()).then(|| toml::Value::from(self.models.clone()).to_string())),
            // A date stands there without quotes.
            ("expires", self.expires.clone()),
        ];
        let lines = lines.into_iter().filter_map(|(name, value)| Some(format!("{name} = {}\n", value?)));
        format!("[[keys]]\n{}", lines.collect::<String>())
    }
}
