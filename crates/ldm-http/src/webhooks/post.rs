//! One call: the name is looked up once, and the address that is dialled is one that was checked. Redirects are answers like
//! others; nobody follows them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::allow::{Admitted, Host, Target};

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;
/// A receiver's wish to be left alone is heard up to this.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// What the receiver said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// It does not want to hear more before.
    pub(super) wish: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The name leads to addresses that must not be called.
    #[error("it leads to private, loopback or link-local addresses alone")]
    Private,
    /// No address.
    #[error("the name is not known: {0}")]
    Name(std::io::Error),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// No valid certificate, or none at all.
    #[error("no encryption: {0}")]
    Tls(std::io::Error),
    /// No HTTP.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// Cannot be said so.
    #[error("the request cannot be written: {0}")]
    Request(#[from] axum::http::Error),
    /// Too slow.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// What calls.
pub(super) struct Client {
    tls: Option<TlsConnector>,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// One that gives up after `timeout` and, where `tls` is wanted, trusts whom the machine trusts.
    pub(super) fn new(timeout: Duration, tls: bool) -> Self {
        if !tls {
            return Self { tls: None, timeout };
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            tracing::warn!(errors = ?found.errors, "this machine trusts no certificates (is ca-certificates installed?): no https webhook can be called");
        }
        Self::trusting(timeout, roots)
    }

    /// One that trusts those roots.
    pub(super) fn trusting(timeout: Duration, roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = config.map(|config| TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())));
        Self { tls: tls.ok(), timeout }
    }

    /// Posts `body` with those headers.
    pub(super) async fn post(
        &self,
        target: &Target,
        admitted: Admitted,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, Trouble> {
        let posted = tokio::time::timeout(self.timeout, self.posted(target, admitted, headers, body));
        posted.await.unwrap_or(Err(Trouble::Late(self.timeout)))
    }

    async fn posted(
        &self,
        target: &Target,
        admitted: Admitted,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Answer, Trouble> {
        let mut request = Request::post(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("latentd/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let stream = connect(&addresses(target, admitted).await?).await?;
        if !target.tls {
            return exchange(stream, request).await;
        }
        let unable = |error: &str| Trouble::Tls(std::io::Error::other(error.to_owned()));
        let tls = self.tls.as_ref().ok_or_else(|| unable("it is not set up"))?;
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| unable(&error.to_string()))?,
            Host::Address(address) => ServerName::from(*address),
        };
        exchange(tls.connect(name, stream).await.map_err(Trouble::Tls)?, request).await
    }
}

/// Where the target is, as far as it may be called there.
async fn addresses(target: &Target, admitted: Admitted) -> Result<Vec<SocketAddr>, Trouble> {
    let found = match &target.host {
        Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
        Host::Name(name) => tokio::net::lookup_host((name.as_str(), target.port)).await.map_err(Trouble::Name)?.collect(),
    };
    let callable = callable(found.iter().map(SocketAddr::ip), admitted);
    let found: Vec<_> = callable.into_iter().map(|address| SocketAddr::new(address, target.port)).collect();
    if found.is_empty() { Err(Trouble::Private) } else { Ok(found) }
}

/// Those that may be called.
fn callable(found: impl Iterator<Item = IpAddr>, admitted: Admitted) -> Vec<IpAddr> {
    let found = found.filter(|address| admitted.takes(*address));
    found.take(MOST_ADDRESSES).collect()
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Trouble> {
    let mut last = std::io::Error::other("no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(Trouble::Connect(last))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may have brought the answer on its way.
        _ = &mut connection => answer.await,
    }?;
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    // What else it says is not read.
    Ok(Answer { status: answer.status(), wish: seconds.map(Duration::from_secs).map(|wish| wish.min(LONGEST_WISH)) })
}
