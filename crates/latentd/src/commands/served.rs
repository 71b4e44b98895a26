//! The models that a running service serves: changed over HTTP, and by SIGHUP, which has the configuration read again.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use ldm_core::Failure;
use ldm_engine::{ModelChange, Service};
use ldm_http::{ModelOrder, Models};
use ldm_pipeline::ModelSource;
use tokio::sync::Mutex;

/// Folders below a model's own that are looked into for files that changed.
const DEPTH: u32 = 2;

/// The models of a service, as they were last ordered.
pub(super) struct Served {
    service: Service,
    /// Held while a change is on its way, so that there is one at a time.
    models: Mutex<Vec<Entry>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    source: ModelSource,
    /// When its newest file was written.
    written: Option<SystemTime>,
}

impl Entry {
    fn new(source: ModelSource) -> Self {
        let written = newest(&source.dir, DEPTH);
        Self { source, written }
    }
}

impl Served {
    pub(super) fn new(service: Service, models: &[ModelSource]) -> Self {
        Self { service, models: Mutex::new(models.iter().cloned().map(Entry::new).collect()) }
    }

    /// Makes `wanted` the models of the service. What fails is told to the log; the rest is done all the same.
    pub(super) async fn follow(&self, wanted: &[ModelSource]) {
        let mut models = self.models.lock().await;
        let wanted: Vec<Entry> = wanted.iter().cloned().map(Entry::new).collect();
        for order in orders(&models, &wanted) {
            tracing::info!(?order, "the configuration changes the models");
            if let Err(failure) = self.carry_out(&mut models, order).await {
                tracing::error!(%failure, "a model could not be changed");
            }
        }
    }

    async fn carry_out(&self, models: &mut Vec<Entry>, order: Order) -> Result<(), Failure> {
        let change = match &order {
            Order::Put(source) => ModelChange::Put(Arc::new(source.clone())),
            Order::Remove(id) => ModelChange::Remove(id.clone()),
            Order::Reload(id) => ModelChange::Reload(id.clone()),
        };
        self.service.change_models(change).await?;
        let at = |id: &str| models.iter().position(|known| known.source.id == id);
        match order {
            Order::Put(source) => match at(&source.id) {
                Some(at) => models[at] = Entry::new(source),
                None => models.push(Entry::new(source)),
            },
            Order::Remove(id) => models.retain(|known| known.source.id != id),
            Order::Reload(id) => {
                if let Some(at) = at(&id) {
                    models[at] = Entry::new(models[at].source.clone());
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Models for Served {
    async fn change(&self, order: ModelOrder) -> Result<(), Failure> {
        let mut models = self.models.lock().await;
        let order = match order {
            ModelOrder::Put { id, path } => Order::Put(ModelSource::new(id, path)),
            ModelOrder::Remove(id) => Order::Remove(id),
            ModelOrder::Reload(id) => Order::Reload(id),
        };
        self.carry_out(&mut models, order).await
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Order {
    Put(ModelSource),
    Remove(String),
    Reload(String),
}

/// What makes `wanted` of `now`: what is new or described otherwise is put, what is missing removed, and what has newer files read
/// again.
fn orders(now: &[Entry], wanted: &[Entry]) -> Vec<Order> {
    let gone = now.iter().filter(|known| wanted.iter().all(|entry| entry.source.id != known.source.id));
    let mut orders: Vec<Order> = gone.map(|known| Order::Remove(known.source.id.clone())).collect();
    for entry in wanted {
        match now.iter().find(|known| known.source.id == entry.source.id) {
            Some(known) if known == entry => {}
            Some(known) if known.source == entry.source => orders.push(Order::Reload(entry.source.id.clone())),
            _ => orders.push(Order::Put(entry.source.clone())),
        }
    }
    orders
}

/// When the newest file there was written.
fn newest(path: &Path, depth: u32) -> Option<SystemTime> {
    let own = std::fs::metadata(path).ok()?;
    if !own.is_dir() || depth == 0 {
        return own.modified().ok();
    }
    let inside = std::fs::read_dir(path).ok()?.flatten().filter_map(|entry| newest(&entry.path(), depth - 1));
    inside.chain(own.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(id: &str, dir: &str, age: u64) -> Entry {
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(age));
        Entry { source: ModelSource::new(id, dir), written }
    }

    #[test]
    fn a_configuration_becomes_the_orders_that_lead_to_it() {
        let now = [entry("same", "a", 1), entry("newer", "b", 1), entry("moved", "c", 1), entry("gone", "d", 1)];
        let wanted = [entry("same", "a", 1), entry("newer", "b", 2), entry("moved", "x", 1), entry("new", "e", 1)];
        let expected = [
            Order::Remove("gone".to_owned()),
            Order::Reload("newer".to_owned()),
            Order::Put(ModelSource::new("moved", "x")),
            Order::Put(ModelSource::new("new", "e")),
        ];
        assert_eq!(orders(&now, &wanted), expected);
        assert_eq!(orders(&now, &now), []);
    }
}
