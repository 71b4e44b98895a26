//! The first thing that happens to a request: who asks, whether they may, and whether it is too much.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::book::Found;
use super::rate::{Peer, Standing, TooSoon};
use super::shown::shown;
use crate::App;
use crate::access::Access;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::server::Late;

/// What anybody may see: whether the service is well.
const OPEN: [&str; 8] =
    ["/livez", "/readyz", "/healthz", "/health", "/ping", "/v2/health/live", "/v2/health/ready", "/internal/ping"];
/// What describes the service, and is the same everywhere.
const REFERENCE: [&str; 2] = ["/openapi.json", "/docs"];
/// Ends of paths that only stop or look, which an empty bucket must not prevent.
const LIGHT: [&str; 4] = ["/cancel", "/interrupt", "/skip", "/internal/progress"];

/// Lets a request in, as its caller's, or answers it.
pub(crate) async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let (standing, mut response) = match enter(&app, &request) {
        Ok((caller, standing)) => {
            if let Some(caller) = caller {
                if let Some(access) = request.extensions().get::<Access>() {
                    access.tenant(caller.tenant());
                }
                request.extensions_mut().insert(caller);
            }
            let late = request.extensions().get::<Late>().cloned();
            let response = next.run(request).await;
            let is_late = late.is_some_and(|late| late.is_set()) && response.status().is_client_error();
            (standing, if is_late { too_late().into_response() } else { response })
        }
        Err(refused) => {
            let (standing, error) = *refused;
            app.metrics.rejected(error.code);
            (standing, error.into_response())
        }
    };
    if let Some(standing) = standing {
        standing.write(response.headers_mut());
    }
    response
}

fn too_late() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body came too slowly")
}

type Refusal = Box<(Option<Standing>, ApiError)>;

/// The caller, if the path does not ask for itself; and where they stand, if they have a rate.
fn enter(app: &App, request: &Request) -> Result<(Option<Caller>, Option<Standing>), Refusal> {
    let refused = |error: ApiError| Box::new((None, error));
    // What is declared to be too large is not begun.
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > app.limits.body_bytes as u64) {
        return Err(refused(ApiError::body_too_large(app.limits.body_bytes)));
    }
    let path = request.uri().path();
    if is_open(path) {
        return Ok((Some(Caller::default()), None));
    }
    let caller = match identify(app, request.headers()) {
        Ok(caller) => caller,
        // These say themselves who may.
        Err(_) if path.starts_with("/v1/admin/") || path == "/metrics" => return Ok((None, None)),
        Err(error) => return Err(refused(error)),
    };
    let standing = if is_work(request.method(), path) { take(app, request, &caller) } else { Ok(None) };
    let standing = standing.map_err(|soon| Box::new((Some(soon.standing()), soon.error())))?;
    Ok((Some(caller), standing))
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path)
        || REFERENCE.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether the request asks for something to be done, and so counts.
fn is_work(method: &Method, path: &str) -> bool {
    matches!(*method, Method::POST | Method::PUT) && !LIGHT.iter().any(|end| path.ends_with(end))
}

fn take(app: &App, request: &Request, caller: &Caller) -> Result<Option<Standing>, TooSoon> {
    if let Some(bucket) = caller.bucket() {
        return bucket.take().map(Some);
    }
    match (&app.door.peers, caller.is_anonymous(), request.extensions().get::<Peer>()) {
        (Some(peers), true, Some(peer)) => peers.take(*peer).map(Some),
        _ => Ok(None),
    }
}

/// Who the headers say asks.
fn identify(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Some(keys) = &app.door.keys else { return Ok(Caller::default()) };
    let shown = shown(headers, !is_foreign(app, headers));
    let mut expired = false;
    for secret in &shown.secrets {
        match keys.find(secret) {
            Found::Caller(caller) => return Ok(caller),
            Found::Expired => expired = true,
            Found::Nothing => {}
        }
    }
    if !shown.any && app.door.anonymous {
        return Ok(Caller::default());
    }
    Err(ApiError::unauthorized(match (expired, shown.any) {
        (true, _) => "this key has expired",
        (false, true) => "this is no key of this service",
        (false, false) => {
            "send a key: `authorization: Bearer <key>`, `x-api-key: <key>`, or HTTP Basic with the key as the password"
        }
    }))
}

/// Whether a browser sends it for a page of an origin that is not listed: it adds HTTP Basic by itself.
fn is_foreign(app: &App, headers: &HeaderMap) -> bool {
    let across = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    across && !headers.get(header::ORIGIN).is_some_and(|origin| app.lets(origin))
}
