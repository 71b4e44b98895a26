//! The caller's place in a trace: the header `traceparent` of W3C Trace Context, version 00.

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

/// The header that carries it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// A well-formed `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    text: String,
    context: SpanContext,
}

impl Parent {
    /// What the caller says; nothing when it is not well-formed, as the standard has it.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(HEADER)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len());
        let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let later = version != "00";
        // A later version may have more parts; what this one knows stands in front.
        if lengths != (2, 32, 16, 2) || ![version, trace, span, flags].into_iter().all(hex) || version == "ff" {
            return None;
        }
        if !later && parts.next().is_some() {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
        let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        context.is_valid().then(|| Self { text: text.to_owned(), context })
    }

    /// As it came.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The trace's id in hexadecimal.
    pub(crate) fn trace(&self) -> String {
        self.context.trace_id().to_string()
    }

    pub(super) fn context(&self) -> opentelemetry::Context {
        opentelemetry::Context::new().with_remote_span_context(self.context.clone())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(text: &str) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(text).unwrap());
        Parent::of(&headers)
    }

    #[test]
    fn only_what_is_well_formed_is_followed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(good).unwrap().trace(), "0af7651916cd43dd8448eb211c80319c");
        assert!(of("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds").is_some());
        for bad in [
            "",
            "nonsense",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
