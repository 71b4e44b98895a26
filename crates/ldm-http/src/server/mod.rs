//! The server: connections are taken, bounded, watched and let go of. What is asked on them is the routes' business.

mod bodies;
mod crowd;
mod pulse;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(test)]
mod tls_tests;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use bodies::Late;
pub use tls::{Tls, TlsError};

use crate::keys::Peer;
use crate::{App, Metrics, app};
use bodies::{Download, Exchange, Upload};
use crowd::{Crowd, Place};
use pulse::{Cut, Pulse};
use stream::Felt;

/// After the engine has drained, answers that are still being written have this long to reach their clients.
const LINGER: Duration = Duration::from_secs(5);
/// A pause when no connection can be taken, so that others can end.
const OUT_OF_FILES: Duration = Duration::from_millis(20);
/// How often a connection of HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// Requests that may share a connection of HTTP/2 at once.
const STREAMS: u32 = 64;
/// Bytes of answers that wait in memory for one connection of HTTP/2, per request.
const SEND_BUFFER: usize = 256 << 10;
/// Connections that are told at once that there are too many.
const TURNED_AWAY: usize = 64;
/// What they are told.
const FULL: &str = "{\"error\": {\"code\": \"too_many_connections\", \"message\": \"too many connections are open\", \
                    \"type\": \"server_error\", \"param\": null}}";

/// What one connection may do, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections that may be open at once. Beyond it the one that is idle for longest is closed, or else the new one.
    pub connections: usize,
    /// Bytes of a request's head at most; at least 8 KiB are allowed.
    pub header_bytes: usize,
    /// Headers of a request at most.
    pub headers: usize,
    /// How long the head of a request may take to come, the handshake of TLS included.
    pub header_time: Duration,
    /// How long a connection may be open without a request.
    pub idle_time: Duration,
    /// How long a body may pause, and in all; 16 KiB win it another second.
    pub body_time: Duration,
    /// How long an answer may wait for its reader to take more of it.
    pub write_time: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1000,
            header_bytes: 64 << 10,
            headers: 100,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
        }
    }
}

/// Serves until `stop` is done, then lets the engine drain for `grace` and the answers go out.
///
/// While the engine drains, new connections are still taken, so that `/readyz` can say so and new jobs hear `503`; open
/// streams and calls end with their jobs.
///
/// # Errors
/// None as yet: connections that cannot be taken are told to the log.
pub async fn serve(listener: TcpListener, state: App, stop: impl Future<Output = ()>, grace: Duration) -> std::io::Result<()> {
    let (service, node) = (state.service.clone(), state.node.clone());
    let (close, closing) = watch::channel(false);
    let server = House::of(state).take(listener, closing);
    let shutdown = async move {
        stop.await;
        tracing::info!(grace_s = grace.as_secs(), "draining");
        if let Some(node) = &node {
            node.stop_claiming();
        }
        service.drain(grace).await;
        if let Some(node) = &node {
            node.leave().await;
        }
        let _ = close.send(true);
        tokio::time::sleep(LINGER).await;
        tracing::warn!("connections are still open; closing them");
    };
    tokio::select! {
        () = server => {}
        () = shutdown => {}
    }
    Ok(())
}

/// What connections share.
#[derive(Clone)]
struct House {
    /// Cheap to clone: its routes are put together once.
    routes: TowerToHyperService<Router>,
    builder: Builder<TokioExecutor>,
    limits: Arc<ConnectionLimits>,
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
}

impl House {
    fn of(state: App) -> Self {
        let (limits, tls) = (Arc::new(state.connections.clone()), state.tls.clone());
        let (builder, metrics) = (builder(&limits), Arc::clone(&state.metrics));
        Self { routes: TowerToHyperService::new(app(state)), builder, limits, tls, metrics }
    }

    /// Takes connections until `closing`, then waits for those that are open.
    async fn take(self, listener: TcpListener, mut closing: watch::Receiver<bool>) {
        let (crowd, mut tasks, mut away) = (Crowd::default(), JoinSet::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
                Some(_) = away.join_next() => continue,
                _ = closing.wait_for(|closing| *closing) => break,
            };
            match accepted {
                Ok((stream, from)) => match crowd.enter(&self.limits) {
                    Some(place) => {
                        // Small pieces of a stream of events go out as they come.
                        let _ = stream.set_nodelay(true);
                        let (house, closing) = (self.clone(), closing.clone());
                        tasks.spawn(async move { house.welcome(stream, from.ip(), place, closing).await });
                    }
                    None => {
                        self.metrics.cut("full");
                        if self.tls.is_none() && away.len() < TURNED_AWAY {
                            away.spawn(turn_away(stream, self.limits.header_time));
                        }
                    }
                },
                Err(error) if is_about_one(&error) => {}
                Err(error) => {
                    // No file descriptors, for one: somebody has to go before the next can come.
                    let room = crowd.make_room();
                    tracing::warn!(%error, room, "a connection could not be taken");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    /// A connection, from its first byte to its last.
    async fn welcome<IO>(self, io: IO, from: IpAddr, place: Place, closing: watch::Receiver<bool>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = Arc::clone(&place.pulse);
        let io = Felt::new(io, Arc::clone(&pulse));
        match &self.tls {
            None => self.talk(io, from, pulse, closing).await,
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = tls.acceptor().accept(io) => shaken,
                    why = pulse.cut() => return self.cut(from, why),
                };
                match shaken {
                    Ok(io) => self.talk(io, from, pulse, closing).await,
                    Err(error) => tracing::debug!(%from, %error, "no TLS"),
                }
            }
        }
    }

    fn cut(&self, from: IpAddr, why: Cut) {
        tracing::debug!(%from, why = why.name(), "a connection is cut");
        self.metrics.cut(why.name());
    }

    async fn talk<IO>(&self, io: IO, from: IpAddr, pulse: Arc<Pulse>, mut closing: watch::Receiver<bool>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (watched, patience) = (Arc::clone(&pulse), self.limits.body_time);
        let routes = self.routes.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let exchange = Exchange::begin(&watched, request.version() == Version::HTTP_2);
            let late = Late::default();
            let mut request = request.map(|body| Body::new(Upload::new(body, patience, late.clone())));
            request.extensions_mut().insert(Peer(from));
            request.extensions_mut().insert(late);
            let answer = routes.call(request);
            async move { answer.await.map(|answer| answer.map(|body| Download::new(body, exchange))) as Result<_, Infallible> }
        });
        let mut connection = std::pin::pin!(self.builder.serve_connection(TokioIo::new(io), service));
        let mut told = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%from, %error, "a connection broke");
                    }
                    return;
                }
                why = pulse.cut() => return self.cut(from, why),
                _ = closing.wait_for(|closing| *closing), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The pulse watches the times of heads and of silence; hyper's own timer knows no difference between them.
    let http1 = &mut builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(None);
    http1.max_headers(limits.headers).max_buf_size(limits.header_bytes.max(8 << 10));
    let list = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let http2 = &mut builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
    http2.max_concurrent_streams(STREAMS).max_header_list_size(list).max_send_buf_size(SEND_BUFFER);
    builder
}

/// Errors of a connection that is gone already, as accept(2) has them.
fn is_about_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says that there are too many, and hears the request out so that the answer is not lost with the connection.
async fn turn_away(mut stream: TcpStream, patience: Duration) {
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{FULL}", FULL.len());
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whoever does not listen does not hear it.
    let _ = tokio::time::timeout(patience, told).await;
}
