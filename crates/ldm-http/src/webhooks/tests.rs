//! Webhooks against receivers on this machine: delivered at least once, signed, and never where they must not go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ldm_cluster::Sqlite;
use ldm_engine::ledger::{Ledger, LedgerLimits, Memory, Phase, Retention};
use ldm_engine::objects::Objects;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::allow::Allowed;
use super::post::Client;
use super::receiver::{Receiver, SECRET, script};
use super::sign::Secrets;
use super::{Policy, Rules, WebhookOptions, Webhooks};
use crate::testing::{get, node_with, post, ready};
use crate::{App, app};

/// Pauses that a test can wait for.
fn quick() -> Policy {
    let ms = Duration::from_millis;
    Policy { every: ms(5), first_pause: ms(10), longest_pause: ms(40), timeout: Duration::from_secs(10), ..Policy::default() }
}

fn options(allow: &[&str]) -> WebhookOptions {
    let allow = allow.iter().map(|origin| (*origin).to_owned()).collect();
    WebhookOptions { allow, allow_private: false, secrets: SECRET.to_owned() }
}

/// An app whose webhooks are called so, and its ledger.
async fn house(options: &WebhookOptions, policy: Policy) -> (App, Router, Arc<dyn Ledger>) {
    house_on(Arc::new(Memory::new(LedgerLimits::default())), options, policy).await
}

async fn house_on(ledger: Arc<dyn Ledger>, options: &WebhookOptions, policy: Policy) -> (App, Router, Arc<dyn Ledger>) {
    let (state, _) = ready().await;
    let node = node_with(&state, Arc::clone(&ledger), Objects::memory(), Retention::default(), 4);
    let mut state = state.named(node.clone());
    state.webhooks = Some(Webhooks::start(options, node, Arc::clone(&state.metrics), policy).unwrap());
    (state.clone(), app(state), ledger)
}

fn body(webhook: Value) -> String {
    json!({ "task": "txt2img", "steps": 2, "width": 64, "height": 64, "seed": 3, "webhook": webhook }).to_string()
}

/// Hands a job in; its place.
async fn submit(router: &Router, webhook: Value) -> String {
    let accepted = post(router, "/v1/jobs", body(webhook)).await;
    assert_eq!(accepted.status, 202, "{}", accepted.json());
    accepted.header("location").to_owned()
}

/// Waits until nothing is left to be told.
async fn settled(ledger: &Arc<dyn Ledger>) {
    while ledger.load().await.unwrap().untold > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the metric is at least that.
async fn counted(state: &App, line: &str, least: u64) {
    loop {
        let text = state.metrics.text();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<u64>().ok());
        if value.is_some_and(|value| value >= least) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const DELIVERED: &str = r#"latentd_webhook_attempts_total{outcome="delivered"}"#;
const FAILED: &str = r#"latentd_webhook_attempts_total{outcome="failed"}"#;
const BLOCKED: &str = r#"latentd_webhook_attempts_total{outcome="blocked"}"#;
const ABANDONED: &str = "latentd_webhooks_abandoned_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_told_until_the_receiver_has_it_and_then_no_more() {
    let mut receiver = Receiver::start(&[500, 429], "").await;
    let (state, router, ledger) = house(&options(&[&receiver.origin()]), quick()).await;
    let place = submit(&router, json!(format!("{}/hook?key=1", receiver.origin()))).await;
    let heard = [receiver.next().await, receiver.next().await, receiver.next().await];
    settled(&ledger).await;
    let id = place.rsplit('/').next().unwrap();
    for told in &heard {
        assert!(told.is_signed());
        assert_eq!((told.header("webhook-id"), told.header("content-type")), (format!("msg_{id}").as_str(), "application/json"));
        let said = told.json();
        assert_eq!((said["id"].as_str().unwrap(), said["state"].as_str().unwrap()), (id, "succeeded"));
        let shown = get(&router, &place).await.json();
        assert_eq!(said, shown, "what anybody sees who asks");
        assert!(said["images"][0]["url"].is_string() && said["images"][0].get("b64").is_none());
    }
    counted(&state, DELIVERED, 1).await;
    counted(&state, FAILED, 2).await;
    assert!(receiver.heard.try_recv().is_err(), "three times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_this_machine_is_not_called_unless_that_is_allowed() {
    let mut receiver = Receiver::start(&[], "").await;
    let origin = format!("http://localhost:{}", receiver.port);
    let patient = Policy { attempts: 3, ..quick() };
    let (state, router, ledger) = house(&options(&[&origin]), patient).await;
    submit(&router, json!(origin)).await;
    counted(&state, ABANDONED, 1).await;
    counted(&state, BLOCKED, 3).await;
    settled(&ledger).await;
    assert!(receiver.heard.try_recv().is_err(), "nobody called");

    let (_, router, _) = house(&WebhookOptions { allow_private: true, ..options(&[&origin]) }, quick()).await;
    submit(&router, json!(origin)).await;
    assert!(receiver.next().await.is_signed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let mut elsewhere = Receiver::start(&[], "").await;
    let mut receiver = Receiver::start(&[307, 302, 301], &elsewhere.origin()).await;
    let (state, router, ledger) = house(&options(&[&receiver.origin(), &elsewhere.origin()]), quick()).await;
    submit(&router, json!(receiver.origin())).await;
    for _ in 0..4 {
        receiver.next().await;
    }
    settled(&ledger).await;
    counted(&state, FAILED, 3).await;
    assert!(elsewhere.heard.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_for_ever() {
    let mut receiver = Receiver::start(&[500; 20], "").await;
    let (state, router, ledger) = house(&options(&[&receiver.origin()]), Policy { attempts: 2, ..quick() }).await;
    submit(&router, json!(receiver.origin())).await;
    counted(&state, ABANDONED, 1).await;
    settled(&ledger).await;
    assert!(receiver.heard.try_recv().is_ok() && receiver.heard.try_recv().is_ok() && receiver.heard.try_recv().is_err());

    let mut gone = Receiver::start(&[410], "").await;
    let (state, router, ledger) = house(&options(&[&gone.origin()]), quick()).await;
    submit(&router, json!(gone.origin())).await;
    gone.next().await;
    counted(&state, ABANDONED, 1).await;
    settled(&ledger).await;
    assert!(gone.heard.try_recv().is_err(), "it said that it wants none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_endings_that_are_asked_for_are_told() {
    let mut receiver = Receiver::start(&[], "").await;
    let (_, router, _) = house(&options(&[&receiver.origin()]), quick()).await;
    submit(&router, json!({ "url": receiver.origin(), "events": ["failed", "canceled"] })).await;
    let failing = json!({ "task": "txt2img", "prompt": "!nan@1", "steps": 2, "width": 64, "height": 64,
        "webhook": { "url": receiver.origin(), "events": ["failed"] } });
    post(&router, "/v1/jobs", failing.to_string()).await;
    let told = receiver.next().await.json();
    assert_eq!((&told["state"], &told["error"]["code"]), (&json!("failed"), &json!("not_finite")));
    assert!(receiver.heard.try_recv().is_err());
}

fn open(folder: &Path) -> Option<Arc<dyn Ledger>> {
    Sqlite::open(folder, LedgerLimits::default()).ok().map(|ledger| Arc::new(ledger) as Arc<dyn Ledger>)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_could_not_tell_the_next_one_tells() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(&[503], "").await;
    let allow = options(&[&receiver.origin()]);
    let (state, router, ledger) =
        house_on(open(folder.path()).unwrap(), &allow, Policy { first_pause: Duration::from_secs(1), ..quick() }).await;
    let place = submit(&router, json!(receiver.origin())).await;
    let first = receiver.next().await;
    assert_eq!(ledger.load().await.unwrap().untold, 1);
    drop((state, router, ledger));
    // Until the last task that looked into it has let go of the file.
    let ledger = loop {
        match open(folder.path()) {
            Some(ledger) => break ledger,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let (_, router, ledger) = house_on(ledger, &allow, quick()).await;
    let second = receiver.next().await;
    assert!(second.is_signed());
    assert_eq!(
        (second.header("webhook-id"), second.json()["id"].clone()),
        (first.header("webhook-id"), first.json()["id"].clone())
    );
    assert_eq!(second.json(), get(&router, &place).await.json());
    settled(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_record_has_gone_is_told_in_short() {
    let mut receiver = Receiver::start(&[], "").await;
    let ledger: Arc<dyn Ledger> = Arc::new(Memory::new(LedgerLimits::default()));
    let hook = ldm_engine::ledger::Hook { url: receiver.origin(), endings: Phase::ENDINGS.to_vec() };
    let job = ldm_engine::ledger::NewJob { hook: Some(hook), ..new_job() };
    let id = job.id;
    ledger.submit(job).await.unwrap();
    ledger.cancel(id).await.unwrap();
    ledger.forget(&[id]).await.unwrap();
    let (_state, _router, _) = house_on(ledger, &options(&[&receiver.origin()]), quick()).await;
    let told = receiver.next().await;
    assert!(told.is_signed());
    assert_eq!((&told.json()["id"], &told.json()["state"]), (&json!(id.to_string()), &json!("canceled")));
}

fn new_job() -> ldm_engine::ledger::NewJob {
    ldm_engine::ledger::NewJob {
        id: ldm_core::JobId::new(),
        tenant: ldm_core::Tenant::default(),
        priority: ldm_core::Priority::Interactive,
        model: "none".into(),
        bucket: String::new(),
        cost_ms: 1,
        spec: "{}".into(),
        inputs: Vec::new(),
        fingerprint: [0; 32],
        key: None,
        name: None,
        deadline: None,
        not_before: None,
        note: String::new(),
        hook: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_receiver_must_be_who_it_says() {
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.der().clone(), PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_single_cert(vec![cert.clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (routes, mut heard) = script(&[], "");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, routes) = (acceptor.clone(), routes.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let routes = hyper_util::service::TowerToHyperService::new(routes);
                let serve = hyper::server::conn::http1::Builder::new();
                let _ = serve.serve_connection(hyper_util::rt::TokioIo::new(stream), routes).await;
            });
        }
    });

    let origin = format!("https://localhost:{port}");
    let start = async |roots: RootCertStore| {
        let (state, _) = ready().await;
        let ledger: Arc<dyn Ledger> = Arc::new(Memory::new(LedgerLimits::default()));
        let node = node_with(&state, Arc::clone(&ledger), Objects::memory(), Retention::default(), 4);
        let mut state = state.named(node.clone());
        let rules = Rules {
            allowed: Allowed::read(std::slice::from_ref(&origin), true).unwrap(),
            secrets: Secrets::read(SECRET).unwrap(),
            client: Client::trusting(Duration::from_secs(10), roots),
        };
        let policy = Policy { attempts: 2, ..quick() };
        state.webhooks = Some(Webhooks::with(rules, node, Arc::clone(&state.metrics), policy));
        submit(&app(state.clone()), json!(origin)).await;
        state
    };
    let stranger = start(RootCertStore::empty()).await;
    counted(&stranger, ABANDONED, 1).await;
    assert!(heard.try_recv().is_err(), "nothing is said to a stranger");
    let mut roots = RootCertStore::empty();
    roots.add(cert).unwrap();
    let trusting = start(roots).await;
    assert!(heard.recv().await.unwrap().is_signed());
    counted(&trusting, DELIVERED, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_called_is_refused_by_name() {
    let (_, router, _) = house(&options(&["https://a.example", "https://*.b.example"]), quick()).await;
    let table = [
        (json!("https://c.example/x"), "webhook"),
        (json!("http://a.example/"), "webhook"),
        (json!("https://a.example:8443/"), "webhook"),
        (json!("https://user:word@a.example/"), "webhook"),
        (json!("https://127.0.0.1/"), "webhook"),
        (json!("ftp://a.example/"), "webhook"),
        (json!("not a url"), "webhook"),
        (json!(7), "webhook"),
        (json!({}), "webhook.url"),
        (json!({ "url": 7 }), "webhook.url"),
        (json!({ "url": "https://a.example/", "events": [] }), "webhook.events"),
        (json!({ "url": "https://a.example/", "events": ["running"] }), "webhook.events"),
        (json!({ "url": "https://a.example/", "event": [] }), "webhook.event"),
        (json!(format!("https://a.example/{}", "x".repeat(3000))), "webhook"),
    ];
    for (webhook, field) in table {
        let refused = post(&router, "/v1/jobs", body(webhook.clone())).await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![field.to_owned()]), "{webhook}");
    }
    let refused = post(&router, "/v1/jobs", body(json!("https://c.example"))).await.json();
    assert!(refused["error"]["violations"][0]["limit"].as_str().unwrap().contains("webhooks.allow"));
    // What waits for an answer has no webhook.
    let call = json!({ "steps": 2, "webhook": "https://a.example/" });
    assert_eq!(post(&router, "/v1/txt2img", call.to_string()).await.fields(), ["webhook"]);

    let (state, _) = ready().await;
    let node = crate::testing::node(&state);
    let off = app(state.named(node));
    let refused = post(&off, "/v1/jobs", body(json!("https://a.example/"))).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec!["webhook".to_owned()]));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("webhooks.allow"));
}

#[tokio::test]
async fn options_that_are_wrong_are_named() {
    let (state, _) = ready().await;
    let node = crate::testing::node(&state);
    let state = state.named(node);
    let secret = WebhookOptions { secrets: String::new(), ..options(&["https://a.example"]) };
    assert!(matches!(state.clone().webhooks(&secret), Err(super::InvalidWebhooks::Secret(_))));
    assert!(matches!(state.clone().webhooks(&options(&["https://a/b"])), Err(super::InvalidWebhooks::Origin(_))));
    assert!(state.clone().webhooks(&options(&[])).unwrap().webhooks.is_none(), "none listed: off");
    assert!(state.webhooks(&options(&["https://a.example"])).unwrap().webhooks.is_some());
}
