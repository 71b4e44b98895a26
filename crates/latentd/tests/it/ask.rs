//! One request over HTTP on a connection of its own.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long anything may take, on a machine that does much else besides.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Sends a request with these lines of its head, and reads the whole answer. Answers that are asked for here are not chunked; one that
/// breaks off is an error.
pub(crate) fn ask(address: &str, method: &str, path: &str, lines: &str, body: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{lines}host: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8(answer[..end].to_vec()).map_err(Error::other)?.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let body = answer.split_off(end + 4);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { status, head, body })
}

/// The lines of a head that comes with JSON.
pub(crate) fn json_lines(accept: &str) -> String {
    format!("accept: {accept}\r\ncontent-type: application/json\r\n")
}
