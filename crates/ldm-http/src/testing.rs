//! What the crate's tests share: an app in front of a fake device, and a way to ask it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, Retention, SystemClock};
use ldm_engine::node::{self, Node};
use ldm_engine::objects::Objects;
use ldm_engine::{Limits, Service};
use serde_json::Value;
use tower::ServiceExt;

use crate::{App, HttpLimits, Metrics, app, keeper};

/// An app that is ready, with small limits.
pub(crate) async fn ready() -> (App, Arc<FakeControl>) {
    let (app, control) = started(Limits { queue: 4, running: 4, ..Limits::default() }, FakeOptions::default());
    app.service.wait_ready().await.unwrap();
    control.clear();
    (app, control)
}

/// All routes of an app that is ready, with named jobs in memory.
pub(crate) async fn house() -> (Router, Arc<FakeControl>) {
    let (state, control) = ready().await;
    let node = node(&state);
    (app(state.named(node)), control)
}

/// A node in memory for the app's service.
pub(crate) fn node(state: &App) -> Node {
    node_with(state, Arc::new(Memory::new(LedgerLimits::default())), Objects::memory(), Retention::default(), 4)
}

/// A node for the app's service, on that ledger, which runs so many jobs at once.
pub(crate) fn node_with(state: &App, ledger: Arc<dyn Ledger>, objects: Objects, retention: Retention, capacity: u32) -> Node {
    Node::start(node::Parts {
        name: "test".to_owned(),
        service: state.service.clone(),
        ledger,
        objects,
        encode: keeper(state.service.clone()),
        clock: Arc::new(SystemClock::default()),
        retention,
        capacity,
    })
}

/// An app that may still be loading.
pub(crate) fn started(limits: Limits, options: FakeOptions) -> (App, Arc<FakeControl>) {
    let metrics = Arc::new(Metrics::new());
    let executor = FakeExecutor::new(options);
    let control = executor.control();
    let service = Service::start(limits, Arc::clone(&metrics) as _, executor.loader());
    let limits = HttpLimits { body_bytes: 64 << 10, pixels: 256 * 256, encoders: 2 };
    (App::new(service, metrics).limits(limits), control)
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// A header, empty when absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error's code.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error").to_owned()
    }

    /// The fields that the error names.
    pub(crate) fn fields(&self) -> Vec<String> {
        let json = self.json();
        let violations = json["error"]["violations"].as_array().expect("an error");
        violations.iter().map(|violation| violation["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// Asks once.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: to_bytes(body, usize::MAX).await.unwrap().to_vec() }
}

/// `GET path`.
pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

/// `POST path` with a body that says it is JSON.
pub(crate) async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(router, request.body(body.into()).unwrap()).await
}

/// A PNG of one grey.
pub(crate) fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![7; width as usize * height as usize * 3]).unwrap();
    writer.finish().unwrap();
    file
}

/// Parts of a form: name, a file's name, bytes.
pub(crate) type Parts<'a> = [(&'a str, Option<&'a str>, &'a [u8])];

/// A body of `multipart/form-data`, and the `content-type` that goes with it.
pub(crate) fn form(parts: &Parts<'_>) -> (String, Vec<u8>) {
    let boundary = "----latentd0123456789";
    let mut body = Vec::new();
    for (name, filename, bytes) in parts {
        let file = filename.map(|filename| format!("; filename=\"{filename}\"\r\ncontent-type: application/octet-stream"));
        let file = file.unwrap_or_default();
        body.extend(format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

/// A chunk of a PNG file, with its checksum.
pub(crate) fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let shift = |crc: u32| (0..8).fold(crc, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
    let crc = !name.iter().chain(body).fold(u32::MAX, |crc, byte| shift(crc ^ u32::from(*byte)));
    [&(body.len() as u32).to_be_bytes()[..], name, body, &crc.to_be_bytes()].concat()
}
