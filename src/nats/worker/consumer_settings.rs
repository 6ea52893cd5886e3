//! Less common settings of consumers.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::pull::Config;

use crate::nats::check::{self, Checked};

/// Less common settings of a worker's consumer. Set the fields of a default value, and pass it to
/// [`WorkerBuilder::consumer_settings`](crate::nats::WorkerBuilder::consumer_settings).
///
/// All workers of one name must agree. A server that is too old for a setting ignores it; the run
/// then ends with [`WorkerError::Differs`](crate::nats::WorkerError).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerSettings {
    /// The number of servers of a cluster that store the state of the consumer, 1 to 5. *Default:
    /// as many as the jobs.*
    pub replicas: Option<usize>,
    /// Keeps the state of the consumer in memory, even if the jobs are in files. After a restart of
    /// the server, jobs that were running are delivered again, and attempts are counted from one.
    /// *Default: no.*
    pub memory_storage: bool,
    /// How many requests for jobs the server keeps for all workers of the name; each worker has at
    /// most five. *Default: 4,096.* Cannot be changed later.
    pub max_waiting: Option<u32>,
    /// A description for the server's tools. *Default: none.*
    pub description: Option<String>,
    /// Names and values for the server's tools. Needs server 2.10 or later. *Default: none.*
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
