//! What the tests of keys share: a file of keys, a service behind it, and a way to ask.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use ldm_engine::fake::FakeControl;
use serde_json::json;

use super::{Door, Keys, Secret};
use crate::testing::{Answer, node, ready, send};
use crate::{App, app};

/// A file of keys in a folder of its own, with a secret for each name.
pub(crate) struct Ring {
    folder: PathBuf,
    secrets: Vec<(String, Secret)>,
}

impl Ring {
    pub(crate) fn new(entries: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("latentd-keys-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let secrets = entries.iter().map(|(name, _)| ((*name).to_owned(), Secret::new().unwrap())).collect();
        let ring = Self { folder, secrets };
        ring.write(entries);
        ring
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("keys.toml")
    }

    pub(super) fn write(&self, entries: &[(&str, &str)]) {
        let entry = |(name, more): &(&str, &str)| {
            format!(
                "[[keys]]\nname = {name:?}\nsha256 = {:?}\n{more}\n",
                self.secrets.iter().find(|(known, _)| known == name).unwrap().1.sha256
            )
        };
        std::fs::write(self.path(), entries.iter().map(entry).collect::<String>()).unwrap();
    }

    pub(crate) fn secret(&self, name: &str) -> &str {
        &self.secrets.iter().find(|(known, _)| known == name).unwrap().1.secret
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::open(self.path()).unwrap()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// All routes of a service with named jobs and that door.
pub(super) async fn behind(door: Door) -> (Router, App, Arc<FakeControl>) {
    let (state, control) = ready().await;
    let node = node(&state);
    let state = state.named(node).door(door);
    (app(state.clone()), state, control)
}

pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

/// Asks with that key.
pub(super) async fn ask(router: &Router, secret: &str, method: &str, path: &str, body: &str) -> Answer {
    send(router, request(method, path, &[("x-api-key", secret)], body)).await
}

/// A named job.
pub(super) fn small() -> String {
    json!({ "task": "txt2img", "seed": 4, "steps": 2, "width": 64, "height": 64 }).to_string()
}

/// A picture.
pub(super) fn picture() -> String {
    json!({ "prompt": "x", "seed": 4, "steps": 2, "width": 64, "height": 64 }).to_string()
}
