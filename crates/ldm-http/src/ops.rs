//! Endpoints for those who run the service: alive, ready, metrics. None of them touches a device.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use ldm_engine::{Readiness, WorkerStatus};
use serde_json::{Value, json};

use crate::App;
use crate::admin;
use crate::caller::Caller;
use crate::error::{ApiError, OUT_OF_SERVICE};

/// The process answers.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Jobs are taken: models are loaded and a first picture was made. A full queue is still ready, and so is a service some of whose
/// workers are out of service: the answer says which.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    app.open()?;
    let workers: Vec<Value> = app.service.workers().iter().map(worker).collect();
    Ok(Json(json!({ "status": "ready", "workers": workers })))
}

fn worker(WorkerStatus { name, readiness, .. }: &WorkerStatus) -> Value {
    match readiness {
        // Why it failed may name files and lines; anybody may ask here.
        Readiness::Failed(_) => json!({ "name": name, "state": "failed", "reason": OUT_OF_SERVICE }),
        Readiness::Loading => json!({ "name": name, "state": "loading" }),
        Readiness::WarmingUp => json!({ "name": name, "state": "warming_up" }),
        // Whether the service drains is the service's to say.
        Readiness::Ready | Readiness::Draining => json!({ "name": name, "state": "ready" }),
    }
}

/// Everything that is counted and measured, in Prometheus' text format. It names tenants: where there are keys it is for admins,
/// unless it is said to be open.
pub(crate) async fn metrics(
    State(app): State<App>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    if app.door.keys.is_some() && !app.door.open_metrics {
        admin::is_admins(&app, caller.as_deref(), &headers)?;
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.scrape(&app.service)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ldm_core::Draft;
    use ldm_engine::fake::{FakeControl, FakeExecutor, FakeOptions};
    use ldm_engine::{Limits, Service, Worker};

    use super::*;
    use crate::testing::get;
    use crate::{Metrics, app};

    /// Two workers whose devices are broken after a fault, and do not come back.
    async fn two() -> (Service, axum::Router, [Arc<FakeControl>; 2]) {
        let fakes = [(); 2].map(|()| FakeExecutor::new(FakeOptions { probe_fails: true, ..FakeOptions::default() }));
        let controls = fakes.each_ref().map(FakeExecutor::control);
        let mut names = ["one", "two"].into_iter();
        let workers = fakes.map(|fake| Worker::new(names.next().unwrap_or_default(), fake.maker()).restarts(0));
        let metrics = Arc::new(Metrics::new());
        let service = Service::pool(Limits::default(), Arc::clone(&metrics) as _, workers.into());
        while service.workers().iter().any(|worker| worker.readiness != Readiness::Ready) {
            tokio::task::yield_now().await;
        }
        let router = app(App::new(service.clone(), metrics));
        (service, router, controls)
    }

    async fn breaks_a_device(service: &Service) {
        let draft = Draft { prompt: Some("!panic@1".to_owned()), steps: Some(1), ..Draft::new(ldm_core::Task::Txt2Img) };
        let requests = draft.check(&service.catalogue().unwrap()).unwrap();
        service.submit(requests).unwrap().remove(0).finished().await;
    }

    #[tokio::test]
    async fn readiness_tells_which_workers_are_out_of_service() {
        let (service, router, _controls) = two().await;
        let states = || service.workers().into_iter().filter(|worker| worker.readiness == Readiness::Ready).count();
        let ready = json!([{ "name": "one", "state": "ready" }, { "name": "two", "state": "ready" }]);
        assert_eq!(get(&router, "/readyz").await.json(), json!({ "status": "ready", "workers": ready }));

        breaks_a_device(&service).await;
        while states() > 1 {
            tokio::task::yield_now().await;
        }
        let answer = get(&router, "/readyz").await;
        assert_eq!(answer.status, 200, "one worker is enough");
        let workers = answer.json()["workers"].clone();
        let failed: Vec<&Value> = workers.as_array().unwrap().iter().filter(|worker| worker["state"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{workers}");
        assert_eq!(failed[0]["reason"], "out of service; the log says why", "what broke is nobody else's");

        breaks_a_device(&service).await;
        service.ended().await;
        let answer = get(&router, "/readyz").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "failed"));
        assert_eq!(answer.json()["error"]["message"], "every device is out of service; the log says why");
    }
}
