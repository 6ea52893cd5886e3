//! The [`Collector`].

use std::fmt;

use prometheus_client::collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::families;
use super::sources::Sources;
use crate::observe::metrics::Metrics;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;

/// A collector of the metrics of pools and NATS workers, for a registry of `prometheus-client`.
///
/// It reads each pool and worker when it is scraped, and keeps none of them alive. What was dropped
/// is shown no longer. Clones share what was added, so pools may be added after the collector has
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

    /// Adds a NATS worker, whose metrics have the label `worker` with this name. It replaces the
    /// worker with the same name.
    #[cfg(feature = "nats")]
    pub fn add_nats_worker<E>(&self, name: impl Into<String>, worker: &crate::nats::Worker<E>) {
        self.inner.nats_workers.add(name.into(), worker.metrics_source());
    }
}

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.inner.pools.encode("pool", families::POOL, &mut encoder)?;
        #[cfg(feature = "nats")]
        self.inner.nats_workers.encode("worker", families::NATS_WORKER, &mut encoder)?;
        Ok(())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Collector");
        shown.field("pools", &self.inner.pools.names());
        #[cfg(feature = "nats")]
        shown.field("nats_workers", &self.inner.nats_workers.names());
        shown.finish()
    }
}
