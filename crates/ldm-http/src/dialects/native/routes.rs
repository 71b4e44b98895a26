//! The tasks' routes: `POST /v1/{word}`, and what each takes beside what all take.

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

/// The last word of a task's path; `task` of a body takes it, too.
pub(super) fn word(task: Task) -> &'static str {
    match task {
        Task::Rdm => "retrieval",
        task => task.name(),
    }
}

/// Whether pictures come with its requests.
pub(super) fn takes_pictures(task: Task) -> bool {
    OWN.iter().any(|(field, owners)| owners.contains(&task) && PICTURES.contains(field))
}

/// Fields that are pictures.
const PICTURES: [&str; 5] = ["init_image", "mask", "lr_image", "depth_map", "semantic_map"];

/// Fields that not every task takes, and those that do.
pub(super) const OWN: [(&str, &[Task]); 18] = [
    ("init_image", &[Task::Img2Img, Task::Inpaint, Task::Depth]),
    ("strength", &[Task::Img2Img, Task::Inpaint, Task::Depth]),
    ("mask", &[Task::Inpaint]),
    ("mask_blur", &[Task::Inpaint]),
    ("invert_mask", &[Task::Inpaint]),
    ("only_masked", &[Task::Inpaint]),
    ("padding", &[Task::Inpaint]),
    ("fill", &[Task::Inpaint]),
    ("composite", &[Task::Inpaint]),
    ("lr_image", &[Task::SuperResolution]),
    ("scale", &[Task::SuperResolution]),
    ("noise_level", &[Task::SuperResolution]),
    ("depth_map", &[Task::Depth]),
    ("class", &[Task::Class]),
    ("boxes", &[Task::Layout]),
    ("semantic_map", &[Task::Semantic]),
    ("neighbours", &[Task::Rdm]),
    ("hires", &[Task::Txt2Img]),
];

async fn drawn(task: Task, app: App, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    let order = Order::read(&app, task, form, body).await?;
    answer::answer(app, guest, form, order).await
}

/// A picture with a part of it painted anew.
pub(super) async fn inpaint(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Inpaint, app, guest, form, body).await
}

/// A larger picture from a smaller one.
pub(super) async fn super_resolution(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::SuperResolution, app, guest, form, body).await
}

/// A picture from a prompt and a map of depths.
pub(super) async fn depth(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Depth, app, guest, form, body).await
}

/// A picture of what the model was trained on.
pub(super) async fn unconditional(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Unconditional, app, guest, form, body).await
}

/// A picture of a class.
pub(super) async fn class(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Class, app, guest, form, body).await
}

/// A picture from boxes with labels.
pub(super) async fn layout(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Layout, app, guest, form, body).await
}

/// A picture from a map of classes.
pub(super) async fn semantic(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Semantic, app, guest, form, body).await
}

/// A picture from embeddings of a prompt and its neighbours.
pub(super) async fn retrieval(State(app): State<App>, guest: Guest, form: Form, body: Body) -> Result<Response, ApiError> {
    drawn(Task::Rdm, app, guest, form, body).await
}
