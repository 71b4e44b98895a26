//! What a handler is told beside a body: who asks, under which record, and what becomes of the call when its client goes away
//! (the header `X-On-Disconnect`).

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use ldm_core::{Violation, Violations};

use crate::access::Access;
use crate::caller::Caller;
use crate::error::ApiError;

/// The header.
const HEADER: HeaderName = HeaderName::from_static("x-on-disconnect");

/// What becomes of a call whose client goes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Its jobs are cancelled.
    #[default]
    Cancel,
    /// It goes on as a named job, and its pictures wait under the job's id.
    Continue,
}

impl<S: Send + Sync> FromRequestParts<S> for Leaving {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let said = parts.headers.get(HEADER).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
        match said.as_deref() {
            None | Some("" | "cancel") => Ok(Self::Cancel),
            Some("continue") => Ok(Self::Continue),
            Some(other) => {
                let message = format!("`x-on-disconnect` must be cancel or continue, not {other:?}");
                Err(Violations(vec![Violation::new("x-on-disconnect", message, "cancel, continue", other)]).into())
            }
        }
    }
}

/// Who asks for pictures, and how.
pub(crate) struct Guest {
    /// The request's record.
    pub(crate) access: Access,
    /// Who asks.
    pub(crate) caller: Caller,
    /// What becomes of the call when its client goes.
    pub(crate) leaving: Leaving,
}

impl<S: Send + Sync> FromRequestParts<S> for Guest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        let Ok(caller) = Caller::from_request_parts(parts, state).await;
        let leaving = Leaving::from_request_parts(parts, state).await?;
        Ok(Self { access, caller, leaving })
    }
}
