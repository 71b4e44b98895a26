//! What `fuzz/` feeds: readers of what strangers send, each with what must hold whatever comes. A panic is a finding.

use std::sync::{Arc, LazyLock};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use ldm_core::Catalogue;
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Service};
use tokio::runtime::{Builder, Runtime};

use crate::codec::{self, Encoding, Format, Unreadable};
use crate::dialects::{a1111, native, openai};
use crate::error::ApiError;
use crate::{App, HttpLimits, Metrics, admin, metadata, multipart};

/// Pixels of a picture at most: few, so that many are tried.
const PIXELS: u64 = 256 * 256;
/// Bytes of a form at most.
const BODY: usize = 1 << 20;

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(FakeExecutor::catalogue_example()));

/// A JSON body, to every reader of one.
pub fn json(body: &[u8]) {
    let bytes = Bytes::copy_from_slice(body);
    for answer in native::fuzz::json(&bytes, &CATALOGUE, PIXELS) {
        sound(answer);
    }
    for answer in openai::fuzz::json(&bytes, &CATALOGUE, PIXELS) {
        sound(answer);
    }
    for answer in a1111::fuzz::json(&bytes, &CATALOGUE, PIXELS) {
        sound(answer);
    }
    sound(admin::source(body).map(drop));
}

/// A text that should be a picture in base64, with or without `data:` in front.
pub fn data_url(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(bytes) = codec::unwrapped(text) else { return };
    assert!(bytes.len() <= text.len(), "base64 never grows");
    let wrapped = format!("data:image/png;base64,{}", codec::base64(&bytes));
    assert_eq!(codec::unwrapped(&wrapped), Ok(bytes), "what was unwrapped can be wrapped again");
    if let Ok(picture) = codec::decode(text, PIXELS) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= PIXELS, "no more pixels than allowed");
    }
}

/// A file that should be a picture: its pixels, and what it says of itself.
pub fn picture(file: &[u8]) {
    let limited = codec::read_with_alpha(file, PIXELS);
    if let Ok(picture) = &limited {
        let size = (picture.colours.width(), picture.colours.height());
        assert!(u64::from(size.0) * u64::from(size.1) <= PIXELS, "no more pixels than allowed");
        assert!(picture.alpha.as_ref().is_none_or(|alpha| (alpha.width(), alpha.height()) == size), "alpha is as large");
        let white = picture.clone().on_white();
        let written = codec::encode(&white, Encoding { format: Format::Png, quality: None }, None).expect("a raster is written");
        assert_eq!(codec::read_picture(&written, PIXELS).as_ref(), Ok(&white), "a PNG comes back as it was");
        assert!(codec::read_picture(file, u64::from(size.0) * u64::from(size.1) - 1).is_err(), "one pixel too many is refused");
    }
    if let Err(Unreadable::TooLarge { width, height, limit }) = limited {
        assert!(u64::from(width) * u64::from(height) > limit, "what is refused as too large is");
    }
    if let Ok(found) = metadata::read(file) {
        let texts = found.items.values().map(String::len).sum::<usize>() + found.parameters.as_ref().map_or(0, String::len);
        assert!(texts <= 8 << 20, "texts are bounded");
        let _ = metadata::Infotext::parse(&found.parameters.unwrap_or_default());
    }
}

/// A body that should be `multipart/form-data` with the boundary `B`, to every reader of one.
pub fn form(body: &[u8]) {
    let parts = RUNTIME.0.block_on(async {
        let request = Request::post("/").header(header::CONTENT_TYPE, "multipart/form-data; boundary=B");
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        multipart::read(request, &RUNTIME.1).await
    });
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => return sound(Err(error)),
    };
    assert!(parts.iter().map(|part| part.bytes.len() + part.name.len()).sum::<usize>() <= body.len(), "parts are of the body");
    for answer in native::fuzz::form(&parts, &CATALOGUE, PIXELS) {
        sound(answer);
    }
    sound(openai::fuzz::form(parts, &CATALOGUE, PIXELS));
}

/// A runtime, and an app that reads forms on it.
static RUNTIME: LazyLock<(Runtime, App)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = runtime.block_on(async {
        let metrics = Arc::new(Metrics::new());
        let service =
            Service::start(Limits::default(), Arc::clone(&metrics) as _, FakeExecutor::new(FakeOptions::default()).loader());
        App::new(service, metrics).limits(HttpLimits { body_bytes: BODY, pixels: PIXELS, encoders: 1 })
    });
    (runtime, app)
});

/// What is refused is refused as the client's fault, in words, and names a field or says why the whole body is none.
fn sound(answer: Result<(), ApiError>) {
    let Err(error) = answer else { return };
    assert!(error.status.is_client_error(), "{error:?}");
    assert!(!error.message.is_empty() && error.violations.iter().all(|bad| !bad.message.is_empty()), "{error:?}");
    assert!(error.code != "invalid_request" || !error.violations.is_empty(), "{error:?}");
    serde_json::to_vec(&error.body("fuzz")).expect("an error is JSON");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What `fuzz/` begins with is read without a panic.
    #[test]
    fn corpora_are_read() {
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 4] =
            [("json", super::json), ("data_url", super::data_url), ("picture", super::picture), ("form", super::form)];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let files: Vec<_> = std::fs::read_dir(&folder).expect("a corpus").map(|file| file.unwrap().path()).collect();
            assert!(files.len() >= 10, "{name} has a corpus");
            for file in files {
                target(&std::fs::read(file).unwrap());
            }
        }
    }
}
