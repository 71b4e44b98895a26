//! The load generator against targets whose behaviour is known, and against the service.

mod files;
mod service;
mod stalled;
