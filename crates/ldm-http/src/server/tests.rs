//! Connections over real sockets: slow ones, silent ones, too many of them, and TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldm_engine::fake::{FakeControl, FakeOptions};
use ldm_engine::{Limits, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::crowd::Crowd;
use super::{ConnectionLimits, House, Tls, serve};
use crate::App;
use crate::testing::started;

/// How long anything may take on a machine that does much else besides.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is too long in these tests.
const SHORT: Duration = Duration::from_millis(50);

/// Limits of which none is reached.
fn long() -> ConnectionLimits {
    let long = PATIENCE * 2;
    ConnectionLimits { header_time: long, idle_time: long, body_time: long, write_time: long, ..ConnectionLimits::default() }
}

/// A server on a free port.
struct Server {
    at: SocketAddr,
    service: Service,
    control: Arc<FakeControl>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn state(limits: ConnectionLimits) -> (App, Arc<FakeControl>) {
    let (state, control) = started(Limits::default(), FakeOptions::default());
    state.service.wait_ready().await.unwrap();
    control.clear();
    (state.connections(limits), control)
}

impl Server {
    async fn with(limits: ConnectionLimits) -> Self {
        let (state, control) = state(limits).await;
        Self::of(state, control).await
    }

    async fn of(state: App, control: Arc<FakeControl>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (at, service) = (listener.local_addr().unwrap(), state.service.clone());
        let (stop, stopping) = oneshot::channel();
        let stopped = async move {
            let _ = stopping.await;
        };
        let task = tokio::spawn(serve(listener, state, stopped, PATIENCE));
        Self { at, service, control, stop: Some(stop), task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }
}

/// Waits for it, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time")
}

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";

/// The whole of what comes until the other side closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut may be reset.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// One answer of a connection that stays open: its status and its body, which has a length.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (u16, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().unwrap()];
    soon(stream.read_exact(&mut body)).await.unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

async fn is_served(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(LIVE).await.unwrap();
    assert_eq!(answer(stream).await.0, 200);
}

/// Writes a byte now and then until the other side has had enough.
async fn trickle(stream: &mut TcpStream, byte: u8) {
    let (mut reader, mut writer) = stream.split();
    let writes = async {
        while writer.write_all(&[byte]).await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let mut one = [0];
    tokio::select! {
        () = writes => {}
        _ = reader.peek(&mut one) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_do_not_come_end_the_connection() {
    let server = Server::with(ConnectionLimits { header_time: SHORT, ..long() }).await;
    for begun in [&b""[..], b"G", b"PRI * HT", b"GET /livez HTTP/1.1\r\nhost: te"] {
        let mut stream = server.connect().await;
        stream.write_all(begun).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{begun:?}");
    }
    let mut stream = server.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await.unwrap();
    soon(trickle(&mut stream, b'x')).await;
    assert_eq!(rest(&mut stream).await, "", "one byte at a time is no faster");

    // The second head of a connection is one, too.
    let mut stream = server.connect().await;
    is_served(&mut stream).await;
    stream.write_all(b"GET /li").await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_requests_there_is_time_until_there_is_none() {
    let server = Server::with(ConnectionLimits { header_time: SHORT, ..long() }).await;
    let mut stream = server.connect().await;
    is_served(&mut stream).await;
    tokio::time::sleep(SHORT * 3).await;
    is_served(&mut stream).await;

    let server = Server::with(ConnectionLimits { idle_time: SHORT, ..long() }).await;
    let mut stream = server.connect().await;
    is_served(&mut stream).await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_trickle_are_408() {
    let server = Server::with(ConnectionLimits { body_time: SHORT * 2, ..long() }).await;
    let json = "content-type: application/json\r\n";
    let form = "content-type: multipart/form-data; boundary=b\r\n";
    for (path, kind, begun) in [
        ("/v1/txt2img", json, "{"),
        ("/v1/txt2img", form, "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n"),
        ("/v1/images/edits", form, "--b\r\n"),
        ("/sdapi/v1/txt2img", json, "{"),
    ] {
        for moves in [false, true] {
            let mut stream = server.connect().await;
            let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\n{kind}content-length: 60000\r\n\r\n{begun}");
            stream.write_all(head.as_bytes()).await.unwrap();
            if moves {
                soon(trickle(&mut stream, b' ')).await;
            }
            let (status, body) = answer(&mut stream).await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            let code = if path.starts_with("/sdapi") { &body["error"] } else { &body["error"]["code"] };
            assert_eq!((status, code), (408, &json!("body_too_slow")), "{path} {kind} {moves}");
            assert_eq!(rest(&mut stream).await, "", "what is left of the body is not waited for");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_the_answer_is_cut_off_and_the_job_ends() {
    let (state, control) = state(ConnectionLimits { write_time: SHORT, ..long() }).await;
    let service = state.service.clone();
    control.steps.close();
    let (house, crowd) = (House::of(state), Crowd::default());
    let place = crowd.enter(&house.limits).unwrap();
    // The head of the answer alone is longer than what this pipe holds.
    let (mut client, end) = tokio::io::duplex(64);
    let (_close, closing) = watch::channel(false);
    let talk = tokio::spawn(house.welcome(end, Ipv4Addr::LOCALHOST.into(), place, closing));
    let body = json!({ "seed": 9, "steps": 100 }).to_string();
    let head = format!(
        "POST /v1/txt2img HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    control.steps.wait_blocked();
    soon(talk).await.unwrap();
    control.steps.open();
    soon(async {
        while service.load().running + service.load().queued > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(control.steps_of(9), 1, "the step under way was the last");
    assert!(crowd.make_room() == false, "its place is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded() {
    let server = Server::with(ConnectionLimits { header_bytes: 16 << 10, headers: 20, ..long() }).await;
    let long = format!("x-long: {}\r\n", "x".repeat(20 << 10));
    let many: String = (0..30).map(|number| format!("x-{number}: y\r\n")).collect();
    for headers in [long, many] {
        let mut stream = server.connect().await;
        stream.write_all(format!("GET /livez HTTP/1.1\r\nhost: test\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let told = rest(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    }
    let mut stream = server.connect().await;
    is_served(&mut stream).await;
}

/// A request that is in work until the gate opens.
async fn busy(server: &Server, seed: u64) -> TcpStream {
    let body = json!({ "seed": seed, "steps": 1, "width": 64, "height": 64 }).to_string();
    let mut stream = server.connect().await;
    let head = format!(
        "POST /v1/txt2img HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_closes_an_idle_one_or_is_told() {
    let server = Server::with(ConnectionLimits { connections: 2, ..long() }).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    is_served(&mut first).await;
    is_served(&mut second).await;
    let mut third = server.connect().await;
    is_served(&mut third).await;
    assert_eq!(rest(&mut first).await, "", "the one that was idle for longest went");
    is_served(&mut second).await;
    drop((second, third));

    server.control.steps.close();
    let mut works = [busy(&server, 1).await, busy(&server, 2).await];
    soon(async {
        while server.service.load().running + server.service.load().queued < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut late = server.connect().await;
    late.write_all(LIVE).await.unwrap();
    let told = rest(&mut late).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\"too_many_connections\""), "{told}");
    server.control.steps.open();
    for work in &mut works {
        assert_eq!(answer(work).await.0, 200, "who is being served is not sent away");
    }
}

/// How many files this process may have open, as the system says.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find(|line| line.starts_with("Max open files")).and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(256)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_stop_nobody() {
    let server = Server::with(ConnectionLimits { connections: 200, ..long() }).await;
    // Both ends are this process's, and other tests need some, too.
    let count = (files().saturating_sub(200) / 2).min(1000);
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(server.connect().await);
    }
    let mut stream = server.connect().await;
    is_served(&mut stream).await;
    let mut work = busy(&server, 1).await;
    assert_eq!(answer(&mut work).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_end_with_the_service_and_those_that_are_served_do_not() {
    let mut server = Server::with(long()).await;
    let mut idle = server.connect().await;
    is_served(&mut idle).await;
    server.control.steps.close();
    let mut work = busy(&server, 1).await;
    server.control.steps.wait_blocked();
    server.stop.take().unwrap().send(()).unwrap();
    server.control.steps.open();
    assert_eq!(answer(&mut work).await.0, 200);
    assert_eq!(rest(&mut idle).await, "");
    drop(work);
    soon(server.task).await.unwrap().unwrap();
}

/// A certificate for `localhost` in that folder, and what trusts it.
fn certificate(folder: &Path) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

async fn shaken(
    server: &Server,
    roots: &RootCertStore,
    protocols: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, server.connect().await)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_speaks_both_versions_and_takes_a_new_certificate() {
    let folder = std::env::temp_dir().join(format!("latentd-tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let roots = certificate(&folder);
    let tls = Tls::open(folder.join("cert.pem"), folder.join("key.pem")).unwrap();
    let (app, control) = state(ConnectionLimits { header_time: PATIENCE, ..long() }).await;
    let server = Server::of(app.tls(tls.clone()), control).await;

    let mut stream = shaken(&server, &roots, &["http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    is_served(&mut stream).await;
    let stream = shaken(&server, &roots, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let request = hyper::Request::get("https://localhost/livez").body(axum::body::Body::empty()).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    assert_eq!(soon(sender.send_request(request)).await.unwrap().status(), 200);

    let newer = certificate(&folder);
    shaken(&server, &roots, &[]).await.unwrap();
    tls.refresh().unwrap();
    assert!(shaken(&server, &roots, &[]).await.is_err(), "the old one is not shown any more");
    shaken(&server, &newer, &[]).await.unwrap();
    std::fs::write(folder.join("cert.pem"), "nothing").unwrap();
    let told = tls.refresh().unwrap_err().to_string();
    assert!(told.ends_with("cert.pem: the file holds no certificate in PEM"), "{told}");
    shaken(&server, &newer, &[]).await.unwrap();
    certificate(&folder);
    std::fs::remove_file(folder.join("key.pem")).unwrap();
    assert!(Tls::open(folder.join("cert.pem"), folder.join("key.pem")).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let folder = std::env::temp_dir().join(format!("latentd-tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    certificate(&folder);
    let tls = Tls::open(folder.join("cert.pem"), folder.join("key.pem")).unwrap();
    let (app, control) = state(ConnectionLimits { header_time: SHORT, ..long() }).await;
    let server = Server::of(app.tls(tls), control).await;
    let mut stream = server.connect().await;
    stream.write_all(&[0x16, 0x03]).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    std::fs::remove_dir_all(&folder).unwrap();
}
