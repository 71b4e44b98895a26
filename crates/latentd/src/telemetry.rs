//! Logs: text for people or JSON for machines, always to stderr; and spans for a collector, if one is configured.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::str::FromStr;

use ldm_http::Otlp;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Starts logging for the whole process, and the export of spans, which the filter of logs has no part in.
pub(crate) fn start(format: Format, filter: &str, otlp: Option<&Otlp>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = otlp.map(|otlp| otlp.layer().with_filter(LevelFilter::INFO));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init()?;
    Ok(())
}

/// Starts logging for a command at a terminal: text, warnings only unless `RUST_LOG` says otherwise. The command itself
/// says why it fails.
pub(crate) fn at_terminal() -> anyhow::Result<()> {
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    start(Format::Text, filter.as_deref().unwrap_or("warn,ldm_engine::worker=off"), None)
}
