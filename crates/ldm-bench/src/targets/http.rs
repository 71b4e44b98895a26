//! A running server, over its native API (`docs/http-api.md`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Counters, Outcome, Shot, Stages, Target};
use crate::{Kind, Mix};

/// Bytes of an answer that are read at most.
const MAX_ANSWER: usize = 512 << 20;
/// A connection is made within this.
const CONNECT: Duration = Duration::from_secs(10);

/// An address that no request can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`url` must be like http://127.0.0.1:8080, not {0:?}")]
pub struct UrlError(String);

/// A server behind a URL. Connections are kept and used again; one whose answer nobody waited for is closed.
#[derive(Debug)]
pub struct HttpTarget {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// What each tenant sends as its identity.
    keys: Vec<Option<HeaderValue>>,
}

impl HttpTarget {
    /// The server at `url`, asked by the tenants of `mix`.
    ///
    /// # Errors
    /// When `url` is not plain HTTP to some host.
    pub fn new(url: &str, mix: &Mix) -> Result<Self, UrlError> {
        let parsed: Uri = url.parse().map_err(|_| UrlError(url.to_owned()))?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none_or(str::is_empty) || parsed.query().is_some() {
            return Err(UrlError(url.to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let key = |key: &String| {
            // `Mix` lets visible ASCII through alone.
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let keys = mix.tenants.iter().map(|tenant| tenant.api_key.as_ref().and_then(key)).collect();
        Ok(Self { client, base: url.trim_end_matches('/').to_owned(), keys })
    }

    async fn ask(&self, method: Method, path: &str, accept: &'static str, tenant: usize, body: Vec<u8>) -> Result<Heard, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header(ACCEPT, accept);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(Some(key)) = self.keys.get(tenant) {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| root(&error))?;
        let (head, body) = response.into_parts();
        let read = Limited::new(body, MAX_ANSWER).collect().await;
        let body = read.map_err(|error| format!("the answer broke off: {}", root(error.as_ref())))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

/// An answer, read to its end.
type Heard = Response<Bytes>;

/// What is at the bottom of an error: what differs between causes.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

impl Target for HttpTarget {
    async fn send(&self, shot: &Shot) -> Outcome {
        let kind = &shot.kind;
        let accept = if kind.raw { "image/png" } else { "application/json" };
        let path = format!("/v1/{}", kind.task.name());
        match self.ask(Method::POST, &path, accept, kind.tenant, body(shot)).await {
            Ok(answer) => outcome(kind, &answer),
            Err(reason) => Outcome::Failed { reason },
        }
    }

    async fn counters(&self) -> Result<Counters, String> {
        let answer = self.ask(Method::GET, "/metrics", "*/*", 0, Vec::new()).await?;
        match answer.status() {
            StatusCode::OK => Ok(Counters::read(&String::from_utf8_lossy(answer.body()))),
            status => Err(format!("GET {}/metrics was answered with {status}", self.base)),
        }
    }
}

/// The JSON that asks for the shot.
fn body(shot: &Shot) -> Vec<u8> {
    let kind = &shot.kind;
    let mut fields: Map<String, Value> = kind.body.clone().into_iter().collect();
    let mut say = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(field.to_owned(), value);
        }
    };
    say("prompt", kind.prompt(shot.prompt).map(Value::from));
    say("negative_prompt", kind.negative_prompt.as_deref().map(Value::from));
    let texts = [("model", &kind.model), ("sampler", &kind.sampler), ("schedule", &kind.schedule), ("priority", &kind.priority)];
    texts.into_iter().for_each(|(field, text)| say(field, text.as_deref().map(Value::from)));
    // A small picture's size says what comes out of super-resolution.
    let sized = kind.task != ldm_core::Task::SuperResolution;
    let sides = [("width", kind.width.filter(|_| sized)), ("height", kind.height.filter(|_| sized)), ("steps", kind.steps)];
    sides.into_iter().for_each(|(field, number)| say(field, number.map(Value::from)));
    say("guidance", kind.guidance.map(Value::from));
    say("strength", kind.strength.map(Value::from));
    say("images", Some(kind.images).filter(|images| *images > 1).map(Value::from));
    say("seed", Some(shot.seed.into()));
    kind.drawn.iter().for_each(|drawn| say(drawn.field, Some(drawn.b64.as_str().into())));
    Value::Object(fields).to_string().into_bytes()
}

#[derive(Deserialize)]
struct Answer {
    images: Vec<Picture>,
}

#[derive(Deserialize)]
struct Picture {
    timings: Timings,
}

#[derive(Deserialize)]
struct Timings {
    queued_ms: f64,
    prepare_ms: f64,
    steps_ms: f64,
    decode_ms: f64,
    encode_ms: f64,
}

impl Timings {
    fn stages(&self) -> Stages {
        let time = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default();
        Stages {
            queue: time(self.queued_ms),
            prepare: time(self.prepare_ms),
            steps: time(self.steps_ms),
            decode: time(self.decode_ms),
            encode: time(self.encode_ms),
        }
    }
}

fn outcome(kind: &Kind, answer: &Heard) -> Outcome {
    match answer.status() {
        StatusCode::OK if kind.raw => Outcome::Done { images: 1, stages: None },
        StatusCode::OK => match serde_json::from_slice::<Answer>(answer.body()) {
            Ok(said) => {
                let stages = said.images.iter().map(|picture| picture.timings.stages()).max_by_key(Stages::total);
                Outcome::Done { images: said.images.len() as u32, stages }
            }
            Err(error) => Outcome::Failed { reason: format!("the answer is not as documented: {error}") },
        },
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds = said.and_then(|said| said.trim().parse::<u32>().ok());
            Outcome::Rejected { status: status.as_u16(), retry_after: seconds.map(|said| Duration::from_secs(said.into())) }
        }
        status => Outcome::Failed { reason: complaint(status, answer.body()) },
    }
}

/// The status with the server's message.
fn complaint(status: StatusCode, body: &[u8]) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &said["error"];
    match (error["code"].as_str(), error["message"].as_str()) {
        (Some(code), Some(message)) => format!("{} {code}: {message}", status.as_u16()),
        _ => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn kind(text: &str) -> Arc<Kind> {
        Arc::clone(&Mix::parse(text).unwrap().kinds[0])
    }

    #[test]
    fn addresses_must_be_plain_http() {
        let mix = Mix::built_in().unwrap();
        assert_eq!(HttpTarget::new("http://h:1/", &mix).unwrap().base, "http://h:1");
        for bad in ["https://h", "h:80", "", "/v1", "http://"] {
            assert_eq!(HttpTarget::new(bad, &mix).err(), Some(UrlError(bad.to_owned())));
        }
    }

    #[test]
    fn a_body_says_what_the_kind_says_and_nothing_else() {
        let text = "[[kind]]\nsteps = 3\nprompts = ['a', 'b']\npriority = 'batch'\nbody = { deadline_s = 2 }";
        let said: Value = serde_json::from_slice(&body(&Shot { kind: kind(text), prompt: 1, seed: 9 })).unwrap();
        assert_eq!(said, serde_json::json!({"prompt": "b", "steps": 3, "seed": 9, "priority": "batch", "deadline_s": 2}));
    }

    #[test]
    fn answers_become_outcomes() {
        let kind = kind("[[kind]]");
        let answer = |status: u16, body: &str| {
            let answer = Response::builder().status(status).header(RETRY_AFTER, "3").body(Bytes::from(body.to_owned()));
            outcome(&kind, &answer.unwrap())
        };
        let timings = |ms| format!(r#"{{"queued_ms":{ms},"prepare_ms":1,"steps_ms":2,"decode_ms":3,"encode_ms":0.5}}"#);
        let two = format!(r#"{{"images":[{{"b64":"","timings":{}}},{{"timings":{}}}]}}"#, timings(1), timings(10));
        let Outcome::Done { images: 2, stages: Some(stages) } = answer(200, &two) else { panic!("two pictures") };
        assert_eq!(stages.total(), Duration::from_micros(16_500));
        assert_eq!(answer(429, ""), Outcome::Rejected { status: 429, retry_after: Some(Duration::from_secs(3)) });
        let failed = answer(500, r#"{"error": {"code": "panicked", "message": "at step 3"}}"#);
        assert_eq!(failed, Outcome::Failed { reason: "500 panicked: at step 3".to_owned() });
        assert!(matches!(answer(200, "{}"), Outcome::Failed { reason } if reason.contains("images")));
    }
}
