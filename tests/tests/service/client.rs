//! A small HTTP/1.1 client, so that tests decide themselves when a connection goes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An answer whose body is still on its way.
pub(crate) struct Open {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    /// What was read of the body and not used yet.
    rest: Vec<u8>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// Sends a request and does not wait for the answer. Dropping the connection is going away.
pub(crate) async fn ask(at: SocketAddr, method: &str, path: &str, accept: &str, body: &[u8]) -> BufReader<TcpStream> {
    ask_with(at, method, path, &[("accept", accept), ("content-type", "application/json")], body).await
}

/// The same with these headers and no others but those that a body needs.
pub(crate) async fn ask_with(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that has heard enough may have closed already.
    let _ = stream.write_all(body).await;
    BufReader::new(stream)
}

/// The head of the answer to what was asked.
pub(crate) async fn head(mut stream: BufReader<TcpStream>) -> Open {
    let status = line(&mut stream).await;
    let status = status.split(' ').nth(1).expect("a status line").parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let line = line(&mut stream).await;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Open { status, headers, stream, rest: Vec::new() }
}

/// Asks and reads the whole answer.
pub(crate) async fn fetch(at: SocketAddr, method: &str, path: &str, accept: &str, body: &[u8]) -> Answer {
    head(ask(at, method, path, accept, body).await).await.whole().await
}

/// Asks with these headers and reads the whole answer.
pub(crate) async fn fetch_with(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    head(ask_with(at, method, path, headers, body).await).await.whole().await
}

async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

impl Open {
    pub(crate) fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }

    /// The next piece of the body; `None` at its end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        if self.header("transfer-encoding") != "chunked" {
            let mut whole = Vec::new();
            self.stream.read_to_end(&mut whole).await.unwrap();
            return Some(whole).filter(|whole| !whole.is_empty());
        }
        let size = usize::from_str_radix(&line(&mut self.stream).await, 16).expect("a chunk's size");
        let mut piece = vec![0; size];
        self.stream.read_exact(&mut piece).await.unwrap();
        line(&mut self.stream).await;
        Some(piece).filter(|piece| !piece.is_empty())
    }

    async fn whole(mut self) -> Answer {
        let mut body = std::mem::take(&mut self.rest);
        while let Some(piece) = self.piece().await {
            body.extend(piece);
        }
        Answer { status: self.status, headers: self.headers, body }
    }

    /// The next event of a stream; `None` at its end.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
                let text = String::from_utf8(self.rest.drain(..end + 2).collect()).unwrap();
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
                let Some(data) = field("data: ") else { continue };
                let name = field("event: ").expect("every event has a name").to_owned();
                return Some(Event { name, data: serde_json::from_str(data).unwrap() });
            }
            let piece = self.piece().await?;
            self.rest.extend(piece);
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        find(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The error's code.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {}", self.text())).to_owned()
    }
}
