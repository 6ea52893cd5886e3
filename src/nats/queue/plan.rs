//! Changes the streams of an existing queue, and shows the differences first.

use std::fmt;

use async_nats::jetstream::stream::Config;

use super::{JobQueue, JobQueueBuilder, QueueConfig};
use crate::nats::config_diff::{self, ConfigMismatch};
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::QueueError;
use crate::sync::Arc;

/// The changes that would give a queue's streams the settings of a builder. From
/// [`JobQueueBuilder::plan`].
#[must_use = "a plan changes nothing until `apply` is called"]
pub struct QueuePlan {
    connection: Arc<ConnectionInner>,
    dead_subject: String,
    streams: Vec<StreamPlan>,
}

/// The changes of one stream.
struct StreamPlan {
    wanted: Config,
    /// `None` if the stream does not exist yet.
    found: Option<Config>,
    differences: Vec<ConfigMismatch>,
}

impl QueuePlan {
    /// Returns the settings that would change, each with the name of its stream.
    pub fn differences(&self) -> impl Iterator<Item = (&str, &ConfigMismatch)> {
        let streams = self.streams.iter();
        streams.flat_map(|stream| stream.differences.iter().map(|difference| (&*stream.wanted.name, difference)))
    }

    /// Returns the names of the streams that would be created.
    pub fn created(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().filter(|stream| stream.found.is_none()).map(|stream| &*stream.wanted.name)
    }

    /// Returns `true` if the streams exist with exactly these settings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.found.is_some() && stream.differences.is_empty())
    }

    /// Creates missing streams, changes those that differ, and opens the queue. Settings that
    /// [`differences`](Self::differences) does not list stay as they are.
    ///
    /// # Errors
    ///
    /// [`QueueError::Rejected`] for a setting that cannot be changed, such as the storage.
    /// [`QueueError::Differs`] if the server accepted the change and kept another value. If the
    /// second stream fails, a change of the first stays.
    pub fn apply(self) -> Result<JobQueue, QueueError> {
        let name = self.streams[0].wanted.name.clone();
        for StreamPlan { wanted, found, differences } in &self.streams {
            if let (Some(found), false) = (found, differences.is_empty()) {
                let changed = merged(wanted, found);
                let calls = [format!("STREAM.UPDATE.{}", wanted.name)];
                let update = async { self.connection.jetstream.update_stream(&changed).await };
                self.connection.wait(self.connection.permitted_api(&calls, update))???;
            }
        }
        let wanted: Vec<_> = self.streams.into_iter().map(|stream| stream.wanted).collect();
        super::open(self.connection, name, &wanted, self.dead_subject)
    }
}

impl fmt::Debug for QueuePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePlan")
            .field("created", &self.created().collect::<Vec<_>>())
            .field("differences", &self.differences().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl JobQueueBuilder {
    /// Finds out what [`apply`](QueuePlan::apply) would change. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use workcrew::WorkerPool;
    /// use workcrew::nats::{Connection, JobQueue};
    ///
    /// let pool = WorkerPool::new()?;
    /// let connection = Connection::builder("127.0.0.1:4222").connect(&pool)?;
    /// let plan = JobQueue::builder(&connection, "RESIZE").max_jobs(200_000).plan()?;
    /// for (stream, difference) in plan.differences() {
    ///     println!("{stream}: {difference}");
    /// }
    /// let queue = plan.apply()?;
    /// queue.enqueue("RESIZE.small", "image 7", "7")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn plan(self) -> Result<QueuePlan, QueueError> {
        let QueueConfig { connection, streams, dead_subject, .. } = self.config()?;
        let mut plans = Vec::new();
        for wanted in streams {
            let looking = async { connection.jetstream.get_stream(&wanted.name).await };
            let calls = [format!("STREAM.INFO.{}", wanted.name)];
            let found = match connection.wait(connection.permitted_api(&calls, looking))?? {
                Ok(stream) => Some(stream.cached_info().config.clone()),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error.into()),
            };
            let differences = found.as_ref().map_or_else(Vec::new, |found| config_diff::of_stream(&wanted, found));
            plans.push(StreamPlan { wanted, found, differences });
        }
        Ok(QueuePlan { connection, dead_subject, streams: plans })
    }
}

fn is_missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
    matches!(error.kind(), GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Returns the settings on the server, with those of this crate replaced.
fn merged(wanted: &Config, found: &Config) -> Config {
    let mut config = found.clone();
    config.subjects.clone_from(&wanted.subjects);
    config.retention = wanted.retention;
    config.discard = wanted.discard;
    config.discard_new_per_subject = wanted.discard_new_per_subject;
    config.max_messages = wanted.max_messages;
    config.max_bytes = wanted.max_bytes;
    config.max_messages_per_subject = wanted.max_messages_per_subject;
    config.max_message_size = wanted.max_message_size;
    config.max_age = wanted.max_age;
    config.duplicate_window = wanted.duplicate_window;
    config.num_replicas = wanted.num_replicas;
    config.storage = wanted.storage;
    config.no_ack = wanted.no_ack;
    config.deny_delete = wanted.deny_delete;
    config.compression.clone_from(&wanted.compression);
    if wanted.placement.is_some() {
        config.placement.clone_from(&wanted.placement);
    }
    if wanted.description.is_some() {
        config.description.clone_from(&wanted.description);
    }
    for (name, value) in &wanted.metadata {
        config.metadata.insert(name.clone(), value.clone());
    }
    config
}
