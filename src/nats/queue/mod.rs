//! A queue of jobs that outlives processes: a JetStream stream, from which a job is removed when it
//! is acknowledged.

pub(crate) mod enqueue;
pub(crate) mod delay;
pub(crate) mod dead_letter;
pub(crate) mod letters;
pub(crate) mod stream_settings;
pub(crate) mod plan;
pub(crate) mod status;

use std::fmt;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use self::stream_settings::StreamSettings;
use crate::nats::check::{self, InvalidArgument};
use crate::nats::config_diff;
use crate::nats::core::connection::Connection;
use crate::nats::core::inner::{ConnectionInner, WaitError};
use crate::nats::error::QueueError;
use crate::sync::Arc;
use crate::unwind;

/// The default time for which an id is remembered, which is the server's own default.
const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A queue of jobs on a JetStream server. Built by [`JobQueue::builder`]. Clones share it.
///
/// A job is stored before [`enqueue`](Self::enqueue) returns. It stays stored until a
/// [`Worker`](crate::nats::Worker) has done it, or moved it to the dead letters. Any number of
/// processes on any number of machines may enqueue and work.
///
/// # Examples
///
/// ```no_run
/// use workcrew::WorkerPool;
/// use workcrew::nats::{Connection, JobQueue};
///
/// let pool = WorkerPool::new()?;
/// let connection = Connection::builder("127.0.0.1:4222").connect(&pool)?;
/// let builder = JobQueue::builder(&connection, "RESIZE");
/// let queue = builder.subject("resize.*").max_jobs(100_000).open()?;
/// let first = queue.enqueue("resize.small", "image 7", "resize-7")?;
/// let again = queue.enqueue("resize.small", "image 7", "resize-7")?;
/// assert!(!first.is_duplicate() && again.is_duplicate());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JobQueue {
    pub(crate) connection: Arc<ConnectionInner>,
    /// The name of the stream.
    pub(crate) name: Arc<str>,
    /// The subject of dead letters.
    pub(crate) dead_subject: Arc<str>,
    /// The age at which the server deletes a job; `None`: never.
    pub(crate) max_age: Option<Duration>,
}

/// A builder of queues. Returned by [`JobQueue::builder`]. Setters only store, and
/// [`open`](Self::open) checks the settings.
#[must_use = "a builder does nothing until `open` is called"]
#[derive(Clone)]
pub struct JobQueueBuilder {
    connection: Arc<ConnectionInner>,
    config: Config,
    /// `None`: derived from the name.
    dead_subject: Option<String>,
    /// `None`: jobs stay.
    max_age: Option<Duration>,
    /// `None`: two minutes, or the age if that is shorter.
    duplicate_window: Option<Duration>,
    settings: StreamSettings,
}

impl JobQueueBuilder {
    /// Adds a subject of the queue's jobs; `*` stands for one word, `>` for all words that follow.
    /// *Default: `NAME.>`, where `NAME` is that of the queue.*
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.config.subjects.push(subject.into());
        self
    }

    /// Limits the number of stored jobs, running ones included. At the limit, enqueueing fails with
    /// [`EnqueueError::Full`](crate::nats::EnqueueError). *Default: no limit.*
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.config.max_messages = saturate(jobs);
        self
    }

    /// Limits the bytes of all stored jobs, headers included. *Default: no limit.*
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.config.max_bytes = saturate(bytes);
        self
    }

    /// Sets the age at which a job that is not done is *deleted*. *Default: never.*
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets how long the id of a job is remembered, done or not. A job with a remembered id is a
    /// duplicate. Each id costs memory of the server. *Default: 2 minutes.*
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = Some(window);
        self
    }

    /// Sets how many servers of a cluster store each job: 1, 3 or 5. *Default: 1.*
    pub fn replicas(mut self, servers: usize) -> Self {
        self.config.num_replicas = servers;
        self
    }

    /// Stores jobs in memory: faster, but lost when the server restarts.
    pub fn in_memory(mut self) -> Self {
        self.config.storage = StorageType::Memory;
        self
    }

    /// Sets the subject of dead letters. They are stored in a stream of their own, `NAME_DEAD`,
    /// without a limit and as safely as the jobs. *Default: `dead.NAME`.*
    pub fn dead_letters(mut self, subject: impl Into<String>) -> Self {
        self.dead_subject = Some(subject.into());
        self
    }

    /// Sets less common settings: the size of jobs, limits per subject, compression, placement,
    /// metadata.
    pub fn stream_settings(mut self, settings: StreamSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Creates the streams, or checks that they exist with exactly these settings. Never changes an
    /// existing stream; see [`plan`](Self::plan). Blocks for at most twice the connection's
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`QueueError::Invalid`] names a setting that was refused before anything was sent.
    /// [`QueueError::Differs`] names each setting that is not as requested.
    pub fn open(self) -> Result<JobQueue, QueueError> {
        let QueueConfig { connection, name, streams, dead_subject } = self.config()?;
        open(connection, name, &streams, dead_subject)
    }

    /// Checks the settings, and returns the configuration of the streams.
    pub(crate) fn config(self) -> Result<QueueConfig, QueueError> {
        let Self { connection, mut config, dead_subject, max_age, duplicate_window, settings } = self;
        let name = config.name.clone();
        check::name("name of the queue", &name)?;
        if config.subjects.is_empty() {
            config.subjects.push(format!("{name}.>"));
        }
        check::filters("subject", &config.subjects)?;
        if config.subjects.iter().any(|subject| subject.starts_with('$')) {
            return Err(InvalidArgument::new("subject", "subjects that begin with $ belong to the server").into());
        }
        let dead_subject = dead_subject.unwrap_or_else(|| format!("dead.{name}"));
        check::job_subject("dead_letters", &dead_subject)?;
        if config.subjects.iter().any(|subject| check::is_match(subject, &dead_subject)) {
            return Err(InvalidArgument::new("dead_letters", "it is a subject of the queue itself").into());
        }
        check::positive("max_jobs", config.max_messages.unsigned_abs())?;
        check::positive("max_bytes", config.max_bytes.unsigned_abs())?;
        check::replicas(config.num_replicas)?;
        if let Some(age) = max_age {
            check::server_time("max_age", age)?;
            config.max_age = age;
            // The server accepts no window longer than the age.
            config.duplicate_window = config.duplicate_window.min(age);
        }
        if let Some(window) = duplicate_window {
            check::server_time("duplicate_window", window)?;
            if max_age.is_some_and(|age| window > age) {
                return Err(InvalidArgument::new("duplicate_window", "it is longer than max_age").into());
            }
            config.duplicate_window = window;
        }
        settings.apply(&mut config)?;
        let dead = Config {
            name: dead_letter::stream_of(&name),
            subjects: vec![dead_subject.clone()],
            retention: RetentionPolicy::Limits,
            num_replicas: config.num_replicas,
            storage: config.storage,
            placement: config.placement.clone(),
            ..base_config()
        };
        Ok(QueueConfig { connection, name, streams: vec![config, dead], dead_subject })
    }
}

/// The configuration that a builder describes.
pub(crate) struct QueueConfig {
    pub(crate) connection: Arc<ConnectionInner>,
    pub(crate) name: String,
    /// The stream of the jobs, and that of the dead letters.
    pub(crate) streams: Vec<Config>,
    pub(crate) dead_subject: String,
}

/// Creates or checks the streams of a queue.
pub(crate) fn open(
    connection: Arc<ConnectionInner>,
    name: String,
    streams: &[Config],
    dead_subject: String,
) -> Result<JobQueue, QueueError> {
    for wanted in streams {
        let calls = ["INFO", "CREATE"].map(|call| format!("STREAM.{call}.{}", wanted.name));
        connection.wait(connection.permitted_api(&calls, create_or_check(&connection.jetstream, wanted)))???;
    }
    let max_age = streams.first().map(|jobs| jobs.max_age).filter(|age| !age.is_zero());
    Ok(JobQueue { connection, name: name.into(), dead_subject: dead_subject.into(), max_age })
}

impl JobQueue {
    /// Configures a queue. The name is that of its stream: letters, digits, `-` and `_`.
    pub fn builder(connection: &Connection, name: &str) -> JobQueueBuilder {
        let config = Config { name: name.to_owned(), retention: RetentionPolicy::WorkQueue, ..base_config() };
        JobQueueBuilder {
            connection: Arc::clone(&connection.inner),
            config,
            dead_subject: None,
            max_age: None,
            duplicate_window: None,
            settings: StreamSettings::default(),
        }
    }

    /// Returns the name of the queue and its stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the subject of its dead letters.
    #[must_use]
    pub fn dead_subject(&self) -> &str {
        &self.dead_subject
    }

    /// Returns the number of stored jobs: waiting ones, running ones, and those that wait for
    /// another attempt.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn len(&self) -> Result<u64, QueueError> {
        self.stored_in(&self.name)
    }

    /// Returns `true` if no job is stored.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn is_empty(&self) -> Result<bool, QueueError> {
        Ok(self.len()? == 0)
    }

    pub(crate) fn stored_in(&self, stream: &str) -> Result<u64, QueueError> {
        self.look_up(&[format!("STREAM.INFO.{stream}")], async {
            Ok(self.connection.jetstream.get_stream(stream).await?.cached_info().state.messages)
        })
    }

    /// Waits for a request that consists of these API calls, for at most the connection's timeout.
    pub(crate) fn look_up<T>(
        &self,
        calls: &[String],
        looking: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        self.connection.wait(self.connection.permitted_api(calls, looking))??
    }
}

/// Creates a stream, or checks the existing one.
async fn create_or_check(jetstream: &jetstream::Context, wanted: &Config) -> Result<(), QueueError> {
    let stream = jetstream.get_or_create_stream(wanted).await?;
    let differences = config_diff::of_stream(wanted, &stream.cached_info().config);
    if differences.is_empty() {
        return Ok(());
    }
    Err(QueueError::Differs { stream: wanted.name.clone(), differences })
}

impl From<CreateStreamError> for QueueError {
    fn from(error: CreateStreamError) -> Self {
        use CreateStreamErrorKind::{JetStreamUnavailable, Response, ResponseParse, TimedOut};
        match error.kind() {
            JetStreamUnavailable | TimedOut | Response | ResponseParse => Self::Unavailable(error.into()),
            _ => Self::Rejected(error.into()),
        }
    }
}

impl From<GetStreamError> for QueueError {
    fn from(error: GetStreamError) -> Self {
        match error.kind() {
            GetStreamErrorKind::Request => Self::Unavailable(error.into()),
            _ => Self::Rejected(error.into()),
        }
    }
}

impl From<WaitError> for QueueError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout => Self::Unavailable("no answer in time".into()),
            WaitError::OnIoThread => Self::WouldDeadlock,
        }
    }
}

unwind::safe!(JobQueue);

impl fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobQueue")
            .field("name", &self.name)
            .field("dead_subject", &self.dead_subject)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JobQueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobQueueBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Returns the settings that all streams share. A full stream refuses new messages and loses none.
fn base_config() -> Config {
    Config {
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        duplicate_window: DEFAULT_DUPLICATE_WINDOW,
        num_replicas: 1,
        ..Config::default()
    }
}

fn saturate(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
