//! Watching jobs: events with numbers, replayed to whoever was cut off.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ldm_engine::fake::FakeControl;
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, Retention};
use ldm_engine::objects::Objects;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::testing::{get, house, node_with, post, ready};
use crate::{App, app};

/// An event as a client reads it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    id: u64,
    name: String,
    data: Value,
}

/// A stream that is read event by event.
struct Stream {
    chunks: BoxStream<'static, String>,
    left: String,
}

impl Stream {
    async fn open(router: &Router, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(format!("{path}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::CONTENT_TYPE]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let chunks = response.into_body().into_data_stream();
        let chunks = chunks.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).boxed();
        Self { chunks, left: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.left.clone().split_once("\n\n") {
                self.left = rest.to_owned();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("");
                if field("event").is_empty() {
                    continue;
                }
                let (id, name) = (field("id").parse().expect("a number"), field("event").to_owned());
                return Some(Event { id, name, data: serde_json::from_str(field("data")).unwrap() });
            }
            self.left += &self.chunks.next().await?;
        }
    }

    /// All that follow, to the end.
    async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn grow(events: &[Event]) -> bool {
    events.is_sorted_by(|a, b| a.id < b.id)
}

/// A job of four steps whose first two are done when this returns.
async fn half_done(router: &Router, control: &Arc<FakeControl>, more: Value) -> String {
    control.steps.close();
    let mut body = json!({ "task": "txt2img", "seed": 5, "steps": 4, "width": 64, "height": 64 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let place = post(router, "/v1/jobs", body.to_string()).await.header("location").to_owned();
    control.steps.wait_blocked();
    control.steps.allow(2);
    control.steps.wait_blocked();
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_job_tells_its_steps_and_its_end_to_all_who_watch() {
    let (router, control) = house().await;
    let place = half_done(&router, &control, json!({ "preview_every": 1 })).await;
    let mut first = Stream::open(&router, &place, None).await;
    let state = first.next().await.unwrap();
    assert_eq!((state.name.as_str(), &state.data["state"]), ("state", &json!("running")));
    let gone = Stream::open(&router, &place, None).await;
    let mut second = Stream::open(&router, &place, Some("nonsense")).await;
    assert_eq!(second.next().await.unwrap().name, "state", "what is no number is as if nothing was said");
    drop(gone);
    // One step, and the device waits: what it told is the newest that there is.
    control.steps.allow(1);
    let (mut before_first, mut before_second) = (Vec::new(), Vec::new());
    for (stream, before) in [(&mut first, &mut before_first), (&mut second, &mut before_second)] {
        while before.iter().all(|event: &Event| event.name != "preview") {
            before.push(stream.next().await.unwrap());
        }
    }
    control.steps.open();
    let (first, second) = tokio::join!(first.rest(), second.rest());
    let (first, second) = ([before_first, first].concat(), [before_second, second].concat());
    for events in [&first, &second] {
        assert!(grow(events) && events[0].id > state.id, "{events:?}");
        let (end, before) = events.split_last().unwrap();
        assert_eq!((end.name.as_str(), &end.data["state"], &end.data["progress"]), ("result", &json!("succeeded"), &json!(1.0)));
        assert!(end.data["images"][0]["url"].as_str().unwrap().ends_with("/images/0"));
        assert!(before.iter().all(|event| ["queued", "progress", "preview"].contains(&event.name.as_str())), "{before:?}");
        let preview = before.iter().find(|event| event.name == "preview").expect("a preview");
        assert_eq!((&preview.data["mime"], &preview.data["image"]), (&json!("image/jpeg"), &json!(0)));
        let steps = before.iter().filter_map(|event| event.data["step"].as_u64().filter(|_| event.name == "progress"));
        assert!(steps.is_sorted(), "{before:?}");
    }
    assert_eq!(first.last(), second.last());

    // Once it has ended there is the end, and for who has seen that, nothing.
    let end = first.last().unwrap();
    for last in [None, Some("1"), Some("x")] {
        assert_eq!(Stream::open(&router, &place, last).await.rest().await, std::slice::from_ref(end));
    }
    let again = Request::get(format!("{place}/events")).header("last-event-id", end.id.to_string());
    assert_eq!(crate::testing::send(&router, again.body(Body::empty()).unwrap()).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_goes_on_without_a_gap() {
    let (router, control) = house().await;
    let place = half_done(&router, &control, json!({})).await;
    let mut whole = Stream::open(&router, &place, None).await;
    let state = whole.next().await.unwrap();
    let mut cut = Stream::open(&router, &place, Some(&state.id.to_string())).await;
    control.steps.allow(1);
    let seen = cut.next().await.unwrap();
    drop(cut);
    control.steps.open();
    let whole = whole.rest().await;
    let known = whole.iter().position(|event| event.id == seen.id).expect("the same events for all");
    assert_eq!(whole[known], seen);
    // The job has ended meanwhile, so what is left to say is the end.
    let rest = Stream::open(&router, &place, Some(&seen.id.to_string())).await.rest().await;
    assert_eq!(rest, [whole.last().unwrap().clone()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_not_known_hears_the_state_first() {
    let (router, control) = house().await;
    let place = half_done(&router, &control, json!({})).await;
    for last in ["1", "9007199254740991", "18446744073709551615"] {
        let mut stream = Stream::open(&router, &place, Some(last)).await;
        let state = stream.next().await.unwrap();
        assert_eq!((state.name.as_str(), &state.data["state"]), ("state", &json!("running")), "{last}");
    }
    control.steps.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_has_its_name() {
    let (router, control) = house().await;
    control.steps.close();
    let ask = async |more: Value| {
        let mut body = json!({ "task": "txt2img", "steps": 2, "width": 64, "height": 64 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&router, "/v1/jobs", body.to_string()).await.header("location").to_owned()
    };
    let failing = ask(json!({ "prompt": "!nan@1" })).await;
    let canceled = ask(json!({})).await;
    let (failing_events, canceled_events) =
        (Stream::open(&router, &failing, None).await, Stream::open(&router, &canceled, None).await);
    post(&router, &format!("{canceled}/cancel"), "").await;
    control.steps.open();
    let (failing_events, canceled_events) = tokio::join!(failing_events.rest(), canceled_events.rest());
    let end = failing_events.last().unwrap();
    assert_eq!((end.name.as_str(), &end.data["error"]["code"]), ("failed", &json!("not_finite")));
    assert_eq!(names(&canceled_events).last(), Some(&"canceled"));
    assert_eq!(get(&router, "/v1/jobs/nobody/events").await.code(), "no_such_job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_can_be_watched_and_goes_on_without_its_watchers() {
    let (router, control) = house().await;
    control.steps.close();
    let body = json!({ "seed": 4, "steps": 3, "width": 64, "height": 64 });
    let call =
        Request::post("/v1/txt2img").header(header::CONTENT_TYPE, "application/json").header("accept", "text/event-stream");
    let response = router.clone().oneshot(call.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let place = format!("/v1/jobs/{}", response.headers()["x-job-id"].to_str().unwrap());
    let reading = tokio::spawn(async move { axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap() });
    control.steps.wait_blocked();
    let gone = Stream::open(&router, &place, None).await;
    let mut stream = Stream::open(&router, &place, None).await;
    assert_eq!(stream.next().await.unwrap().data["kept"], false);
    drop(gone);
    control.steps.open();
    let events = stream.rest().await;
    assert!(grow(&events), "{events:?}");
    assert_eq!(names(&events).last(), Some(&"result"));
    assert!(String::from_utf8(reading.await.unwrap().to_vec()).unwrap().contains("event: result"));
    assert_eq!(Stream::open(&router, &place, None).await.rest().await, [events.last().unwrap().clone()]);
}

/// The first process only hands in; the job runs in another one, with the same ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_watched_into_another_process() {
    let (state, _) = ready().await;
    let ledger: Arc<dyn Ledger> = Arc::new(Memory::new(LedgerLimits::default()));
    let first = node_with(&state, Arc::clone(&ledger), Objects::memory(), Retention::default(), 0);
    let state: App = state.named(first.clone());
    let router = app(state.clone());
    let body = json!({ "task": "txt2img", "steps": 2, "width": 64, "height": 64 });
    let place = post(&router, "/v1/jobs", body.to_string()).await.header("location").to_owned();
    let mut stream = Stream::open(&router, &place, None).await;
    let waits = stream.next().await.unwrap();
    assert_eq!((waits.name.as_str(), &waits.data["state"], &waits.data["position"]), ("state", &json!("queued"), &json!(0)));
    assert!(waits.data["eta_ms"].is_u64(), "{waits:?}");
    let second = node_with(&state, ledger, first.objects().clone(), Retention::default(), 4);
    let events = stream.rest().await;
    assert_eq!(names(&events).last(), Some(&"result"), "{events:?}");
    while state.replays.len() > 0 {
        // What has ended is let go of.
        tokio::task::yield_now().await;
    }
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_the_service_stops_and_its_job_waits_for_the_next() {
    let (state, _) = ready().await;
    let ledger: Arc<dyn Ledger> = Arc::new(Memory::new(LedgerLimits::default()));
    let node = node_with(&state, ledger, Objects::memory(), Retention::default(), 0);
    let service = state.service.clone();
    let router = app(state.named(node));
    let body = json!({ "task": "txt2img", "steps": 2, "width": 64, "height": 64 });
    let place = post(&router, "/v1/jobs", body.to_string()).await.header("location").to_owned();
    let mut stream = Stream::open(&router, &place, None).await;
    assert_eq!(stream.next().await.unwrap().data["state"], "queued");
    service.drain(std::time::Duration::ZERO).await;
    let events = stream.rest().await;
    assert!(names(&events).iter().all(|name| *name == "queued"), "no end was told: {events:?}");
    assert_eq!(get(&router, &place).await.json()["state"], "queued");
}
