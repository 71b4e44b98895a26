//! The ways to speak to the service. A dialect has a folder and a line here; it calls the service and the codec, nothing else.

pub(crate) mod native;

use axum::Router;

use crate::App;

/// The routes of every dialect.
pub(crate) fn routes() -> Router<App> {
    native::routes()
}
