//! What stands before the service of `latentd serve`: the keys that callers show, and the certificate.

use anyhow::Result;
use ldm_http::{App, Door, Keys, Tls};

use crate::config::Config;
use crate::exit::Usage;

/// What stands between the network and the app.
pub(super) struct Guards {
    pub(super) keys: Option<Keys>,
    pub(super) tls: Option<Tls>,
}

impl Guards {
    /// Those that are configured; files that are wrong are said at once.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let server = &config.server;
        let wrong = |setting: &str, error: &dyn std::fmt::Display| Usage(format!("{setting}: {error}"));
        let keys = (!server.keys_file.is_empty()).then(|| Keys::open(&server.keys_file)).transpose();
        let keys = keys.map_err(|error| wrong("server.keys_file", &error))?;
        let tls = (!server.tls_cert.is_empty()).then(|| Tls::open(&server.tls_cert, &server.tls_key)).transpose();
        Ok(Self { keys, tls: tls.map_err(|error| wrong("server.tls_cert, server.tls_key", &error))? })
    }

    /// Says who is let in.
    pub(super) fn say(&self, config: &Config) {
        let loopback = config.server.listen.ip().is_loopback();
        match &self.keys {
            Some(keys) => tracing::info!(keys = keys.count(), anonymous = config.server.allow_anonymous, "callers show a key"),
            None if loopback => tracing::info!("there are no keys: this machine alone is served, without any"),
            None => tracing::warn!("there are no keys, and server.allow_anonymous is true: whoever comes is served"),
        }
    }

    pub(super) fn before(&self, app: App, config: &Config) -> App {
        let server = &config.server;
        let door = Door::default().anonymous(server.allow_anonymous).open_metrics(server.open_metrics);
        let door = door.peer_rate(config.anonymous_rate());
        let app = app.door(match &self.keys {
            Some(keys) => door.keys(keys.clone()),
            None => door,
        });
        match &self.tls {
            Some(tls) => app.tls(tls.clone()),
            None => app,
        }
    }

    /// Reads the files again.
    pub(super) fn refresh(&self) {
        if let Some(Err(error)) = self.keys.as_ref().map(Keys::refresh) {
            tracing::error!("SIGHUP: the keys stay as they were: {error}");
        }
        match self.tls.as_ref().map(Tls::refresh) {
            Some(Ok(())) => tracing::info!("SIGHUP: the certificate was read again"),
            Some(Err(error)) => tracing::error!("SIGHUP: the certificate stays as it was: {error}"),
            None => {}
        }
    }
}
