//! The service's configuration, and how it comes about: flag > environment > file > default.
//!
//! Every setting is one entry of the table in `settings.rs`: its name, its comment, how it is read and how it is written.
//! The file, the environment, the flags and `--print-config` all go through that table; `config/latentd.toml` is what it
//! prints for the defaults.

mod edge;
mod given;
mod models;
mod print;
mod settings;
mod sources;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ldm_core::{Bounds, Mode};
use ldm_http::{ConnectionLimits, HttpLimits, Rate};
use ldm_pipeline::{Device, Dtype, LoadOptions, ModelSource};

pub(crate) use models::weighed;
pub(crate) use print::print;
pub(crate) use sources::{File, Flag, Sources, environment, resolve};

use crate::telemetry::Format;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) engine: Engine,
    pub(crate) jobs: Jobs,
    pub(crate) webhooks: Webhooks,
    pub(crate) device: Placement,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    pub(crate) telemetry: Telemetry,
    /// Served models, the default one first.
    pub(crate) models: Vec<ModelSource>,
}

/// The HTTP edge.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) body_limit_mb: u32,
    pub(crate) pixel_limit: u64,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) shutdown_grace_seconds: u32,
    /// Empty: none.
    pub(crate) admin_token: String,
    /// Empty: none.
    pub(crate) keys_file: String,
    pub(crate) allow_anonymous: bool,
    pub(crate) open_metrics: bool,
    /// 0 is no bound.
    pub(crate) anonymous_rate: u32,
    pub(crate) anonymous_burst: u32,
    /// Both or none.
    pub(crate) tls_cert: String,
    pub(crate) tls_key: String,
    pub(crate) max_connections: u32,
    pub(crate) header_limit_kb: u32,
    pub(crate) header_timeout_seconds: u32,
    pub(crate) idle_timeout_seconds: u32,
    pub(crate) body_timeout_seconds: u32,
    pub(crate) write_timeout_seconds: u32,
}

/// The queue and the batches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Engine {
    pub(crate) queue: u32,
    pub(crate) running: u32,
    pub(crate) row_cap: u32,
    pub(crate) prompt_cache: u32,
    /// 0 is no bound.
    pub(crate) per_tenant: u32,
    pub(crate) picture_memory_mb: u32,
    /// 0 is no bound.
    pub(crate) model_memory_mb: u32,
    /// 0 learns from real calls alone.
    pub(crate) rehearsal_seconds: u32,
    pub(crate) mode: Mode,
}

/// Named jobs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jobs {
    /// Empty: in memory.
    pub(crate) state_dir: String,
    pub(crate) kept_hours: u32,
    pub(crate) memory_mb: u32,
    pub(crate) disk_mb: u32,
}

/// Calls of others when a named job has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhooks {
    /// Empty: off.
    pub(crate) allow: Vec<String>,
    pub(crate) allow_private: bool,
    pub(crate) secret_file: String,
}

/// Where models live, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    /// Several, in place of it.
    pub(crate) devices: Vec<Device>,
    pub(crate) dtype: Dtype,
    /// 0 leaves the choice to libtorch.
    pub(crate) threads: u32,
}

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) bounds: Bounds,
    /// 0 takes the model's own.
    pub(crate) max_side: u32,
}

/// Logs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Log {
    pub(crate) format: Format,
    pub(crate) filter: String,
}

/// Traces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Telemetry {
    /// Empty: spans are not exported.
    pub(crate) otlp_endpoint: String,
}

impl Default for Config {
    /// What the crates below take on by themselves, and the demo model.
    fn default() -> Self {
        let (http, engine, load) = (HttpLimits::default(), ldm_engine::Limits::default(), LoadOptions::default());
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let (connection, seconds) = (ConnectionLimits::default(), |time: Duration| small(time.as_secs() as usize));
        Self {
            server: Server {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                body_limit_mb: small(http.body_bytes >> 20),
                pixel_limit: http.pixels,
                cors_origins: Vec::new(),
                shutdown_grace_seconds: 30,
                admin_token: String::new(),
                keys_file: String::new(),
                allow_anonymous: false,
                open_metrics: false,
                anonymous_rate: 0,
                anonymous_burst: 10,
                tls_cert: String::new(),
                tls_key: String::new(),
                max_connections: small(connection.connections),
                header_limit_kb: small(connection.header_bytes >> 10),
                header_timeout_seconds: seconds(connection.header_time),
                idle_timeout_seconds: seconds(connection.idle_time),
                body_timeout_seconds: seconds(connection.body_time),
                write_timeout_seconds: seconds(connection.write_time),
            },
            engine: Engine {
                queue: small(engine.queue),
                running: small(engine.running),
                row_cap: ldm_engine::Limits::default().rows,
                prompt_cache: small(load.cache),
                per_tenant: 0,
                picture_memory_mb: small(engine.bytes >> 20),
                model_memory_mb: 0,
                rehearsal_seconds: small(engine.rehearsal.as_secs() as usize),
                mode: load.mode,
            },
            jobs: Jobs { state_dir: String::new(), kept_hours: 24, memory_mb: 256, disk_mb: 8192 },
            webhooks: Webhooks { allow: Vec::new(), allow_private: false, secret_file: String::new() },
            device: Placement {
                device: load.device,
                devices: Vec::new(),
                dtype: load.dtype,
                threads: small(load.threads.unwrap_or(0)),
            },
            limits: Limits { bounds: load.bounds, max_side: load.max_side.unwrap_or(0) },
            log: Log { format: Format::Text, filter: "info".to_owned() },
            telemetry: Telemetry { otlp_endpoint: String::new() },
            models: vec![ModelSource::new("demo", "assets/demo")],
        }
    }
}

impl Config {
    /// How much the edge takes on.
    pub(crate) fn http_limits(&self) -> HttpLimits {
        let body_bytes = self.server.body_limit_mb as usize * (1 << 20);
        HttpLimits { body_bytes, pixels: self.server.pixel_limit, ..HttpLimits::default() }
    }

    /// What connections may do.
    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        ConnectionLimits {
            connections: self.server.max_connections as usize,
            header_bytes: (self.server.header_limit_kb as usize) << 10,
            header_time: seconds(self.server.header_timeout_seconds),
            idle_time: seconds(self.server.idle_timeout_seconds),
            body_time: seconds(self.server.body_timeout_seconds),
            write_time: seconds(self.server.write_timeout_seconds),
            ..ConnectionLimits::default()
        }
    }

    /// How often an address without a key may ask for work, if that is bounded.
    pub(crate) fn anonymous_rate(&self) -> Option<Rate> {
        let per_minute = NonZeroU32::new(self.server.anonymous_rate)?;
        Some(Rate { per_minute, burst: NonZeroU32::new(self.server.anonymous_burst)? })
    }

    /// What cannot be together, if something is.
    pub(crate) fn problem(&self) -> Option<String> {
        let server = &self.server;
        if server.tls_cert.is_empty() != server.tls_key.is_empty() {
            return Some("server.tls_cert and server.tls_key are set together, or neither is".to_owned());
        }
        let listen = server.listen;
        (!listen.ip().is_loopback() && server.keys_file.is_empty() && !server.allow_anonymous).then(|| {
            format!(
                "server.listen: {listen} is there for other machines, and there are no keys. Set server.keys_file (`latentd keys \
                 new` makes a key), or server.allow_anonymous = true to serve whoever comes, or listen on 127.0.0.1"
            )
        })
    }

    /// How much the engine takes on.
    pub(crate) fn engine_limits(&self) -> ldm_engine::Limits {
        let unless_zero = |mib: u32| if mib == 0 { u64::MAX } else { u64::from(mib) << 20 };
        ldm_engine::Limits {
            queue: self.engine.queue as usize,
            running: self.engine.running as usize,
            rows: self.engine.row_cap,
            per_tenant: if self.engine.per_tenant == 0 { usize::MAX } else { self.engine.per_tenant as usize },
            bytes: (self.engine.picture_memory_mb as usize) << 20,
            model_memory: unless_zero(self.engine.model_memory_mb),
            rehearsal: Duration::from_secs(self.engine.rehearsal_seconds.into()),
            ..ldm_engine::Limits::default()
        }
    }

    /// How models are loaded.
    pub(crate) fn load_options(&self) -> LoadOptions {
        LoadOptions {
            device: self.device.device,
            dtype: self.device.dtype,
            max_side: (self.limits.max_side > 0).then_some(self.limits.max_side),
            threads: (self.device.threads > 0).then_some(self.device.threads as usize),
            cache: self.engine.prompt_cache as usize,
            bounds: self.limits.bounds,
            mode: self.engine.mode,
            profiles: (!self.jobs.state_dir.is_empty()).then(|| PathBuf::from(&self.jobs.state_dir).join("profiles")),
            ..LoadOptions::default()
        }
    }

    /// The devices, one worker each, with how models are loaded onto it.
    pub(crate) fn placements(&self) -> Vec<LoadOptions> {
        let devices = if self.device.devices.is_empty() { vec![self.device.device] } else { self.device.devices.clone() };
        devices.into_iter().map(|device| LoadOptions { device, ..self.load_options() }).collect()
    }

    /// What those must show who change models, if anything.
    pub(crate) fn admin_token(&self) -> Option<&str> {
        Some(self.server.admin_token.as_str()).filter(|token| !token.is_empty())
    }

    /// Whether models may be changed over HTTP: by who shows the token or an admin's key, or else on this machine only.
    pub(crate) fn has_admin(&self) -> bool {
        self.admin_token().is_some() || !self.server.keys_file.is_empty() || self.server.listen.ip().is_loopback()
    }

    /// Bytes of ended jobs that are kept, at most: in memory they are at the expense of models.
    pub(crate) fn kept_bytes(&self) -> u64 {
        u64::from(if self.jobs.state_dir.is_empty() { self.jobs.memory_mb } else { self.jobs.disk_mb }) << 20
    }

    /// How long accepted jobs may take to finish when the service stops.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.server.shutdown_grace_seconds.into())
    }
}
