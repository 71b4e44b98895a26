//! The device thread's life: load, warm up, work, end.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldm_core::Failure;

use crate::device::{Command, Device};
use crate::guard::guarded;
use crate::state::{Readiness, State};
use crate::{Executor, warmup};

/// Starts the device thread; `None` when there is none to be had, which shows in the readiness.
pub(crate) fn spawn<E: Executor, F>(
    state: Arc<State>,
    inbox: mpsc::Receiver<Command>,
    running: usize,
    load: F,
) -> Option<JoinHandle<()>>
where
    F: FnOnce() -> Result<E, Failure> + Send + 'static,
{
    let shared = Arc::clone(&state);
    let body = move || {
        let outcome = guarded(|| serve(&shared, inbox, running, load));
        if let Err(failure) = outcome {
            tracing::error!(%failure, "the device is out of service");
            shared.becomes(Readiness::Failed(failure.message));
        }
        shared.ended.send_replace(true);
    };
    let thread = std::thread::Builder::new().name("ldm-device".to_owned()).spawn(body);
    thread
        .inspect_err(|error| {
            state.becomes(Readiness::Failed(format!("no device thread: {error}")));
            state.ended.send_replace(true);
        })
        .ok()
}

/// A device thread's whole life.
fn serve<E, F>(state: &Arc<State>, inbox: mpsc::Receiver<Command>, running: usize, load: F) -> Result<(), Failure>
where
    E: Executor,
    F: FnOnce() -> Result<E, Failure>,
{
    let began = Instant::now();
    let mut executor = guarded(load)?;
    let catalogue = Arc::new(guarded(|| Ok(executor.catalogue()))?);
    tracing::info!(models = catalogue.models.len(), took_ms = ms(began.elapsed()), "loaded");
    // Nobody else sets it.
    let _ = state.catalogue.set(Arc::clone(&catalogue));
    state.becomes(Readiness::WarmingUp);
    if state.readiness() == Readiness::Draining {
        return Ok(());
    }
    let began = Instant::now();
    warmup::run(&mut executor, &catalogue)?;
    tracing::info!(took_ms = ms(began.elapsed()), "warm and ready");
    state.becomes(Readiness::Ready);
    Device::new(executor, inbox, running, Arc::clone(state)).run()
}

fn ms(took: Duration) -> u64 {
    took.as_millis() as u64
}
