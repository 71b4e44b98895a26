//! The exporter: spans over OTLP, HTTP and protobuf, in batches from a thread of its own.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::post::Post;
use crate::provenance::VERSION;

/// How long the last spans may take on their way out.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address that spans can't be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no collector's address; write it like http://127.0.0.1:4318")]
pub struct InvalidEndpoint(String);

/// An exporter of spans. Who holds it ends it with [`shutdown`](Self::shutdown), so that the last spans are sent.
pub struct Otlp {
    provider: SdkTracerProvider,
}

impl Otlp {
    /// An exporter to the collector at `endpoint`, for example `http://127.0.0.1:4318`; without a path it is `/v1/traces`, as
    /// the OTLP specification has it. TLS is not spoken.
    pub fn new(endpoint: &str) -> Result<Self, InvalidEndpoint> {
        let bad = || InvalidEndpoint(endpoint.to_owned());
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(address(endpoint).ok_or_else(bad)?)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|_| bad())?;
        let resource =
            Resource::builder_empty().with_service_name("latentd").with_attribute(KeyValue::new("service.version", VERSION));
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Self { provider })
    }

    /// Whether spans can be sent to that address.
    pub fn is_endpoint(endpoint: &str) -> bool {
        address(endpoint).is_some()
    }

    /// What a subscriber needs to export the spans of `tracing`.
    pub fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(&self) -> OpenTelemetryLayer<S, SdkTracer> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.tracer());
        layer.with_location(false).with_threads(false).with_tracked_inactivity(false)
    }

    /// What an [`App`](crate::App) needs to export the spans of jobs.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("latentd")
    }

    /// Sends what there is, and ends.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Where to post.
fn address(endpoint: &str) -> Option<String> {
    let rest = endpoint.strip_prefix("http://")?;
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let good = !authority.is_empty() && endpoint.bytes().all(|byte| byte.is_ascii_graphic()) && !authority.contains('@');
    good.then(|| if path.is_empty() { format!("http://{authority}/v1/traces") } else { endpoint.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_is_completed() {
        assert_eq!(address("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(address("http://c:4318/").as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(address("http://c/otlp/v1/traces").as_deref(), Some("http://c/otlp/v1/traces"));
        for bad in ["", "c:4318", "https://c:4318", "http://", "http://a b", "http://user:secret@c"] {
            assert!(Otlp::new(bad).is_err(), "{bad}");
        }
    }
}
