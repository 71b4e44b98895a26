//! Reading a module's `config.json`, as diffusers and transformers write them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A setting has a value that this network does not have.
    #[error("`{key}` = {value} is not supported: {why}")]
    Unsupported {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        why: &'static str,
    },
    /// A setting is needed and not there.
    #[error("`{key}` is missing")]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// A setting is not of the type that it should be.
    #[error("`{key}`: {source}")]
    Type {
        /// The setting.
        key: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A setting that this network does not know.
    #[error("`{key}` is not known")]
    Unknown {
        /// The setting.
        key: String,
    },
}

impl ConfigError {
    pub(crate) fn unsupported(key: &'static str, value: impl std::fmt::Debug, why: &'static str) -> Self {
        Self::Unsupported { key, value: format!("{value:?}"), why }
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

/// Refuses a configuration in which one of these settings is there with another value than these.
pub(crate) fn refuse_unlike(config: &Value, settings: &[(&'static str, &'static [&'static str])]) -> Result<(), ConfigError> {
    for &(key, allowed) in settings {
        let Some(value) = config.get(key) else { continue };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !allowed.contains(&text.as_str()) {
            return Err(ConfigError::Unsupported { key, value: value.to_string(), why: allowed[0] });
        }
    }
    Ok(())
}
