//! Connections over real sockets: slow ones, silent ones, too many of them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::crowd::Crowd;
use super::testing::{LIVE, SHORT, Server, answer, is_served, long, rest, soon, state};
use super::{ConnectionLimits, House};

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
    let (service, metrics) = (state.service.clone(), std::sync::Arc::clone(&state.metrics));
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
    assert!(!crowd.make_room(), "its place is free");
    assert!(metrics.text().contains("latentd_connections_cut_total{reason=\"slow_reader\"} 1"), "{}", metrics.text());
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
async fn two_thousand_idle_connections_stop_nobody() {
    let server = Server::with(ConnectionLimits { connections: 200, ..long() }).await;
    // Both ends are this process's, and other tests need some, too.
    let count = (files().saturating_sub(200) / 2).min(2000);
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
