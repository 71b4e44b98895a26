//! `POST /sdapi/v1/txt2img` and `POST /sdapi/v1/img2img`.

use axum::Json;
use axum::extract::State;
use ldm_core::Task;

use super::answer::{self, Order};
use super::fields::{Body, Fields};
use super::{check, options, wire};
use crate::App;
use crate::calls::Guest;
use crate::error::ApiError;

pub(super) async fn txt2img(State(app): State<App>, guest: Guest, body: Body) -> Result<Json<wire::Images>, ApiError> {
    draw(app, guest, body, Task::Txt2Img).await
}

pub(super) async fn img2img(State(app): State<App>, guest: Guest, body: Body) -> Result<Json<wire::Images>, ApiError> {
    draw(app, guest, body, Task::Img2Img).await
}

async fn draw(app: App, guest: Guest, body: Body, task: Task) -> Result<Json<wire::Images>, ApiError> {
    let order = order(&app, &guest, body, task).await.inspect_err(|error| app.metrics.rejected(error.code))?;
    answer::answer(app, guest, order).await.map(Json)
}

async fn order(app: &App, guest: &Guest, body: Body, task: Task) -> Result<Order, ApiError> {
    let catalogue = app.open()?;
    app.room()?;
    let usual = options::current(app, &guest.caller, &catalogue).map(|model| model.id.clone());
    let pixels = app.limits.pixels;
    let read = move || {
        let (said, fields): (_, Fields) = body.read()?;
        let requests = check::requests(&fields, usual.as_deref(), task, &catalogue, pixels)?;
        Ok(Order { said, fields, requests, catalogue })
    };
    app.codec.run(read).await?
}
