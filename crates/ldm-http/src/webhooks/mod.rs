//! Webhooks: the end of a named job is told to a server that the operator has listed, signed, until that has answered.
//!
//! What is to be told lies in the ledger, written with the ending itself; the courier takes it from there, so that a process
//! that dies in between leaves it to the next. Signatures are those of Standard Webhooks.

mod address;
mod allow;
mod courier;
mod post;
#[cfg(test)]
mod receiver;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ldm_core::Violation;
use ldm_engine::ledger::{Hook, MAX_URL, Phase};
use ldm_engine::node::Node;

pub use self::allow::InvalidOrigin as InvalidWebhookOrigin;
use self::allow::{Allowed, Target};
pub(crate) use self::courier::Policy;
use self::post::Client;
pub use self::sign::InvalidSecret;
use self::sign::Secrets;
use crate::Metrics;

/// How webhooks are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Origins that may be called: `https://example.org`, `https://*.example.org:8443`, `http://10.0.0.7:9000`; without a
    /// scheme `https` is meant. None: webhooks are off.
    pub allow: Vec<String>,
    /// Whether names may stand for private, loopback and link-local addresses. One that is listed as such may be called anyway.
    pub allow_private: bool,
    /// Secrets, one a line, the newest first: `whsec_` and base64, or plain text of at least 24 bytes. Each signs.
    pub secrets: String,
}

impl WebhookOptions {
    /// Whether `text` is an origin that can be listed.
    pub fn is_origin(text: &str) -> bool {
        Allowed::read(&[text.to_owned()], false).is_ok()
    }
}

/// Why webhooks cannot be called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhooks {
    /// An origin.
    #[error(transparent)]
    Origin(#[from] InvalidWebhookOrigin),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] InvalidSecret),
}

/// Who may be called, and how it is signed.
#[derive(Debug)]
struct Rules {
    allowed: Allowed,
    secrets: Secrets,
    client: Client,
}

/// Webhooks that are called for as long as this, or a clone of it, lives.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks(Arc<Running>);

#[derive(Debug)]
struct Running {
    rules: Arc<Rules>,
    courier: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.courier.abort();
    }
}

impl Webhooks {
    /// Calls what that node's ledger has to tell. Must be called in a tokio runtime.
    pub(crate) fn start(
        options: &WebhookOptions,
        node: Node,
        metrics: Arc<Metrics>,
        policy: Policy,
    ) -> Result<Self, InvalidWebhooks> {
        let allowed = Allowed::read(&options.allow, options.allow_private)?;
        let secrets = Secrets::read(&options.secrets)?;
        let client = Client::new(policy.timeout, allowed.has_tls());
        Ok(Self::with(Rules { allowed, secrets, client }, node, metrics, policy))
    }

    fn with(rules: Rules, node: Node, metrics: Arc<Metrics>, policy: Policy) -> Self {
        let rules = Arc::new(rules);
        let courier = tokio::spawn(courier::run(Arc::clone(&rules), node, metrics, policy));
        Self(Arc::new(Running { rules, courier }))
    }

    /// What `url` and `endings` ask for, or why that is refused.
    pub(crate) fn hook(&self, url: String, endings: Vec<Phase>) -> Result<Hook, Violation> {
        let wrong = |message: &str, limit: &str| Violation::new("webhook", format!("`webhook` {message}"), limit, &url);
        if url.len() > MAX_URL {
            return Err(wrong("is too long", &format!("at most {MAX_URL} bytes")));
        }
        let listed = "an origin that `webhooks.allow` lists";
        let target =
            Target::read(&url).ok_or_else(|| wrong("must be a URL like https://example.org/path, without a user", listed))?;
        let admitted =
            self.0.rules.allowed.admits(&target).ok_or_else(|| wrong("is not of an origin that may be called", listed))?;
        if target.address().is_some_and(|address| !admitted.takes(address)) {
            return Err(wrong("must not be a private, loopback or link-local address", listed));
        }
        Ok(Hook { url, endings })
    }
}

/// What is said where webhooks are off.
pub(crate) fn off(said: &impl ToString) -> Violation {
    let message = "`webhook` cannot be used: the setting `webhooks.allow` lists no origin that may be called";
    Violation::new("webhook", message, "absent while `webhooks.allow` is empty", said.to_string())
}
