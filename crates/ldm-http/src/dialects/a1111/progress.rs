//! How far the caller's pictures are, and how they are stopped: nobody sees or stops those of others.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State};
use ldm_core::Progress;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::answer::ENCODING;
use super::fields::Body;
use crate::App;
use crate::caller::Caller;
use crate::calls::{Entry, State as Is};
use crate::codec::{self, base64};
use crate::error::ApiError;

/// Before the client's own word in the label of a call of this dialect.
const FAMILY: &str = "sdapi/";

/// The label of a call.
pub(super) fn label(task: Option<&str>) -> String {
    format!("{FAMILY}{}", task.unwrap_or_default())
}

/// Which calls are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    skip_current_image: bool,
    force_task_id: Option<String>,
}

/// The caller's unfinished pictures of that task or of all, the oldest first.
fn open(app: &App, caller: &Caller, task: Option<&str>) -> Vec<Arc<Entry>> {
    let label = task.map(|task| label(Some(task)));
    let all = app.roll.of(caller.tenant(), label.as_deref());
    let ours = |entry: &Arc<Entry>| entry.label().is_some_and(|label| label.starts_with(FAMILY));
    all.into_iter().filter(|entry| ours(entry) && entry.ended().is_none()).collect()
}

/// The share of the work that is done, 0 to 1.
fn share(progress: &Progress) -> f64 {
    match progress {
        Progress::Queued { .. } | Progress::Preparing => 0.0,
        Progress::Step { step, steps, .. } => f64::from(*step) / f64::from((*steps).max(1)),
        Progress::Decoding => 1.0,
    }
}

/// Where the caller's pictures are, together.
#[derive(Debug, Default)]
struct Sight {
    jobs: usize,
    share: f64,
    eta: f64,
    step: u32,
    steps: u32,
    since: Option<SystemTime>,
    queued: bool,
    preview: Option<(u32, ldm_core::Raster)>,
}

impl Sight {
    fn of(entries: &[Arc<Entry>]) -> Self {
        let mut sight = Self { jobs: entries.len(), queued: !entries.is_empty(), ..Self::default() };
        for entry in entries {
            let Is::Open(progress) = entry.state() else { continue };
            sight.share += share(&progress) / entries.len() as f64;
            sight.queued &= matches!(progress, Progress::Queued { .. });
            if let Progress::Step { step, steps, preview } = progress {
                if step > sight.step {
                    (sight.step, sight.steps) = (step, steps);
                }
                if let Some(preview) =
                    preview.filter(|preview| sight.preview.as_ref().is_none_or(|(step, _)| preview.step > *step))
                {
                    sight.preview = Some((preview.step, preview.image));
                }
            }
        }
        sight.since = entries.first().map(|entry| entry.created());
        let elapsed = sight.since.and_then(|since| since.elapsed().ok()).map_or(0.0, |elapsed| elapsed.as_secs_f64());
        sight.eta = if sight.share > 0.0 { elapsed / sight.share * (1.0 - sight.share) } else { 0.0 };
        sight
    }

    /// The newest preview as a PNG in base64.
    async fn picture(&mut self, app: &App) -> Result<Option<String>, ApiError> {
        let Some((_, image)) = self.preview.take() else { return Ok(None) };
        let pixels = u64::from(image.width()) * u64::from(image.height());
        let written = app.codec.write(pixels, move || codec::encode(&image, ENCODING, None).map(base64)).await?;
        Ok(Some(written.0))
    }
}

/// `GET /sdapi/v1/progress`.
pub(super) async fn progress(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Value>, ApiError> {
    let mut sight = Sight::of(&open(&app, &caller, which.force_task_id.as_deref()));
    let picture = if which.skip_current_image { None } else { sight.picture(&app).await? };
    let stamp = sight.since.map_or_else(|| "0".to_owned(), crate::access::stamp);
    Ok(Json(json!({
        "progress": sight.share,
        "eta_relative": sight.eta,
        "state": {
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": if sight.jobs > 0 { "scripts_txt2img" } else { "" },
            "job_count": sight.jobs,
            "job_timestamp": stamp,
            "job_no": 0,
            "sampling_step": sight.step,
            "sampling_steps": sight.steps,
        },
        "current_image": picture,
        "textinfo": null,
    })))
}

/// The body of `POST /internal/progress`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WebUiTask)]
#[serde(default)]
pub(super) struct Asked {
    /// The `force_task_id` of the call.
    id_task: String,
    /// The preview that is known already.
    id_live_preview: i64,
    /// Whether a preview is wanted.
    live_preview: Option<bool>,
}

/// `POST /internal/progress`: one task by the id that its call was given.
pub(super) async fn internal(State(app): State<App>, caller: Caller, body: Body) -> Result<Json<Value>, ApiError> {
    let (_, asked): (Map<String, Value>, Asked) = body.read()?;
    let known = app.roll.of(caller.tenant(), Some(&label(Some(&asked.id_task))));
    let unfinished: Vec<_> = known.iter().filter(|entry| entry.ended().is_none()).cloned().collect();
    let mut sight = Sight::of(&unfinished);
    let step = sight.preview.as_ref().map_or(-1, |(step, _)| i64::from(*step));
    let newer = asked.live_preview.unwrap_or(true) && step > asked.id_live_preview;
    let picture = if newer { sight.picture(&app).await? } else { None };
    let (active, queued) = (sight.jobs > 0 && !sight.queued, sight.jobs > 0 && sight.queued);
    Ok(Json(json!({
        "active": active,
        "queued": queued,
        "completed": !known.is_empty() && sight.jobs == 0,
        "progress": active.then_some(sight.share),
        "eta": active.then_some(sight.eta),
        "live_preview": picture.map(|picture| format!("data:image/png;base64,{picture}")),
        "id_live_preview": step,
        "textinfo": if queued { "In queue..." } else if active { "" } else { "Waiting..." },
    })))
}

/// `POST /sdapi/v1/interrupt`: all of the caller's pictures, or those of one task, end at their next step.
pub(super) async fn interrupt(State(app): State<App>, caller: Caller, Query(which): Query<Which>) -> Json<Value> {
    open(&app, &caller, which.force_task_id.as_deref()).iter().for_each(|entry| entry.cancel());
    Json(json!({}))
}

/// `POST /sdapi/v1/skip`: the oldest one does.
pub(super) async fn skip(State(app): State<App>, caller: Caller, Query(which): Query<Which>) -> Json<Value> {
    open(&app, &caller, which.force_task_id.as_deref()).first().into_iter().for_each(|entry| entry.cancel());
    Json(Value::Null)
}

/// `GET /internal/ping`.
pub(super) async fn ping() -> Json<Value> {
    Json(json!({}))
}
