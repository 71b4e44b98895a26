//! From a body to an order: what was said, field by field, until nothing is wrong or everything that is wrong is known.

use std::sync::Arc;

use axum::http::StatusCode;
use ldm_core::{Catalogue, Draft, Request, Task, Terms, Violation};

use super::body::Body;
use super::fields::Fields;
use super::terms;
use crate::App;
use crate::codec::{Encoding, Format};
use crate::error::ApiError;
use crate::negotiate::Form;

/// Bodies beyond this are parsed off the runtime's threads.
const SMALL: usize = 64 << 10;
/// Tasks that have a route.
pub(super) const SERVED: [Task; 2] = [Task::Txt2Img, Task::Img2Img];

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
}

impl Order {
    /// Reads a body, if jobs are taken now.
    pub(super) async fn read(app: &App, task: Task, form: Form, body: Body) -> Result<Self, ApiError> {
        let read = async {
            let catalogue = app.open()?;
            let pixels = app.limits.pixels;
            let small = task == Task::Txt2Img && body.len() <= SMALL;
            if small {
                return Self::parse(Some(task), body, form, catalogue, pixels);
            }
            // Unpacking a picture for a queue that is full would be work for nothing.
            let load = app.service.load();
            if load.queued + load.running >= load.limit {
                return Err(ApiError::full(load.limit, app.service.until_free(1)));
            }
            app.codec.run(move || Self::parse(Some(task), body, form, catalogue, pixels)).await?
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }

    /// Reads a body that says its task itself.
    pub(super) async fn read_any(app: &App, body: Body) -> Result<Self, ApiError> {
        let read = async {
            let (catalogue, pixels) = (app.open()?, app.limits.pixels);
            app.codec.run(move || Self::parse(None, body, Form::Json, catalogue, pixels)).await?
        };
        read.await.inspect_err(|error| app.metrics.rejected(error.code))
    }

    /// All of the reading that needs no runtime; without a task the body says it.
    pub(super) fn parse(
        task: Option<Task>,
        body: Body,
        form: Form,
        catalogue: Arc<Catalogue>,
        pixels: u64,
    ) -> Result<Self, ApiError> {
        let mut fields = Fields::of(body)?;
        let Some(task) = task.or_else(|| fields.task(&SERVED)) else { return Err(fields.bad.into()) };
        let terms = terms::read(&mut fields);
        let encoding = encoding(&mut fields, form);
        let (draft, too_large) = draft(&mut fields, task, pixels);
        let mut bad = fields.finish();
        let images = draft.images.unwrap_or(1);
        if matches!(form, Form::Picture(_)) && images > 1 {
            let message = "a raw picture is one picture; accept application/json for several";
            bad.push(Violation::new("images", message, "1 when a picture is accepted", images));
        }
        let checked = draft.check(&catalogue);
        if let Err(more) = &checked {
            // Where reading failed already, the check can only say that nothing was said.
            let news = more.0.iter().filter(|more| !bad.0.iter().any(|bad| bad.field == more.field));
            let news: Vec<_> = news.cloned().collect();
            bad.0.extend(news);
        }
        match checked {
            Ok(requests) if bad.is_empty() => Ok(Self { requests, terms, encoding, catalogue }),
            _ if too_large => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(ApiError { status, code: "picture_too_large", ..bad.into() })
            }
            _ => Err(bad.into()),
        }
    }
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

/// What was said, and whether a picture in it was too large.
fn draft(fields: &mut Fields, task: Task, pixels: u64) -> (Draft, bool) {
    let mut too_large = false;
    let init_image = match task {
        Task::Img2Img => fields.picture("init_image", pixels, &mut too_large),
        _ => fields.no_picture("init_image"),
    };
    let draft = Draft {
        task,
        model: fields.text("model"),
        prompt: fields.text("prompt"),
        negative_prompt: fields.text("negative_prompt"),
        width: fields.whole("width"),
        height: fields.whole("height"),
        steps: fields.whole("steps"),
        sampler: fields.text("sampler"),
        schedule: fields.text("schedule"),
        guidance: fields.real("guidance"),
        eta: fields.real("eta"),
        seed: fields.whole("seed"),
        loras: fields.loras(),
        images: fields.whole("images"),
        preview_every: fields.whole("preview_every"),
        init_image,
        strength: fields.real("strength"),
        ..Draft::new(task)
    };
    (draft, too_large)
}
