//! Against the service over a socket, in front of a fake device.

use std::sync::Arc;
use std::time::Duration;

use ldm_bench::{BenchError, HttpTarget, Length, Load, Mix, Options, Report, ServiceTarget, run};
use ldm_engine::fake::{FakeExecutor, FakeOptions};
use ldm_engine::{Limits, Service};
use ldm_http::{App, HttpLimits, Metrics};
use tokio::net::TcpListener;

/// A server whose network calls take so long, and its URL. It goes with the runtime.
async fn served(limits: Limits, step: Duration) -> String {
    let metrics = Arc::new(Metrics::new());
    let executor = FakeExecutor::new(FakeOptions { step, ..FakeOptions::default() });
    let service = Service::start(limits, Arc::clone(&metrics) as _, executor.loader());
    service.wait_ready().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = App::new(service, metrics).limits(HttpLimits::default());
    tokio::spawn(ldm_http::serve(listener, app, std::future::pending(), Duration::ZERO));
    url
}

async fn put_on(url: &str, mix: Mix, options: Options) -> Report {
    let target = HttpTarget::new(url, &mix).unwrap();
    run(target, mix, options, |_| {}).await.unwrap()
}

fn options(load: Load, requests: u64) -> Options {
    Options { load, length: Length::Requests(requests), warmup: Duration::ZERO, solo_runs: 3, ..Options::default() }
}

fn balanced(report: &Report) {
    for figures in report.kinds.iter().map(|kind| &kind.figures).chain([&report.total]) {
        assert_eq!(figures.sent, figures.ok + figures.rejected + figures.failed + figures.cancelled, "{report}");
        assert_eq!(figures.latency.count, figures.ok, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_sees_what_was_sent_and_who_went_away() {
    let url = served(Limits::default(), Duration::from_millis(2)).await;
    let options = Options { cancel_share: 0.5, ..options(Load::Closed { concurrency: 4 }, 80) };
    let report = put_on(&url, Mix::built_in().unwrap(), options).await;
    balanced(&report);
    assert_eq!((report.total.sent, report.total.rejected, report.total.failed), (80, 0, 0), "{report}");
    assert!(report.total.cancelled > 10 && report.total.ok > 10, "{report}");
    let server = report.server.clone().unwrap();
    let jobs = |outcome: &str| server.jobs.get(outcome).copied().unwrap_or(0.0) as u64;
    // Who leaves at once may be gone before a job was made of the request; a job may end while its client leaves.
    assert!(jobs("cancelled") > 5 && jobs("cancelled") <= report.total.cancelled, "{report}");
    assert!(jobs("finished") >= report.total.ok && jobs("finished") + jobs("cancelled") <= report.total.sent, "{report}");
    let wasted = server.wasted_steps.unwrap();
    assert!(wasted > 0.0 && wasted < server.steps, "{report}");
    assert!(server.batches.mean_rows.unwrap() > 1.0, "{report}");
    let calls: f64 = server.batches.histogram.iter().map(|group| group.1).sum();
    assert_eq!(calls, server.batches.calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wasted_when_everybody_waits() {
    let url = served(Limits::default(), Duration::from_millis(1)).await;
    let report = put_on(&url, Mix::built_in().unwrap(), options(Load::Closed { concurrency: 4 }, 40)).await;
    balanced(&report);
    assert_eq!((report.total.ok, report.server.as_ref().unwrap().wasted_steps), (40, Some(0.0)), "{report}");
    let expected = [25.0, 8.0, 15.0, 12.0];
    for (kind, steps) in report.kinds.iter().zip(expected) {
        assert_eq!(kind.evaluations, Some(steps), "{report}");
        assert!(kind.solo_ms.unwrap() >= steps, "{report}");
    }
    let stages = &report.total.stages;
    assert!(stages.steps.p50 >= 8.0 && stages.steps.p99 <= report.total.latency.max, "{report}");
    assert_eq!(report.tenants.iter().map(|tenant| tenant.images_got).sum::<u64>(), 40);
    assert!(report.fairness.as_ref().unwrap().images_by_demand.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_and_the_refusals_are_counted() {
    let url = served(Limits { queue: 2, running: 1, ..Limits::default() }, Duration::from_millis(5)).await;
    let mix = Mix::parse("[[kind]]\nname = 'a'\nsteps = 10\nwidth = 64\nheight = 64\nraw = true").unwrap();
    let report = put_on(&url, mix, options(Load::Open { rate: 200.0 }, 100)).await;
    balanced(&report);
    assert_eq!(report.total.sent, 100);
    assert!(report.total.rejected > 20 && report.total.ok >= 2, "{report}");
    assert_eq!(report.total.rejected_by, [("429".to_owned(), report.total.rejected)].into(), "{report}");
    assert_eq!(report.server.as_ref().unwrap().rejected["queue_full"] as u64, report.total.rejected, "{report}");
    let told = report.retry_after.as_ref().unwrap();
    assert!(told.refusals == report.total.rejected && told.told_mean_s >= 1.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_server_refuses_ends_the_run_with_its_words() {
    let url = served(Limits::default(), Duration::ZERO).await;
    let mix = Mix::parse("[[kind]]\nname = 'odd'\nwidth = 65").unwrap();
    let target = HttpTarget::new(&url, &mix).unwrap();
    let refused = run(target, mix, options(Load::Closed { concurrency: 1 }, 1), |_| {}).await.unwrap_err();
    let BenchError::Alone { kind, reason } = &refused else { panic!("{refused}") };
    assert!(kind == "odd" && reason.contains("width") && reason.contains("422"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_the_engine_in_process() {
    let executor = FakeExecutor::new(FakeOptions::default());
    let target = ServiceTarget::start(Limits::default(), executor.loader()).await.unwrap();
    let mix = Mix::parse("[[kind]]\nname = 'good'\nsteps = 5\n[[kind]]\nname = 'bad'\nsteps = 5\nprompt = 'x !nan@3'").unwrap();
    let options = Options { solo_runs: 0, ..options(Load::Closed { concurrency: 2 }, 40) };
    let report = run(target, mix, options, |_| {}).await.unwrap();
    balanced(&report);
    let [good, bad] = [&report.kinds[0].figures, &report.kinds[1].figures];
    assert!(good.ok == good.sent && bad.failed == bad.sent && bad.failed > 0, "{report}");
    assert!(bad.failed_by.keys().all(|reason| reason.starts_with("not_finite")), "{report}");
    let server = report.server.as_ref().unwrap();
    assert_eq!((server.jobs["finished"] as u64, server.jobs["failed"] as u64), (good.ok, bad.failed), "{report}");
    assert_eq!(server.wasted_steps, None, "without solo runs nobody knows what a request takes");
}
