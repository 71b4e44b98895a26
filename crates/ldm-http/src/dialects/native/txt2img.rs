//! `POST /v1/txt2img`: a picture from a prompt.

use axum::extract::State;
use axum::response::Response;
use ldm_core::Task;

use super::answer;
use super::body::Body;
use super::order::Order;
use crate::App;
use crate::calls::Guest;
use crate::error::ApiError;
use crate::negotiate::Form;

pub(super) async fn txt2img(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    let order = Order::read(&app, Task::Txt2Img, form, body).await?;
    answer::answer(app, guest, form, order).await
}
