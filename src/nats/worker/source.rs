//! What a snapshot of a pool sees of a run: the counters of its worker.

use super::config::ConsumerConfig;
use super::control::Control;
use super::metrics::Counters;
use crate::pool::inner::PoolInner;
use crate::pool::sources::Source;
use crate::snapshot::{Holder, JobWorkerSnapshot};
use crate::sync::Arc;
use crate::task::job::Leftovers;

/// A run of a worker on a pool. Snapshots show it until it is dropped.
pub(super) struct RunSource {
    config: Arc<ConsumerConfig>,
    counters: Arc<Counters>,
    control: Arc<Control>,
}

impl RunSource {
    /// Adds a run to a pool.
    pub(super) fn add(
        pool: &PoolInner,
        config: &Arc<ConsumerConfig>,
        counters: &Arc<Counters>,
        control: &Arc<Control>,
    ) -> Arc<Self> {
        let (config, counters, control) = (Arc::clone(config), Arc::clone(counters), Arc::clone(control));
        let source = Arc::new(Self { config, counters, control });
        pool.sources.add(&source);
        source
    }
}

impl Source for RunSource {
    fn snapshot(&self, _: &mut Leftovers) -> Holder {
        let mut metrics = self.counters.snapshot();
        self.control.add_to(&mut metrics);
        Holder::JobWorker(JobWorkerSnapshot {
            name: self.config.consumer.as_str().into(),
            stream: Arc::clone(&self.config.stream),
            slots: metrics.slots,
            in_flight: metrics.jobs_in_flight,
            pending: metrics.jobs_pending,
            is_paused: metrics.is_paused,
        })
    }
}
