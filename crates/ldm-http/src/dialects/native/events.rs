//! The dialect's event stream: `queued`, `progress`, `preview`, and at the end one `result` or one `error`.

use std::collections::VecDeque;

use axum::response::Response;
use axum::response::sse::Event as Sent;
use futures_util::stream;
use ldm_core::{Event, Preview, Progress};
use serde::Serialize;

use super::answer::Desk;
use super::wire;
use crate::calls::Call;
use crate::codec::{self, Codec, Encoding, Format, base64};
use crate::error::ApiError;
use crate::sse;

/// Previews are looked at once.
const PREVIEW: Encoding = Encoding { format: Format::Jpeg, quality: Some(80) };

/// The stream of one order. Dropping it drops the call.
struct Watch {
    /// `None` when the last event has been made.
    call: Option<(Call, Desk)>,
    pictures: Vec<Option<wire::Picture>>,
    /// The step of the newest preview sent, per picture.
    previewed: Vec<u32>,
    /// Events made and not yet sent.
    ready: VecDeque<Sent>,
}

/// The response that streams an order's events.
pub(super) fn response(desk: Desk, call: Call) -> Response {
    let watch = Watch {
        pictures: call.requests().iter().map(|_| None).collect(),
        previewed: vec![0; call.requests().len()],
        call: Some((call, desk)),
        ready: VecDeque::new(),
    };
    sse::response(stream::unfold(watch, |mut watch| async move { watch.next().await.map(|sent| (sent, watch)) }))
}

impl Watch {
    async fn next(&mut self) -> Option<Sent> {
        while self.ready.is_empty() {
            let (mut call, desk) = self.call.take()?;
            match self.hear(&mut call, &desk).await {
                Ok(()) if self.pictures.iter().any(Option::is_none) => self.call = Some((call, desk)),
                Ok(()) => {
                    let pictures = self.pictures.drain(..).flatten().collect();
                    let server_timing = Some(desk.press.access.timing());
                    self.ready.push_back(event("result", &wire::Answer { server_timing, ..desk.bound(pictures) }));
                }
                Err(error) => {
                    let error = error.body(desk.press.access.request_id());
                    self.ready.push_back(event("error", &wire::LastError { error, server_timing: desk.press.access.timing() }));
                }
            }
        }
        self.ready.pop_front()
    }

    /// Takes in one event.
    async fn hear(&mut self, call: &mut Call, desk: &Desk) -> Result<(), ApiError> {
        // Every job tells its ending, so the stream does not end before the pictures are there.
        match call.next().await.ok_or_else(ApiError::internal)? {
            (image, Event::Progress(progress)) => self.progress(image, progress, desk).await?,
            (image, Event::Ended(ending)) => self.pictures[image] = Some(desk.picture(image, ending).await?),
        }
        Ok(())
    }

    async fn progress(&mut self, image: usize, progress: Progress, desk: &Desk) -> Result<(), ApiError> {
        let stage = |stage| event("progress", &wire::Progress { image, stage, step: None, steps: None });
        match progress {
            Progress::Queued { position } => self.ready.push_back(event("queued", &wire::Queued { image, position })),
            Progress::Preparing => self.ready.push_back(stage("prepare")),
            Progress::Decoding => self.ready.push_back(stage("decode")),
            Progress::Step { step, steps, preview } => {
                let done = wire::Progress { image, stage: "step", step: Some(step), steps: Some(steps) };
                self.ready.push_back(event("progress", &done));
                // The newest preview comes along with every later step.
                if let Some(preview) = preview.filter(|preview| preview.step > self.previewed[image]) {
                    self.previewed[image] = preview.step;
                    let shown = self::preview(&desk.press.app.codec, image, preview).await?;
                    self.ready.push_back(event("preview", &shown));
                }
            }
        }
        Ok(())
    }
}

/// A preview on the wire.
pub(super) async fn preview(codec: &Codec, image: usize, preview: Preview) -> Result<wire::Preview, ApiError> {
    let step = preview.step;
    let (width, height) = (preview.image.width(), preview.image.height());
    let pixels = u64::from(width) * u64::from(height);
    let write = move || codec::encode(&preview.image, PREVIEW, None).map(base64);
    let (b64, _) = codec.write(pixels, write).await?;
    Ok(wire::Preview { image, step, b64, mime: PREVIEW.format.mime(), width, height })
}

fn event(name: &str, data: &impl Serialize) -> Sent {
    // A struct of strings and numbers always becomes JSON.
    Sent::default().event(name).json_data(data).unwrap_or_default()
}
