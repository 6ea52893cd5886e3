//! Settings of consumers that few users need.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull::Config;

use crate::nats::check::{self, Checked};

/// Settings of a worker's consumer that few users need. Set the fields of a default value, and give it to
/// [`WorkerBuilder::consumer_settings`](crate::nats::WorkerBuilder::consumer_settings).
///
/// All workers of one name must agree. A server that is too old for a setting leaves it out; the run then ends
/// with [`WorkerError::Differs`](crate::nats::WorkerError).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerSettings {
    /// On how many servers of a cluster the state of the consumer is stored, 1 to 5. *Default: as many as the
    /// jobs.*
    pub replicas: Option<usize>,
    /// Keeps the state of the consumer in memory, also if the jobs are in files. After a restart of the server
    /// jobs are delivered again that were running, and attempts are counted from one. *Default: no.*
    pub memory_storage: bool,
    /// How many requests for jobs the server keeps for all workers of the name; each worker has at most five.
    /// *Default: 4,096.* Cannot be changed later.
    pub max_waiting: Option<u32>,
    /// A text that the server's tools show. *Default: none.*
    pub description: Option<String>,
    /// Names and values that the server's tools show. Needs a server from 2.10 on. *Default: none.*
    pub metadata: BTreeMap<String, String>,
}

impl ConsumerSettings {
    pub(crate) fn check(&self) -> Checked {
        if let Some(replicas) = self.replicas {
            check::replicas(replicas)?;
        }
        check::positive("max_waiting", self.max_waiting.unwrap_or(1).into())?;
        check::descriptions(self.description.as_deref(), &self.metadata)
    }

    /// Writes the settings into those of a consumer.
    pub(crate) fn apply(&self, config: &mut Config) {
        config.num_replicas = self.replicas.unwrap_or(0);
        config.memory_storage = self.memory_storage;
        if let Some(requests) = self.max_waiting {
            config.max_waiting = requests.into();
        }
        config.description.clone_from(&self.description);
        config.metadata = self.metadata.clone().into_iter().collect();
    }
}
