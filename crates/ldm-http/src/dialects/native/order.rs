//! From a body to an order: what was said, field by field, until nothing is wrong or everything that is wrong is known.

use std::sync::Arc;

use axum::http::StatusCode;
use ldm_core::{Catalogue, Model, Request, Task, Terms, Violation};
use ldm_engine::ledger::Hook;

use super::body::Body;
use super::fields::Fields;
use super::readers::Pixels;
use super::{draft, jobs, routes, terms};
use crate::App;
use crate::codec::{Encoding, Format};
use crate::error::ApiError;
use crate::negotiate::Form;
use crate::webhooks::Webhooks;

/// Bodies beyond this are parsed off the runtime's threads.
const SMALL: usize = 64 << 10;

/// What a body asks for, checked.
#[derive(Debug)]
pub(super) struct Order {
    /// One per picture.
    pub(super) requests: Vec<Request>,
    /// On which terms.
    pub(super) terms: Terms,
    /// How the pictures are to be written.
    pub(super) encoding: Encoding,
    /// What it was checked against.
    pub(super) catalogue: Arc<Catalogue>,
    /// Who wants to hear how it ended; of named jobs alone.
    pub(super) hook: Option<Hook>,
}

/// What a body is read by.
pub(super) struct Reader {
    /// Without one the body says it, and is a named job's.
    pub(super) task: Option<Task>,
    pub(super) form: Form,
    pub(super) catalogue: Arc<Catalogue>,
    /// Pixels of a picture at most.
    pub(super) pixels: u64,
    pub(super) webhooks: Option<Webhooks>,
}

impl Order {
    /// Reads a body, if jobs are taken now.
    pub(super) async fn read(app: &App, task: Task, form: Form, body: Body) -> Result<Self, ApiError> {
        let read = async {
            let catalogue = app.open()?;
            let reader = Reader { task: Some(task), form, catalogue, pixels: app.limits.pixels, webhooks: None };
            let small = !routes::takes_pictures(task) && body.len() <= SMALL;
            if small {
                return Self::parse(body, reader);
            }
            // Unpacking a picture for a queue that is full would be work for nothing.
            let load = app.service.load();
            if load.queued + load.running >= load.limit {
                return Err(ApiError::full(load.limit, app.service.until_free(1)));
            }
            app.codec.run(move || Self::parse(body, reader)).await?
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }

    /// Reads a body that says its task itself.
    pub(super) async fn read_any(app: &App, body: Body) -> Result<Self, ApiError> {
        let read = async {
            let (catalogue, webhooks) = (app.open()?, app.webhooks.clone());
            let reader = Reader { task: None, form: Form::Json, catalogue, pixels: app.limits.pixels, webhooks };
            app.codec.run(move || Self::parse(body, reader)).await?
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }

    /// All of the reading that needs no runtime.
    pub(super) fn parse(body: Body, reader: Reader) -> Result<Self, ApiError> {
        let Reader { task, form, catalogue, pixels, webhooks } = reader;
        let mut fields = Fields::of(body)?;
        let hook = if task.is_none() { jobs::hook(&mut fields, webhooks.as_ref()) } else { None };
        let Some(task) = task.or_else(|| fields.task(&Task::ALL)) else { return Err(fields.bad.into()) };
        if !catalogue.models.iter().any(|model| model.tasks.contains(&task)) {
            return Err(unsupported(task, &catalogue));
        }
        let terms = terms::read(&mut fields);
        let encoding = encoding(&mut fields, form);
        let mut pixels = Pixels { limit: pixels, exceeded: false };
        let draft = draft::read(&mut fields, task, &mut pixels);
        let mut bad = fields.finish();
        let images = draft.images.unwrap_or(1);
        if matches!(form, Form::Picture(_)) && images > 1 {
            let message = "a raw picture is one picture; accept application/json for several";
            bad.push(Violation::new("images", message, "1 when a picture is accepted", images));
        }
        let checked = draft.check(&catalogue);
        if let Err(more) = &checked {
            // Where reading failed already, the check can only say that nothing was said.
            let news = more.0.iter().filter(|more| !bad.0.iter().any(|bad| within(&bad.field, &more.field)));
            let news: Vec<_> = news.cloned().collect();
            bad.0.extend(news);
        }
        match checked {
            Ok(requests) if bad.is_empty() => Ok(Self { requests, terms, encoding, catalogue, hook }),
            _ if pixels.exceeded => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(ApiError { status, code: "picture_too_large", ..bad.into() })
            }
            _ => Err(bad.into()),
        }
    }
}

/// Whether a field is another one, or a part of it: `boxes[0].label` of `boxes`.
fn within(field: &str, other: &str) -> bool {
    field.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
}

/// How pictures are to be written: as the body says, unless what is accepted says so.
fn encoding(fields: &mut Fields, form: Form) -> Encoding {
    let quality = fields.quality();
    let said = fields.format();
    let format = match (form, said) {
        (Form::Picture(Some(accepted)), Some(said)) if said != accepted => {
            let message = format!("`format` says {}, the header `accept` says {}", said.name(), accepted.name());
            fields.bad.push(Violation::new("format", message, accepted.name(), said.name()));
            accepted
        }
        (Form::Picture(Some(accepted)), _) => accepted,
        (_, said) => said.unwrap_or(Format::Png),
    };
    Encoding { format, quality }
}

/// No model that is loaded does the task.
fn unsupported(task: Task, catalogue: &Catalogue) -> ApiError {
    let tasks = |model: &Model| model.tasks.iter().map(|&task| routes::word(task)).collect::<Vec<_>>().join(", ");
    let models: Vec<_> = catalogue.models.iter().map(|model| format!("{} ({})", model.id, tasks(model))).collect();
    let (task, models) = (routes::word(task), models.join("; "));
    let message = format!("no model here does {task}; there are: {models}");
    let violation = Violation::new("model", message.clone(), models, task);
    ApiError { violations: vec![violation], ..ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupported", message) }
}

#[cfg(test)]
mod tests {
    use ldm_engine::fake::FakeExecutor;

    use super::*;

    #[test]
    fn a_task_that_no_model_does_is_unsupported_and_says_which_are_there() {
        let mut catalogue = FakeExecutor::catalogue_example();
        catalogue.models[0].tasks = vec![Task::Txt2Img, Task::Rdm];
        let catalogue = Arc::new(catalogue);
        let ask = |task: Option<Task>, body: &'static str| {
            let reader = Reader { task, form: Form::Json, catalogue: Arc::clone(&catalogue), pixels: 64, webhooks: None };
            Order::parse(Body::Json(body.into()), reader)
        };
        for error in [ask(Some(Task::Layout), "{\"stepz\": 1}"), ask(None, "{\"task\": \"layout\"}")] {
            let error = error.unwrap_err();
            assert_eq!((error.status.as_u16(), error.code, &*error.violations[0].field), (422, "unsupported", "model"));
            assert_eq!(error.message, "no model here does layout; there are: fake (txt2img, retrieval)");
        }
        assert!(ask(Some(Task::Txt2Img), "{}").is_ok());
    }
}
