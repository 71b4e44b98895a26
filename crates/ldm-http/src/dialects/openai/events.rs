//! The stream of an order: partial pictures, one `completed` for each picture, or an error.

use std::collections::VecDeque;

use axum::response::Response;
use axum::response::sse::Event as Sent;
use futures_util::stream;
use ldm_core::{Event, Progress};
use serde::Serialize;

use super::answer::now;
use super::wire::{Completed, Look, Partial, Usage};
use crate::calls::{Call, Press, Written};
use crate::codec::{self, base64};
use crate::error::ApiError;
use crate::sse;

/// The stream of one order. Dropping it drops the call.
struct Watch {
    call: Call,
    press: Press,
    family: &'static str,
    /// Partial pictures that are wanted of each picture.
    wanted: u32,
    /// Partial pictures that were sent, and the step of the newest, per picture.
    sent: Vec<(u32, u32)>,
    ready: VecDeque<Sent>,
    over: bool,
}

pub(super) fn response(press: Press, call: Call, family: &'static str, wanted: u32) -> Response {
    let sent = vec![(0, 0); call.requests().len()];
    let watch = Watch { call, press, family, wanted, sent, ready: VecDeque::new(), over: false };
    sse::response(stream::unfold(watch, |mut watch| async move { watch.next().await.map(|sent| (sent, watch)) }))
}

impl Watch {
    async fn next(&mut self) -> Option<Sent> {
        while self.ready.is_empty() {
            if self.over {
                return None;
            }
            match self.call.next().await {
                None => self.over = true,
                Some((index, event)) => {
                    if let Err(error) = self.hear(index, event).await {
                        self.over = true;
                        self.ready.push_back(told("error", &error.body(self.press.access.request_id())));
                    }
                }
            }
        }
        self.ready.pop_front()
    }

    async fn hear(&mut self, image_index: usize, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Ended(ending) => {
                let Written { output, body, .. } = self.press.written(image_index, ending, base64).await?;
                let (width, height, created_at) = (output.image.width(), output.image.height(), now());
                let (look, usage) = (Look::new(self.press.encoding, width, height), Usage::of(&output.request, 1, width, height));
                let r#type = format!("{}.completed", self.family);
                let name = r#type.clone();
                let seed = output.request.seed;
                let done = Completed { r#type, b64_json: body, created_at, look, usage, image_index, seed };
                self.ready.push_back(told(&name, &done));
            }
            Event::Progress(Progress::Step { preview: Some(preview), .. }) => {
                let (count, step) = self.sent[image_index];
                // The newest preview comes along with every later step.
                if count < self.wanted && preview.step > step {
                    self.sent[image_index] = (count + 1, preview.step);
                    let (width, height) = (preview.image.width(), preview.image.height());
                    let encoding = self.press.encoding;
                    let write = move || codec::encode(&preview.image, encoding, None).map(base64);
                    let (b64_json, _) = self.press.app.codec.write(u64::from(width) * u64::from(height), write).await?;
                    let r#type = format!("{}.partial_image", self.family);
                    let name = r#type.clone();
                    let look = Look::new(encoding, width, height);
                    let partial = Partial { r#type, b64_json, partial_image_index: count, created_at: now(), look, image_index };
                    self.ready.push_back(told(&name, &partial));
                }
            }
            Event::Progress(_) => {}
        }
        Ok(())
    }
}

fn told(name: &str, data: &impl Serialize) -> Sent {
    // A struct of strings and numbers always becomes JSON.
    Sent::default().event(name).json_data(data).unwrap_or_default()
}
