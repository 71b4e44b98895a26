//! Who asks: the tenant that a request's jobs belong to, and what it may.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use ldm_core::{Priority, Request, Tenant, Terms};

use crate::error::ApiError;
use crate::keys::{Bucket, Places};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ask for pictures, and look after its own jobs.
    User,
    /// Change the service besides.
    Admin,
}

/// A caller as the keys know it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// On whose behalf jobs run.
    pub(crate) tenant: Tenant,
    /// What it may do.
    pub(crate) role: Role,
    /// The most urgent that its jobs may be.
    pub(crate) priority: Priority,
    /// The models that it may use; `None` is every one.
    pub(crate) models: Option<Vec<String>>,
    /// How often it may ask for work.
    pub(crate) bucket: Option<Arc<Bucket>>,
    /// How many of its jobs may be unfinished at once.
    pub(crate) places: Option<Arc<Places>>,
}

/// Everybody, where there are no keys.
impl Default for Identity {
    fn default() -> Self {
        let (tenant, priority) = (Tenant::default(), Priority::Interactive);
        Self { tenant, role: Role::User, priority, models: None, bucket: None, places: None }
    }
}

/// Who asks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Arc<Identity>);

impl Caller {
    pub(crate) fn new(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// On whose behalf jobs run.
    pub(crate) fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        self.0.role
    }

    /// Whether it has shown no key.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.0.tenant == Tenant::default()
    }

    /// How often it may ask for work.
    pub(crate) fn bucket(&self) -> Option<&Arc<Bucket>> {
        self.0.bucket.as_ref()
    }

    /// How many of its jobs may be unfinished at once.
    pub(crate) fn places(&self) -> Option<&Arc<Places>> {
        self.0.places.as_ref()
    }

    /// Whether it may use the model.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.0.models.as_ref().is_none_or(|models| models.iter().any(|other| other == model))
    }

    /// The terms in its name, no more urgent than it may be.
    pub(crate) fn sign(&self, terms: Terms) -> Terms {
        // The urgent one sorts first.
        Terms { tenant: self.0.tenant.clone(), priority: terms.priority.max(self.0.priority), ..terms }
    }

    /// Refuses requests for models that it may not use.
    pub(crate) fn check(&self, requests: &[Request]) -> Result<(), ApiError> {
        match requests.iter().find(|request| !self.may_use(&request.model)) {
            None => Ok(()),
            Some(request) => {
                let own: Vec<_> = self.0.models.iter().flatten().map(|model| format!("{model:?}")).collect();
                let message = format!("this key may not use the model {:?}; `model` may be {}", request.model, own.join(", "));
                Err(ApiError::new(StatusCode::FORBIDDEN, "model_forbidden", message))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Caller>().cloned().unwrap_or_default())
    }
}
