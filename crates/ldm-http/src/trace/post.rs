//! The HTTP client of the exporter: one POST at a time over plain TCP, from the exporter's own thread.
//!
//! A collector stands beside the service or behind a proxy that speaks TLS, so that no second HTTP stack is linked for it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// How long a collector may take to connect, to read, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: its head is all that counts.
const ANSWER: u64 = 64 << 10;

/// A client for `http://` addresses.
#[derive(Debug)]
pub(super) struct Post;

/// Why a collector was not told.
#[derive(Debug)]
struct Untold(&'static str);

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Untold {}

#[async_trait]
impl HttpClient for Post {
    // It blocks, on a thread that the exporter has for this.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri();
        let host = uri.host().ok_or(Untold("the endpoint has no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = (bare, port).to_socket_addrs()?.next().ok_or(Untold("the endpoint's host has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&head(&request, host, port))?;
        stream.write_all(request.body())?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer)?;
        Ok(Response::builder().status(status(&answer)?).body(Bytes::new())?)
    }
}

fn head(request: &Request<Bytes>, host: &str, port: u16) -> Vec<u8> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let length = request.body().len();
    let mut head = format!(
        "{} {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\ncontent-length: {length}\r\n",
        request.method()
    )
    .into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The status of an answer in HTTP/1.
fn status(answer: &[u8]) -> Result<u16, Untold> {
    let line = answer.split(|&byte| byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let status = line.filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1)?.parse().ok());
    status.ok_or(Untold("the collector's answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_status_is_read() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(), 200);
        assert_eq!(status(b"HTTP/1.0 503\r\n\r\n").unwrap(), 503);
        for bad in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 ok\r\n"] {
            assert!(status(bad).is_err());
        }
    }
}
