//! `POST /v1/images/edits`: pictures painted over, all or in part.

use axum::extract::State;
use axum::response::Response;

use super::answer;
use super::ask::Ask;
use super::check::Order;
use crate::App;
use crate::calls::Guest;
use crate::error::ApiError;

pub(super) async fn edits(State(app): State<App>, guest: Guest, ask: Ask) -> Result<Response, ApiError> {
    let order = async {
        let (catalogue, pixels) = (app.open()?, app.limits.pixels);
        app.room()?;
        app.codec.run(move || Order::edit(ask, catalogue, pixels)).await?
    };
    let order = order.await.inspect_err(|error| app.metrics.rejected(error.code))?;
    answer::answer(app, guest, "image_edit", order).await
}
