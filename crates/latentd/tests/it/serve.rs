//! `latentd serve` with the tiny model, from its first line to its last.

use serde_json::json;

use crate::support::{Server, folder, png_size, post};

/// A picture that takes a while, asked for on a thread of its own; returns once it is in work.
fn long_job(server: &Server) -> std::thread::JoinHandle<crate::support::Answer> {
    let address = server.address.clone();
    let body = json!({ "prompt": "a cat", "steps": 150, "seed": 1 });
    let job = std::thread::spawn(move || post(&address, "/v1/txt2img", "application/json", &body));
    let in_work = |server: &Server| {
        let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
        metrics.lines().any(|line| line == "latentd_jobs_unfinished{state=\"running\"} 1")
    };
    server.until("the job is in work", in_work);
    job
}

/// Until clients are told to go elsewhere.
fn draining(server: &Server) {
    server.until("it drains", |server| {
        let ready = server.get("/readyz");
        ready.status == 503 && ready.json()["error"]["code"] == "draining"
    });
}

#[test]
fn it_makes_pictures_and_ends_well() {
    let server = Server::ready(&[]);
    assert_eq!(server.get("/livez").status, 200);
    let body = json!({ "prompt": "a cat", "steps": 2, "seed": 3, "width": 32, "height": 48 });
    let answer = server.post("/v1/txt2img", "application/json", &body);
    let json = answer.json();
    assert_eq!((answer.status, &json["model"], &json["images"][0]["seed"]), (200, &json!("tiny"), &json!(3)), "{json}");
    let picture = server.post("/v1/txt2img", "image/png", &body);
    assert_eq!((picture.status, png_size(&picture.body)), (200, (32, 48)));
    assert!(picture.head.contains("x-seed: 3"), "{}", picture.head);
    let refused = server.post("/v1/txt2img", "application/json", &json!({ "prompt": "a cat", "steps": 0 }));
    assert_eq!((refused.status, &refused.json()["error"]["violations"][0]["field"]), (422, &json!("steps")));

    let address = server.address.clone();
    server.signal("TERM");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    let ready: Vec<_> = log.iter().filter(|line| line.contains("ready; try: curl")).collect();
    assert_eq!(ready.len(), 1, "{log:#?}");
    assert!(ready[0].contains(&format!("http://{address}/v1/txt2img")), "{}", ready[0]);
}

#[test]
fn accepted_jobs_finish_before_it_ends() {
    let server = Server::ready(&[("LATENTD_SERVER_SHUTDOWN_GRACE_SECONDS", "600")]);
    let job = long_job(&server);
    server.signal("TERM");
    draining(&server);
    let late = server.post("/v1/txt2img", "application/json", &json!({ "prompt": "a cat" }));
    assert_eq!((late.status, &late.json()["error"]["code"]), (503, &json!("draining")));
    let answer = job.join().unwrap();
    assert_eq!(answer.status, 200);
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn a_job_that_outlasts_the_grace_is_told_so() {
    let server = Server::ready(&[("LATENTD_SERVER_SHUTDOWN_GRACE_SECONDS", "0")]);
    let job = long_job(&server);
    server.signal("INT");
    let answer = job.join().unwrap();
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("shutting_down")));
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::ready(&[("LATENTD_SERVER_SHUTDOWN_GRACE_SECONDS", "600")]);
    let job = long_job(&server);
    server.signal("TERM");
    draining(&server);
    server.signal("INT");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(130), "{log:#?}");
    // The connection broke with the process.
    assert!(job.join().is_err());
}

/// The named job at that place, once it has ended.
fn named(server: &Server, place: &str) -> serde_json::Value {
    let state = || server.get(place).json();
    server.until("the named job has ended", |_| !["queued", "running"].contains(&state()["state"].as_str().unwrap()));
    state()
}

#[test]
fn named_jobs_outlive_the_process() {
    let state = folder("named-jobs");
    let variables = [("LATENTD_JOBS_STATE_DIR", state.to_str().unwrap()), ("LATENTD_SERVER_SHUTDOWN_GRACE_SECONDS", "0")];
    let body = |seed: u64| json!({ "prompt": "a cat", "seed": seed, "steps": 60, "width": 32, "height": 48 });
    let hand_in = |server: &Server, seed: u64| {
        let mut body = body(seed);
        body["task"] = json!("txt2img");
        let accepted = server.post("/v1/jobs", "application/json", &body);
        assert_eq!(accepted.status, 202, "{}", accepted.json());
        format!("/v1/jobs/{}", accepted.json()["id"].as_str().unwrap())
    };
    let runs = |server: &Server, place: &str| server.get(place).json()["state"] == "running";

    let first = Server::ready(&variables);
    let places: Vec<String> = (1..4).map(|seed| hand_in(&first, seed)).collect();
    first.until("it is in work", |server| places.iter().any(|place| runs(server, place)));
    first.signal("KILL");
    first.ended();

    let second = Server::ready(&variables);
    for (seed, place) in (1..).zip(&places) {
        let job = named(&second, place);
        assert_eq!(job["state"], "succeeded", "{job}");
        let alone = second.post("/v1/txt2img", "image/png", &body(seed));
        assert!(second.get(&format!("{place}/images/0")).body == alone.body, "the picture of seed {seed} is another");
    }
    let left = hand_in(&second, 9);
    second.until("it is in work", |server| runs(server, &left));
    second.signal("TERM");
    let (status, log) = second.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");

    let third = Server::ready(&variables);
    let job = named(&third, &left);
    assert_eq!((job["state"].as_str(), job["crashes"].as_u64()), (Some("succeeded"), Some(0)), "{job}");
    let alone = third.post("/v1/txt2img", "image/png", &body(9));
    assert!(third.get(&format!("{left}/images/0")).body == alone.body, "stopped and gone on, it is another picture");
    assert_eq!(third.get(&places[0]).json()["state"], "succeeded", "it is still remembered");
}
