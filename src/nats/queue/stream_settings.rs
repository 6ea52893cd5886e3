//! Settings of streams that few users need, and changing those of streams that exist.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::{Compression, Config, Placement};

use crate::nats::check::{self, InvalidArgument};

/// Settings of a queue's stream that few users need. Set the fields of a default value, and give it to
/// [`JobQueueBuilder::stream_settings`].
///
/// A server that is too old for a setting leaves it out. [`JobQueueBuilder::open`] reads the settings
/// back and returns [`QueueError::Differs`] then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSettings {
    /// The most bytes of a job, headers included. *Default: what the server allows for any message.*
    pub max_job_bytes: Option<u32>,
    /// The most jobs of one subject. Past it [`EnqueueError::Full`](crate::nats::EnqueueError).
    /// *Default: no limit.*
    pub max_jobs_per_subject: Option<u64>,
    /// Compresses what is stored in files. Needs a server from 2.10 on. *Default: no.*
    pub compression: bool,
    /// The cluster whose servers store the jobs. *Default: the server's choice.*
    pub cluster: Option<String>,
    /// Tags that the servers which store the jobs must have. *Default: none.*
    pub tags: Vec<String>,
    /// A text that the server's tools show. *Default: none.*
    pub description: Option<String>,
    /// Names and values that the server's tools show. Needs a server from 2.10 on. *Default: none.*
    pub metadata: BTreeMap<String, String>,
}

impl StreamSettings {
    /// Writes the settings into those of a stream, checked.
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
