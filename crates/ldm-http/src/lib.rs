//! The HTTP edge: dialects, pictures in and out, server-sent events, operations endpoints.
//!
//! Handlers translate only: a body becomes a `Draft`, the `Draft` requests, the requests tickets, the tickets an answer.
//! Nothing here knows a tensor. What a request does wrong comes back in one JSON shape, all of it at once; whoever lets go
//! of a connection drops its tickets, and with them its jobs.
//!
//! The binary makes [`Metrics`], hands them to the engine as its monitor, builds an [`App`] and calls [`serve`].

mod access;
mod app;
mod codec;
mod dialects;
mod error;
mod metadata;
mod metrics;
mod negotiate;
mod ops;
mod request_id;
mod sse;
#[cfg(test)]
mod testing;

pub use app::{App, HttpLimits, InvalidOrigin, app, serve};
pub use codec::{Encoding, Format, Unreadable, Unwritable, read_picture, write_picture};
pub use metrics::Metrics;
