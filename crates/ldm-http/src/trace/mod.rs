//! Traces: a span per request, under it one per job and one per stage of a job, exported over OTLP when that is configured.
//!
//! A request's span is one of `tracing`, so logs carry its fields as well. Spans of jobs and stages are made when the job has
//! ended, of the times that the engine measured; without an exporter nothing is made. No span holds a prompt or a tenant.

mod otlp;
mod parent;
mod post;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use ldm_core::{JobId, Request, Timings};
use opentelemetry::trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use otlp::{InvalidEndpoint, Otlp};
pub(crate) use parent::{HEADER, Parent};

/// Makes the spans of jobs under the span of their request. Cheap to clone; does nothing where nothing is exported.
#[derive(Clone, Default)]
pub(crate) struct Spans(Option<SdkTracer>);

/// A job that has ended, as its span tells it.
pub(crate) struct Told<'a> {
    pub(crate) id: JobId,
    pub(crate) request: &'a Request,
    pub(crate) submitted: SystemTime,
    /// How long each stage took, where that is known.
    pub(crate) stages: Option<(Timings, Duration)>,
    /// `finished`, or why not.
    pub(crate) reason: &'static str,
}

impl Spans {
    pub(crate) fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// The request's span goes on from the caller's.
    pub(crate) fn adopt(&self, span: &tracing::Span, parent: &Parent) {
        if self.0.is_some() {
            // It fails for a span that nobody records, which then has no place in any trace.
            let _ = span.set_parent(parent.context());
        }
    }

    /// The request's span as the header `traceparent` says it, if it is part of a trace.
    pub(crate) fn name(&self, span: &tracing::Span) -> Option<String> {
        self.0.as_ref()?;
        let context = span.context();
        let span = context.span();
        let named = span.span_context();
        let flags = named.trace_flags().to_u8();
        named.is_valid().then(|| format!("00-{}-{}-{flags:02x}", named.trace_id(), named.span_id()))
    }

    /// The spans of one job.
    pub(crate) fn job(&self, parent: &tracing::Span, told: &Told<'_>) {
        let Some(tracer) = &self.0 else { return };
        let request = told.request;
        let builder = SpanBuilder::from_name("job").with_start_time(told.submitted).with_attributes([
            KeyValue::new("job.id", told.id.to_string()),
            KeyValue::new("job.task", request.work.task().name()),
            KeyValue::new("job.model", request.model.clone()),
            KeyValue::new("job.steps", i64::from(request.steps)),
            KeyValue::new("job.reason", told.reason),
        ]);
        let mut job = tracer.build_with_context(builder, &parent.context());
        let Some((timings, image)) = told.stages else {
            job.set_status(Status::error(told.reason));
            return job.end();
        };
        let context = Context::new().with_span(job);
        let ended = stages(tracer, &context, told.submitted, timings, image);
        context.span().end_with_timestamp(ended);
    }
}

/// One span per stage, one after the other; the end of the last.
fn stages(tracer: &SdkTracer, job: &Context, submitted: SystemTime, timings: Timings, image: Duration) -> SystemTime {
    let Timings { queued, prepare, steps, decode } = timings;
    let stages = [("queue", queued), ("prepare", prepare), ("denoise", steps), ("decode", decode), ("image", image)];
    stages.into_iter().fold(submitted, |from, (name, took)| {
        let until = from + took;
        tracer.build_with_context(SpanBuilder::from_name(name).with_start_time(from), job).end_with_timestamp(until);
        until
    })
}
