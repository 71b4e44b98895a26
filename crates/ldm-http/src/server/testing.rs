//! What the server's tests share: a server on a free port, and a client that does what well-behaved ones do not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ldm_engine::fake::{FakeControl, FakeOptions};
use ldm_engine::{Limits, Service};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{ConnectionLimits, serve};
use crate::App;
use crate::testing::started;

/// How long anything may take on a machine that does much else besides.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// What is too long in these tests.
pub(super) const SHORT: Duration = Duration::from_millis(50);

/// Limits of which none is reached.
pub(super) fn long() -> ConnectionLimits {
    let long = PATIENCE * 2;
    ConnectionLimits { header_time: long, idle_time: long, body_time: long, write_time: long, ..ConnectionLimits::default() }
}

/// A server on a free port.
pub(super) struct Server {
    pub(super) at: SocketAddr,
    pub(super) service: Service,
    pub(super) control: Arc<FakeControl>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) task: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(super) async fn state(limits: ConnectionLimits) -> (App, Arc<FakeControl>) {
    let (state, control) = started(Limits::default(), FakeOptions::default());
    state.service.wait_ready().await.unwrap();
    control.clear();
    (state.connections(limits), control)
}

impl Server {
    pub(super) async fn with(limits: ConnectionLimits) -> Self {
        let (state, control) = state(limits).await;
        Self::of(state, control).await
    }

    pub(super) async fn of(state: App, control: Arc<FakeControl>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (at, service) = (listener.local_addr().unwrap(), state.service.clone());
        let (stop, stopping) = oneshot::channel();
        let stopped = async move {
            let _ = stopping.await;
        };
        let task = tokio::spawn(serve(listener, state, stopped, PATIENCE));
        Self { at, service, control, stop: Some(stop), task }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }
}

/// Waits for it, but not for ever.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time")
}

pub(super) const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";

/// The whole of what comes until the other side closes.
pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut may be reset.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// One answer of a connection that stays open: its status and its body, which has a length.
pub(super) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> (u16, Vec<u8>) {
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

pub(super) async fn is_served(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(LIVE).await.unwrap();
    assert_eq!(answer(stream).await.0, 200);
}
