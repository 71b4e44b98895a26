//! TLS over real sockets, with certificates made for the occasion.

use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::testing::{PATIENCE, SHORT, Server, is_served, long, rest, soon, state};
use super::{ConnectionLimits, Tls};

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
