//! Less common settings of streams.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::{Compression, Config, Placement};

use crate::nats::check::{self, InvalidArgument};

/// Less common settings of a queue's stream. Set the fields of a default value, and pass it to
/// [`JobQueueBuilder::stream_settings`](crate::nats::JobQueueBuilder::stream_settings).
///
/// A server that is too old for a setting ignores it.
/// [`JobQueueBuilder::open`](crate::nats::JobQueueBuilder::open) reads the settings back and
/// returns [`QueueError::Differs`](crate::nats::QueueError::Differs) then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSettings {
    /// The largest job in bytes, headers included. *Default: the server's limit for any message.*
    pub max_job_bytes: Option<u32>,
    /// The largest number of jobs of one subject. At the limit, enqueueing fails with
    /// [`EnqueueError::Full`](crate::nats::EnqueueError). *Default: no limit.*
    pub max_jobs_per_subject: Option<u64>,
    /// Compresses jobs that are stored in files. Needs server 2.10 or later. *Default: no.*
    pub compression: bool,
    /// The cluster whose servers store the jobs. *Default: the server's choice.*
    pub cluster: Option<String>,
    /// Tags of the servers that may store the jobs. *Default: none.*
    pub tags: Vec<String>,
    /// A description for the server's tools. *Default: none.*
    pub description: Option<String>,
    /// Names and values for the server's tools. Needs server 2.10 or later. *Default: none.*
    pub metadata: BTreeMap<String, String>,
}

impl StreamSettings {
    /// Checks the settings and writes them into those of a stream.
    pub(crate) fn apply(self, config: &mut Config) -> Result<(), InvalidArgument> {
        if let Some(bytes) = self.max_job_bytes {
            check::positive("max_job_bytes", bytes.into())?;
            config.max_message_size = i32::try_from(bytes).unwrap_or(i32::MAX);
        }
        if let Some(jobs) = self.max_jobs_per_subject {
            check::positive("max_jobs_per_subject", jobs)?;
            config.max_messages_per_subject = i64::try_from(jobs).unwrap_or(i64::MAX);
            config.discard_new_per_subject = true;
        }
        self.cluster.iter().try_for_each(|cluster| check::group("cluster", cluster))?;
        self.tags.iter().try_for_each(|tag| check::group("tags", tag))?;
        check::descriptions(self.description.as_deref(), &self.metadata)?;
        config.compression = self.compression.then_some(Compression::S2);
        if self.cluster.is_some() || !self.tags.is_empty() {
            config.placement = Some(Placement { cluster: self.cluster, tags: self.tags });
        }
        config.description = self.description;
        config.metadata = self.metadata.into_iter().collect();
        Ok(())
    }
}
