//! What handlers share, and the routes with their layers.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use ldm_core::Catalogue;
use ldm_engine::node::Node;
use ldm_engine::{Readiness, Service};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::calls::Roll;
use crate::codec::Codec;
use crate::error::ApiError;
use crate::keys::{self, Door};
use crate::trace::Spans;
use crate::webhooks::{InvalidWebhooks, Policy, WebhookOptions, Webhooks};
use crate::{Admin, ConnectionLimits, Metrics, Otlp, Tls, access, admin, dialects, error, openapi, ops};

/// What the edge takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's body at most.
    pub body_bytes: usize,
    /// Pixels of a picture in a request at most.
    pub pixels: u64,
    /// Pictures that are encoded or decoded at once, at least 1.
    pub encoders: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        let encoders = std::thread::available_parallelism().map_or(2, usize::from);
        Self { body_bytes: 16 << 20, pixels: 16 << 20, encoders }
    }
}

/// An origin that no browser sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; write it like https://example.org, or *")]
pub struct InvalidOrigin(String);

/// What handlers share; a cheap handle.
#[derive(Clone)]
pub struct App {
    pub(crate) service: Service,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: HttpLimits,
    pub(crate) codec: Codec,
    pub(crate) spans: Spans,
    pub(crate) admin: Option<Admin>,
    pub(crate) door: Door,
    pub(crate) connections: ConnectionLimits,
    pub(crate) tls: Option<Tls>,
    pub(crate) node: Option<Node>,
    pub(crate) roll: Roll,
    pub(crate) replays: dialects::native::Replays,
    pub(crate) webhooks: Option<Webhooks>,
    pub(crate) options: dialects::a1111::Options,
    pub(crate) began: SystemTime,
    origins: Vec<HeaderValue>,
}

impl App {
    /// An app with default limits that no browser page of another origin may call.
    ///
    /// `metrics` should be the monitor that `service` was started with.
    pub fn new(service: Service, metrics: Arc<Metrics>) -> Self {
        let limits = HttpLimits::default();
        let codec = Codec::new(&limits, Arc::clone(&metrics));
        Self {
            service,
            metrics,
            limits,
            codec,
            spans: Spans::default(),
            admin: None,
            door: Door::default(),
            connections: ConnectionLimits::default(),
            tls: None,
            node: None,
            roll: Roll::default(),
            replays: Default::default(),
            webhooks: None,
            options: Default::default(),
            began: SystemTime::now(),
            origins: Vec::new(),
        }
    }

    /// With spans of jobs, exported by the same [`Otlp`] whose layer the process's subscriber has.
    pub fn traced(mut self, otlp: &Otlp) -> Self {
        self.spans = Spans::new(otlp.tracer());
        self
    }

    /// With named jobs. Their pictures should be made by [`keeper`](crate::keeper).
    pub fn named(mut self, node: Node) -> Self {
        self.node = Some(node);
        self
    }

    /// With webhooks for named jobs, if any origin may be called. Must be called in a tokio runtime, after
    /// [`named`](Self::named).
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn webhooks(mut self, options: &WebhookOptions) -> Result<Self, InvalidWebhooks> {
        if let Some(node) = self.node.clone().filter(|_| !options.allow.is_empty()) {
            self.webhooks = Some(Webhooks::start(options, node, Arc::clone(&self.metrics), Policy::default())?);
        }
        Ok(self)
    }

    /// With the routes that change models.
    pub fn admin(mut self, admin: Admin) -> Self {
        self.admin = Some(admin);
        self
    }

    /// With keys, or with limits for those who have none.
    pub fn door(mut self, door: Door) -> Self {
        self.door = door;
        self
    }

    /// With other limits on connections.
    pub fn connections(mut self, limits: ConnectionLimits) -> Self {
        self.connections = limits;
        self
    }

    /// Over TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With other limits.
    pub fn limits(mut self, limits: HttpLimits) -> Self {
        self.codec = Codec::new(&limits, Arc::clone(&self.metrics));
        self.limits = limits;
        self
    }

    /// Lets browser pages of these origins call the service; `*` lets every page.
    pub fn origins<S: AsRef<str>>(mut self, origins: impl IntoIterator<Item = S>) -> Result<Self, InvalidOrigin> {
        let parse = |origin: S| {
            let origin = origin.as_ref();
            let written = origin == "*" || (origin.contains("://") && !origin.ends_with('/'));
            HeaderValue::from_str(origin).ok().filter(|_| written).ok_or_else(|| InvalidOrigin(origin.to_owned()))
        };
        self.origins = origins.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Whether pages of that origin may call.
    pub(crate) fn lets(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|known| known == "*" || known == origin)
    }

    /// What may be asked for, if it is known yet.
    pub(crate) fn catalogue(&self) -> Result<Arc<Catalogue>, ApiError> {
        self.service.catalogue().ok_or_else(|| ApiError::unready(&self.service.readiness()))
    }

    /// Refuses early when the queue is full: to unpack pictures for it would be work for nothing.
    pub(crate) fn room(&self) -> Result<(), ApiError> {
        let load = self.service.load();
        match load.queued + load.running < load.limit {
            true => Ok(()),
            false => Err(ApiError::full(load.limit, self.service.until_free(1))),
        }
    }

    /// What may be asked for, if jobs are taken now.
    pub(crate) fn open(&self) -> Result<Arc<Catalogue>, ApiError> {
        match self.service.readiness() {
            Readiness::Ready => self.catalogue(),
            unready => Err(ApiError::unready(&unready)),
        }
    }
}

/// All routes.
pub fn app(state: App) -> Router {
    let routes = Router::new()
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .merge(openapi::routes())
        .merge(admin::routes())
        .merge(dialects::routes());
    layered(routes, state)
}

/// `routes` with what every answer goes through: from the inside out the body limit, the keys, the unwinding of panics, the
/// access record (which writes errors in their one shape), CORS.
pub(crate) fn layered(routes: Router<App>, state: App) -> Router {
    let routes = routes
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(state.limits.body_bytes))
        .layer(from_fn_with_state(state.clone(), keys::admit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn_with_state(state.clone(), access::track));
    match cors(&state.origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
    .with_state(state)
}

fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let any = origins.iter().any(|origin| origin == "*");
    let origins = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let taken = ["x-request-id", "traceparent", "x-api-key", "x-on-disconnect", "idempotency-key", "last-event-id"];
    let told = [
        "x-request-id",
        "traceparent",
        "x-job-id",
        "x-seed",
        "x-picture-sha256",
        "server-timing",
        "ratelimit",
        "ratelimit-policy",
    ];
    let taken =
        taken.map(HeaderName::from_static).into_iter().chain([header::CONTENT_TYPE, header::ACCEPT, header::AUTHORIZATION]);
    let told = told.map(HeaderName::from_static).into_iter().chain([header::RETRY_AFTER, header::LOCATION, header::ETAG]);
    // Without `allow_credentials` browsers add nothing by themselves: a page that has a key says so.
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::PUT])
            .allow_headers(taken.collect::<Vec<_>>())
            .expose_headers(told.collect::<Vec<_>>()),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get as get_route;
    use ldm_engine::Limits;
    use ldm_engine::fake::FakeOptions;

    use super::{InvalidOrigin, Router, app, header, layered};
    use crate::testing::{get, post, ready, send, started};

    #[tokio::test]
    async fn errors_have_one_shape_and_the_requests_id() {
        let router = app(ready().await.0);
        let request = Request::get("/nowhere").header("x-request-id", "mine-1").body(Body::empty()).unwrap();
        let lost = send(&router, request).await;
        assert_eq!((lost.status.as_u16(), lost.code().as_str()), (404, "not_found"));
        assert_eq!(lost.json()["error"]["request_id"], "mine-1");
        assert_eq!((lost.header("x-request-id"), lost.header("content-type")), ("mine-1", "application/json"));

        let wrong = get(&router, "/v1/txt2img").await;
        assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (405, "method_not_allowed"));
        assert_eq!((wrong.header("allow"), wrong.header("x-request-id").len()), ("POST", 36));
    }

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_500() {
        async fn broken() {
            panic!("on purpose");
        }
        let router = layered(Router::new().route("/broken", get_route(broken)), ready().await.0);
        let answer = get(&router, "/broken").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "internal"));
        assert!(answer.headers.contains_key("x-request-id"));
    }

    #[tokio::test]
    async fn what_loads_is_alive_and_not_ready() {
        let options = FakeOptions { load_failure: Some("no weights".to_owned()), ..FakeOptions::default() };
        let (failed, _) = started(Limits::default(), options);
        failed.service.wait_ready().await.unwrap_err();
        let router = app(failed);
        assert_eq!(get(&router, "/livez").await.status, 200);
        for path in ["/readyz", "/v1/models", "/v1/samplers"] {
            let answer = get(&router, path).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "failed"), "{path}");
            assert!(answer.headers.contains_key(header::RETRY_AFTER));
        }
        let refused = post(&router, "/v1/txt2img", "{}").await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "failed"));
        let text = String::from_utf8(get(&router, "/metrics").await.body).unwrap();
        assert!(text.contains(r#"latentd_rejected_total{reason="failed"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn pages_of_listed_origins_may_call() {
        let ask = async |router: &Router| {
            let request = Request::get("/livez").header(header::ORIGIN, "https://a.example").body(Body::empty()).unwrap();
            send(router, request).await.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        let (state, _) = ready().await;
        assert_eq!(ask(&app(state.clone())).await, None);
        assert_eq!(ask(&app(state.clone().origins(["https://b.example"]).unwrap())).await, None);
        assert_eq!(ask(&app(state.clone().origins(["https://a.example"]).unwrap())).await.unwrap(), "https://a.example");
        assert_eq!(ask(&app(state.clone().origins(["*"]).unwrap())).await.unwrap(), "*");
        for bad in ["a.example", "https://a.example/", "https://a\n"] {
            assert_eq!(state.clone().origins([bad]).err(), Some(InvalidOrigin(bad.to_owned())));
        }
    }
}
