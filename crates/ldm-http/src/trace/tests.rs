//! Spans arrive at a collector: a listener that takes OTLP's POSTs and decodes them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use axum::body::Body;
use axum::http::Request;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tracing_subscriber::layer::SubscriberExt;

use super::Otlp;
use crate::app;
use crate::testing::{ready, send};

/// A collector; what it was sent comes out of the receiver.
fn collector() -> (SocketAddr, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (sender, sent)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = HashMap::new();
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                head.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            assert_eq!(head["content-type"], "application/x-protobuf");
            let mut body = vec![0; head["content-length"].parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            if sender.send(ExportTraceServiceRequest::decode(body.as_slice()).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, sent)
}

fn spans(sent: &Receiver<ExportTraceServiceRequest>) -> Vec<Span> {
    let resources = sent.try_iter().flat_map(|request| request.resource_spans);
    resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

#[tokio::test]
async fn spans_of_request_job_and_stages_arrive() {
    let (address, sent) = collector();
    let otlp = Otlp::new(&format!("http://{address}")).unwrap();
    let _traced = tracing::subscriber::set_default(tracing_subscriber::registry().with(otlp.layer()));
    let router = app(ready().await.0.traced(&otlp));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asked = |prompt: &str| {
        let request = Request::post("/v1/txt2img").header("content-type", "application/json").header("traceparent", parent);
        request.header("x-request-id", "mine").body(Body::from(format!(r#"{{"prompt": "{prompt}", "steps": 2}}"#))).unwrap()
    };
    let answer = send(&router, asked("a secret")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(send(&router, asked("a secret !nan@1")).await.status, 500);
    otlp.shutdown();

    let spans = spans(&sent);
    let trace: Vec<u8> = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes().into();
    assert!(spans.iter().all(|span| span.trace_id == trace), "one trace, the caller's");
    let request =
        spans.iter().find(|span| span.name == "request" && named(span) == answer.header("traceparent")).expect("a request");
    assert_eq!(request.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert!(format!("{:?}", request.attributes).contains("mine"), "the request's id is in its span");
    let under = |parent: &Span| spans.iter().filter(|span| span.parent_span_id == parent.span_id).collect::<Vec<_>>();
    let [job] = under(request)[..] else { panic!("one job: {:?}", under(request)) };
    assert_eq!(job.name, "job");
    let mut stages = under(job);
    stages.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    let mut names: Vec<_> = stages.iter().map(|span| span.name.as_str()).collect();
    assert_eq!((stages[0].start_time_unix_nano, stages.last().unwrap().end_time_unix_nano), {
        (job.start_time_unix_nano, job.end_time_unix_nano)
    });
    names.sort_unstable();
    assert_eq!(names, ["decode", "denoise", "image", "prepare", "queue"]);
    let failed =
        spans.iter().filter(|span| span.name == "job").find(|span| format!("{:?}", span.attributes).contains("not_finite"));
    assert_eq!(under(failed.expect("the job that failed")).len(), 0);
    assert!(!format!("{spans:?}").contains("secret"), "no prompt leaves the service");
}

/// A span as `traceparent` says it.
fn named(span: &Span) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

#[tokio::test]
async fn a_collector_that_is_not_there_harms_nobody() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let otlp = Otlp::new(&format!("http://{gone}")).unwrap();
    let _traced = tracing::subscriber::set_default(tracing_subscriber::registry().with(otlp.layer()));
    let router = app(ready().await.0.traced(&otlp));
    assert_eq!(crate::testing::post(&router, "/v1/txt2img", "{}").await.status, 200);
    otlp.shutdown();
}
