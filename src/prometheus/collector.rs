//! The [`Collector`].

use std::fmt;

use prometheus_client::collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::families;
use super::sources::{self, Sources};
#[cfg(feature = "events")]
use crate::events::{BusSample, EventBus};
use crate::observe::metrics::Metrics;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;

/// A collector of the metrics of pools, event buses and NATS workers, for a registry of
/// `prometheus-client`.
///
/// It reads each of them when it is scraped, and keeps none of them alive. What was dropped is shown
/// no longer. Clones share what was added, so pools may be added after the collector has
/// been registered. Register it once: two collectors in one registry describe the same metrics
/// twice, which Prometheus refuses.
///
/// # Examples
///
/// ```
/// use prometheus_client::encoding::text::encode;
/// use prometheus_client::registry::Registry;
/// use workcrew::WorkerPool;
/// use workcrew::prometheus::Collector;
///
/// let pool = WorkerPool::builder().workers(2).timing(true).build()?;
/// let collector = Collector::new();
/// collector.add_pool("images", &pool);
/// let mut registry = Registry::default();
/// registry.register_collector(Box::new(collector));
///
/// pool.spawn(|| ())?.join()?;
/// let mut text = String::new();
/// encode(&mut text, &registry)?;
/// let succeeded = "workcrew_tasks_ended_total{pool=\"images\",outcome=\"succeeded\"} 1\n";
/// assert!(text.contains(succeeded));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Collector {
    inner: Arc<CollectorInner>,
}

#[derive(Default)]
struct CollectorInner {
    pools: Sources<Metrics>,
    #[cfg(feature = "events")]
    buses: Sources<BusSample>,
    #[cfg(feature = "nats")]
    nats_workers: Sources<crate::nats::WorkerMetrics>,
}

impl Collector {
    /// Creates a collector without pools.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pool, whose metrics have the label `pool` with this name. It replaces the pool with
    /// the same name.
    pub fn add_pool(&self, name: impl Into<String>, pool: &WorkerPool) {
        // The inside of the pool: its last handle must not be dropped by a scrape, which would wait
        // for tasks.
        let inner = Arc::downgrade(pool.inner());
        self.inner.pools.add(name.into(), Box::new(move || inner.upgrade().map(|inner| inner.metrics())));
    }

    /// Adds an event bus, whose metrics have the label `bus` with this name. It replaces the bus with
    /// the same name.
    ///
    /// The metrics of a subscription have the label `subscription` with its name. Subscriptions of
    /// one name are shown together, and so are those that have ended while another one had that
    /// name. Each name costs about a dozen series, so give the subscriptions that are made in large
    /// numbers one name. The metrics of the bus count all deliveries, also those of subscriptions
    /// that no scrape has seen.
    #[cfg(feature = "events")]
    pub fn add_bus(&self, name: impl Into<String>, bus: &EventBus) {
        self.inner.buses.add(name.into(), Box::new(bus.metrics_source()));
    }

    /// Adds a NATS worker, whose metrics have the label `worker` with this name. It replaces the
    /// worker with the same name.
    #[cfg(feature = "nats")]
    pub fn add_nats_worker<E>(&self, name: impl Into<String>, worker: &crate::nats::Worker<E>) {
        self.inner.nats_workers.add(name.into(), worker.metrics_source());
    }
}

#[cfg(feature = "events")]
impl Collector {
    fn encode_buses(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut scraped = self.inner.buses.scrape();
        sources::encode("bus", families::BUS, &mut scraped, encoder)?;
        let labels = ["bus", "subscription"];
        sources::encode_parts(
            labels,
            families::SUBSCRIPTION,
            &scraped,
            |sample| &sample.subscriptions,
            |subscription| &subscription.name,
            encoder,
        )
    }
}

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        sources::encode("pool", families::POOL, &mut self.inner.pools.scrape(), &mut encoder)?;
        #[cfg(feature = "events")]
        self.encode_buses(&mut encoder)?;
        #[cfg(feature = "nats")]
        sources::encode("worker", families::NATS_WORKER, &mut self.inner.nats_workers.scrape(), &mut encoder)?;
        Ok(())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Collector");
        shown.field("pools", &self.inner.pools.names());
        #[cfg(feature = "events")]
        shown.field("buses", &self.inner.buses.names());
        #[cfg(feature = "nats")]
        shown.field("nats_workers", &self.inner.nats_workers.names());
        shown.finish()
    }
}
