//! A receiver of webhooks for tests: it gives the answers that it was told to give, and keeps what it heard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::sign::Secrets;

pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver was told.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Heard {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// As a receiver checks it.
    pub(super) fn is_signed(&self) -> bool {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        Secrets::read(SECRET).unwrap().sign(self.header("webhook-id"), timestamp, &self.body) == self.header("webhook-signature")
    }
}

#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    location: String,
    told: mpsc::UnboundedSender<Heard>,
}

async fn hear(State(script): State<Script>, headers: HeaderMap, body: Bytes) -> (StatusCode, [(header::HeaderName, String); 1]) {
    let _ = script.told.send(Heard { headers, body });
    let status = script.answers.lock().unwrap().pop_front().unwrap_or(StatusCode::NO_CONTENT);
    (status, [(header::LOCATION, script.location)])
}

/// A receiver that gives these answers, then 204.
pub(super) struct Receiver {
    pub(super) port: u16,
    pub(super) heard: mpsc::UnboundedReceiver<Heard>,
}

pub(super) fn script(answers: &[u16], location: &str) -> (Router, mpsc::UnboundedReceiver<Heard>) {
    let answers = answers.iter().map(|code| StatusCode::from_u16(*code).unwrap()).collect();
    let (told, heard) = mpsc::unbounded_channel();
    let script = Script { answers: Arc::new(Mutex::new(answers)), location: location.to_owned(), told };
    (Router::new().fallback(hear).with_state(script), heard)
}

impl Receiver {
    pub(super) async fn start(answers: &[u16], location: &str) -> Self {
        let (routes, heard) = script(answers, location);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { port, heard }
    }

    pub(super) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) async fn next(&mut self) -> Heard {
        self.heard.recv().await.unwrap()
    }
}
