//! From the endings of a call to files of pictures, whatever the dialect; on the way each job is told to the trace and its times
//! to the record.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ldm_core::{Catalogue, Ending, JobId, Output, Request, Timings};

use super::Call;
use crate::App;
use crate::access::Access;
use crate::codec::{self, Encoding};
use crate::error::{self, ApiError};
use crate::provenance::Provenance;
use crate::trace::Told;

/// A finished picture, written.
pub(crate) struct Written<T> {
    pub(crate) output: Output,
    /// The file, in the shape that was asked for.
    pub(crate) body: T,
    /// Of the pixels.
    pub(crate) sha256: String,
    /// How long the writing took.
    pub(crate) image: Duration,
}

/// What turns a call's endings into files.
pub(crate) struct Press {
    pub(crate) app: App,
    pub(crate) access: Access,
    pub(crate) encoding: Encoding,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) made: Arc<Provenance>,
    submitted: SystemTime,
    /// A job per picture, or one for all.
    pub(crate) ids: Vec<JobId>,
    requests: Vec<Arc<Request>>,
}

impl Press {
    /// For that call, whose requests were checked against `catalogue`.
    pub(crate) fn new(app: App, access: Access, catalogue: Arc<Catalogue>, encoding: Encoding, call: &Call) -> Self {
        let model = call.requests().first().map_or("", |request| &request.model);
        let made = Arc::new(Provenance::of(&catalogue, model));
        let (ids, requests) = (call.ids().to_vec(), call.requests().to_vec());
        Self { app, access, encoding, catalogue, made, submitted: SystemTime::now(), ids, requests }
    }

    /// The picture's file as `shape` has it.
    pub(crate) async fn written<T, F>(&self, index: usize, ending: Ending, shape: F) -> Result<Written<T>, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(Vec<u8>) -> T + Send + 'static,
    {
        let reason = ending.reason();
        let output = error::finished(ending).inspect_err(|_| self.told(index, reason, None))?;
        let (picture, catalogue, made) = (output.clone(), Arc::clone(&self.catalogue), Arc::clone(&self.made));
        let (encoding, pixels) = (self.encoding, u64::from(output.image.width()) * u64::from(output.image.height()));
        let write = move || codec::signed(&picture, &catalogue, &made, encoding).map(|(file, sha256)| (shape(file), sha256));
        let ((body, sha256), image) = self.app.codec.write(pixels, write).await?;
        self.access.picture(output.timings, image);
        self.told(index, reason, Some((output.timings, image)));
        Ok(Written { output, body, sha256, image })
    }

    /// The job of the picture with that index.
    pub(crate) fn id(&self, index: usize) -> Option<JobId> {
        self.ids.get(index).or(self.ids.first()).copied()
    }

    fn told(&self, index: usize, reason: &'static str, stages: Option<(Timings, Duration)>) {
        let (Some(id), Some(request)) = (self.id(index), self.requests.get(index)) else { return };
        self.app.spans.job(self.access.span(), &Told { id, request, submitted: self.submitted, stages, reason });
    }
}
