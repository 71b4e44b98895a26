//! The HTTP edge: dialects, pictures in and out, server-sent events, operations endpoints.
//!
//! Handlers translate only: a body becomes a `Draft`, the `Draft` requests, the requests tickets, the tickets an answer.
//! Nothing here knows a tensor. What a request does wrong comes back in one JSON shape, all of it at once; whoever lets go
//! of a connection drops its tickets, and with them its jobs.
//!
//! The binary makes [`Metrics`], hands them to the engine as its monitor, builds an [`App`] and calls [`serve`].

mod access;
mod admin;
mod app;
mod caller;
mod calls;
mod codec;
mod dialects;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod metadata;
mod metrics;
mod multipart;
mod negotiate;
mod openapi;
mod ops;
mod provenance;
mod request_id;
mod server;
mod sse;
#[cfg(test)]
mod testing;
mod timing;
mod trace;
mod webhooks;

pub use admin::{Admin, ModelOrder, Models};
pub use app::{App, HttpLimits, InvalidOrigin, app};
pub use codec::{Encoding, Format, Picture, Unreadable, Unwritable, read_picture, read_plane, read_with_alpha, write_picture};
pub use dialects::native::keeper;
pub use keys::{Door, Keys, KeysError, Rate, Secret};
pub use metrics::Metrics;
pub use openapi::openapi;
pub use server::{ConnectionLimits, Tls, TlsError, serve};
pub use trace::{InvalidEndpoint, Otlp};
pub use webhooks::{InvalidSecret, InvalidWebhookOrigin, InvalidWebhooks, WebhookOptions};
