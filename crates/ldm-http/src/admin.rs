//! `/v1/admin/models`: the models of a running service, listed, added, removed, read again.
//!
//! The routes are there only for whoever may: with a token for those who show it, without one for those on the same machine that
//! are no browser page. What a model's source is, only the binary knows: it implements [`Models`].

pub(crate) mod docs;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::routing::{delete, get, post};
use ldm_core::{Failure, Violation, Violations};
use serde::Serialize;
use serde_json::Value;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use crate::App;
use crate::caller::{Caller, Role};
use crate::error::ApiError;

/// A change of the models, as it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelOrder {
    /// Add the model, or replace the one of that id.
    Put {
        /// The name that requests use.
        id: String,
        /// Where its files are, as the configuration has it.
        path: String,
    },
    /// Forget the model.
    Remove(String),
    /// Read the model's files again.
    Reload(String),
}

/// Who changes the models of a service.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Carries the order out; jobs that run keep the weights that they began with.
    async fn change(&self, order: ModelOrder) -> Result<(), Failure>;
}

/// The admin routes of an [`App`].
#[derive(Clone)]
pub struct Admin {
    models: Arc<dyn Models>,
    token: Option<Arc<str>>,
}

impl Admin {
    /// Without a token: where there are keys, admins may; where there are none, everybody who reaches the service and is no
    /// browser page, which is only for a service that listens on the loopback interface.
    pub fn new(models: Arc<dyn Models>, token: Option<&str>) -> Self {
        Self { models, token: token.map(Arc::from) }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.token.is_none() {
            // Browsers name a page's origin on every request that could change something, also after DNS rebinding.
            return match headers.contains_key(header::ORIGIN) {
                true => Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", "browser pages may not change models")),
                false => Ok(()),
            };
        }
        match self.shows_token(headers) {
            true => Ok(()),
            false => Err(ApiError::unauthorized("send the header `authorization: Bearer <admin token>`")),
        }
    }

    fn shows_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return false };
        let said = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let shown = said.strip_prefix(b"Bearer ").unwrap_or_default();
        shown.ct_eq(token.as_bytes()).into()
    }
}

/// Whether the request is an admin's, where there are keys.
pub(crate) fn is_admins(app: &App, caller: Option<&Caller>, headers: &HeaderMap) -> Result<(), ApiError> {
    let known = caller.filter(|caller| !caller.is_anonymous());
    if known.is_some_and(|caller| caller.role() == Role::Admin) || app.admin.as_ref().is_some_and(|it| it.shows_token(headers)) {
        return Ok(());
    }
    Err(match known {
        Some(_) => ApiError::new(StatusCode::FORBIDDEN, "forbidden", "this key's role is not admin"),
        None => ApiError::unauthorized("send the header `authorization: Bearer <key>` with an admin's key"),
    })
}

/// Who may: the extractor stands before everything else that a handler takes.
pub(crate) struct Allowed(Admin);

impl FromRequestParts<App> for Allowed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let message = "the admin routes are off: set server.keys_file or server.admin_token, or listen on the loopback interface";
        let off = || ApiError::new(StatusCode::FORBIDDEN, "admin_off", message);
        let admin = app.admin.clone().ok_or_else(off)?;
        match app.door.keys {
            Some(_) => is_admins(app, parts.extensions.get::<Caller>(), &parts.headers)?,
            None => admin.check(&parts.headers)?,
        }
        Ok(Self(admin))
    }
}

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/admin/models", get(list).post(put))
        .route("/v1/admin/models/{id}", delete(remove))
        .route("/v1/admin/models/{id}/reload", post(reload))
}

#[derive(Serialize, ToSchema)]
#[schema(as = WorkersModels)]
struct List {
    workers: Vec<Worker>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = WorkerModels)]
struct Worker {
    worker: String,
    models: Vec<Resident>,
}

#[derive(Serialize, ToSchema)]
struct Resident {
    id: String,
    loaded: bool,
    bytes: u64,
}

async fn list(State(app): State<App>, _: Allowed) -> Json<Value> {
    Json(now(&app))
}

/// The models of every worker.
fn now(app: &App) -> Value {
    let worker = |status: ldm_engine::WorkerStatus| Worker {
        worker: status.name,
        models: status.residents.into_iter().map(|it| Resident { id: it.id, loaded: it.loaded, bytes: it.bytes }).collect(),
    };
    let list = List { workers: app.service.workers().into_iter().map(worker).collect() };
    // A struct of strings and numbers always becomes JSON.
    serde_json::to_value(list).unwrap_or_default()
}

async fn put(State(app): State<App>, Allowed(admin): Allowed, headers: HeaderMap, body: Bytes) -> Result<Json<Value>, ApiError> {
    if !crate::negotiate::is_json(&headers) {
        return Err(ApiError::not_json());
    }
    carry_out(&app, &admin, source(&body)?).await
}

async fn remove(State(app): State<App>, Allowed(admin): Allowed, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    carry_out(&app, &admin, ModelOrder::Remove(known(&app, id)?)).await
}

async fn reload(State(app): State<App>, Allowed(admin): Allowed, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    carry_out(&app, &admin, ModelOrder::Reload(known(&app, id)?)).await
}

async fn carry_out(app: &App, admin: &Admin, order: ModelOrder) -> Result<Json<Value>, ApiError> {
    tracing::info!(?order, "models are being changed");
    admin.models.change(order).await?;
    Ok(Json(now(app)))
}

/// The id of a model that is served.
fn known(app: &App, id: String) -> Result<String, ApiError> {
    let catalogue = app.catalogue()?;
    match catalogue.models.iter().any(|model| model.id == id) {
        true => Ok(id),
        false => Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_model", format!("no model {id:?} is served here"))),
    }
}

/// `{"id": ..., "path": ...}`.
pub(crate) fn source(body: &[u8]) -> Result<ModelOrder, ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(|error| ApiError::malformed(&error))?;
    let mut bad = Violations::default();
    let mut text = |field: &str| match &value[field] {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Null => {
            bad.push(Violation::missing(field));
            String::new()
        }
        other => {
            bad.push(Violation::new(field, format!("`{field}` must be a text that is not empty"), "a text", other));
            String::new()
        }
    };
    let (id, path) = (text("id"), text("path"));
    for field in
        value.as_object().into_iter().flat_map(serde_json::Map::keys).filter(|key| !["id", "path"].contains(&key.as_str()))
    {
        bad.push(Violation::new(field, format!("there is no field {field:?}"), "id, path", &value[field]));
    }
    if !id.is_empty() && !id.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c)) {
        bad.push(Violation::new(
            "id",
            "a model's id must be letters, digits and . _ - / : alone",
            "letters, digits, . _ - / :",
            &id,
        ));
    }
    bad.into_result(|| ModelOrder::Put { id, path }).map_err(ApiError::from)
}
