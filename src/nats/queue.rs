//! A queue of jobs that outlives processes: a JetStream stream, from which a job is gone when it is acknowledged.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};

use super::connection::{Connection, Link, WaitError};
use super::dead_letter::{self, DeadLetter};
use super::error::{EnqueueError, QueueError};
use super::payload::Encode;
use super::settings;
use crate::sync::Arc;

/// For how long an id is remembered unless told otherwise; the server's own default.
const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A queue of jobs on a JetStream server. From [`JobQueue::builder`]. Clones share it.
///
/// A job is stored before [`enqueue`](Self::enqueue) returns, and stays until a [`Worker`](super::Worker) has done it,
/// or put it among the dead letters. Many processes on many machines may enqueue and work.
///
/// # Examples
///
/// ```no_run
/// use workcrew::WorkerPool;
/// use workcrew::nats::{Connection, JobQueue};
///
/// let pool = WorkerPool::new()?;
/// let connection = Connection::builder("127.0.0.1:4222").connect(&pool)?;
/// let queue = JobQueue::builder(&connection, "RESIZE").subject("resize.*").max_jobs(100_000).open()?;
/// let first = queue.enqueue("resize.small", "image 7", "resize-7")?;
/// let again = queue.enqueue("resize.small", "image 7", "resize-7")?;
/// assert!(!first.is_duplicate() && again.is_duplicate());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JobQueue {
    pub(super) link: Arc<Link>,
    /// The name of the stream.
    pub(super) name: Arc<str>,
    /// Where dead letters are published to.
    pub(super) dead_subject: Arc<str>,
}

/// Configures a queue. From [`JobQueue::builder`]. Setters only store; [`open`](Self::open) checks.
#[must_use = "a builder does nothing until `open` is called"]
#[derive(Clone)]
pub struct JobQueueBuilder {
    link: Arc<Link>,
    config: Config,
    /// `None`: made of the name.
    dead_subject: Option<String>,
}

impl JobQueueBuilder {
    /// A subject that the queue takes jobs of, one more with each call; `*` stands for one word, `>` for all that follow.
    /// Unless set, the queue's name and what follows it: `NAME.>`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.config.subjects.push(subject.into());
        self
    }

    /// The most jobs that the queue holds, those that are being worked on included. Past it [`EnqueueError::Full`].
    /// Unless set, there is no limit.
    pub fn max_jobs(mut self, jobs: u64) -> Self {
        self.config.max_messages = saturate(jobs);
        self
    }

    /// The most bytes that the queue holds, headers included. Unless set, there is no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.config.max_bytes = saturate(bytes);
        self
    }

    /// After which time a job that nobody has done is *deleted*. Unless set, never.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.config.max_age = age;
        self
    }

    /// For how long the id of a job is remembered, done or not: one that is enqueued again meanwhile is a duplicate. Unless
    /// set, 2 minutes. Costs memory of the server for each id.
    pub fn duplicate_window(mut self, window: Duration) -> Self {
        self.config.duplicate_window = window;
        self
    }

    /// On how many servers of a cluster each job is stored, 1, 3 or 5. Unless set, 1.
    pub fn replicas(mut self, servers: usize) -> Self {
        self.config.num_replicas = servers;
        self
    }

    /// Stores jobs in memory: faster, and gone when the server is restarted.
    pub fn in_memory(mut self) -> Self {
        self.config.storage = StorageType::Memory;
        self
    }

    /// The subject of dead letters. Unless set, `dead.NAME`. They are stored in a stream of their own, `NAME_DEAD`, without a
    /// limit and as safely as the jobs.
    pub fn dead_letters(mut self, subject: impl Into<String>) -> Self {
        self.dead_subject = Some(subject.into());
        self
    }

    /// Creates the streams, or finds that they exist with these very settings. An existing stream is never changed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Differs`] names each setting that is not what was asked for.
    pub fn open(self) -> Result<JobQueue, QueueError> {
        let Self { link, mut config, dead_subject } = self;
        let name = config.name.clone();
        if config.subjects.is_empty() {
            config.subjects.push(format!("{name}.>"));
        }
        let dead_subject = dead_subject.unwrap_or_else(|| format!("dead.{name}"));
        let dead = Config {
            name: dead_letter::stream_of(&name),
            subjects: vec![dead_subject.clone()],
            retention: RetentionPolicy::Limits,
            num_replicas: config.num_replicas,
            storage: config.storage,
            ..plain()
        };
        let opening = async {
            for wanted in [&config, &dead] {
                create_or_check(&link.jetstream, wanted).await?;
            }
            Ok::<_, QueueError>(())
        };
        link.wait(opening)??;
        Ok(JobQueue { link, name: name.into(), dead_subject: dead_subject.into() })
    }
}

/// What the store says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    sequence: u64,
    is_duplicate: bool,
}

impl Enqueued {
    /// The place of the job in the stream; of a duplicate, that of the job that came first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a job of this id had been stored before, so that this one was not.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }
}

impl JobQueue {
    /// Configures a queue. The name is that of its stream: letters, digits, `-` and `_`.
    pub fn builder(connection: &Connection, name: &str) -> JobQueueBuilder {
        let config = Config { name: name.to_owned(), retention: RetentionPolicy::WorkQueue, ..plain() };
        JobQueueBuilder { link: Arc::clone(&connection.link), config, dead_subject: None }
    }

    /// The name of the queue and its stream.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its dead letters are published to.
    #[must_use]
    pub fn dead_subject(&self) -> &str {
        &self.dead_subject
    }

    /// Stores a job, and blocks until the store confirms it, for the time of an answer at most.
    ///
    /// The `id` says which job it is: one that is enqueued again within the [duplicate
    /// window](JobQueueBuilder::duplicate_window) is stored once. So an enqueueing of which nothing is known is repeated.
    ///
    /// # Errors
    ///
    /// [`EnqueueError`].
    pub fn enqueue(
        &self,
        subject: &str,
        payload: &(impl Encode + ?Sized),
        id: impl AsRef<str>,
    ) -> Result<Enqueued, EnqueueError> {
        let bytes = payload.encode().map_err(EnqueueError::Encode)?;
        self.store(subject, PublishMessage::build().payload(bytes.into()).message_id(id))
    }

    /// How many jobs are stored: those that wait, those that are being worked on, those that wait for another attempt.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn len(&self) -> Result<u64, QueueError> {
        self.stored_in(&self.name)
    }

    /// Whether no job is stored.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn is_empty(&self) -> Result<bool, QueueError> {
        Ok(self.len()? == 0)
    }

    fn store(&self, subject: &str, message: PublishMessage) -> Result<Enqueued, EnqueueError> {
        if !self.link.is_connected() {
            return Err(EnqueueError::Disconnected);
        }
        let message = message.expected_stream(&self.name);
        let storing = async { self.link.jetstream.send_publish(subject.to_owned(), message).await?.await };
        let ack = match self.link.wait(storing) {
            Ok(stored) => stored?,
            Err(WaitError::Timeout) => return Err(EnqueueError::Timeout),
            Err(WaitError::OnIoThread) => return Err(EnqueueError::WouldDeadlock),
        };
        Ok(Enqueued { sequence: ack.sequence, is_duplicate: ack.duplicate })
    }

    fn stored_in(&self, stream: &str) -> Result<u64, QueueError> {
        let looking = async { Ok(self.link.jetstream.get_stream(stream).await?.cached_info().state.messages) };
        self.link.wait(looking)?
    }
}

/// # Dead letters
impl JobQueue {
    /// How many dead letters are stored.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn dead_letters_len(&self) -> Result<u64, QueueError> {
        self.stored_in(&dead_letter::stream_of(&self.name))
    }

    /// The oldest dead letters, so many at most. They stay where they are. Costs a question to the server for each.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let looking = async {
            let stream = self.dead_stream().await?;
            let (mut letters, mut next) = (Vec::new(), 1);
            while letters.len() < most {
                let question = stream.raw_message_builder().sequence(next).next_by_subject(&*self.dead_subject);
                match question.send().await {
                    Ok(message) => {
                        next = message.sequence + 1;
                        letters.push(DeadLetter::new(message));
                    }
                    Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => break,
                    Err(error) => return Err(QueueError::Unavailable(error.into())),
                }
            }
            Ok(letters)
        };
        self.link.wait(looking)?
    }

    /// Enqueues the job of a dead letter again, and takes the letter out.
    ///
    /// The job keeps its payload, its headers and its [id](super::Job::id). Its count of attempts begins
    /// anew. If this fails half-way, repeat it: within the duplicate window the job is enqueued once.
    ///
    /// # Errors
    ///
    /// [`QueueError`], also if the letter was taken out before, or [holds no
    /// payload](DeadLetter::is_without_payload). A letter that was there stays there then.
    pub fn requeue(&self, letter: &DeadLetter) -> Result<Enqueued, QueueError> {
        if letter.is_without_payload() {
            return Err(QueueError::Rejected("the letter does not hold the payload of the job".into()));
        }
        self.look_up(async { letter.check(&self.dead_stream().await?).await })?;
        let enqueued = self.store(letter.subject(), letter.revived(&self.name)).map_err(QueueError::Requeue)?;
        if enqueued.is_duplicate {
            self.look_up(async {
                let jobs = self.link.jetstream.get_stream_no_info(&*self.name).await?;
                letter.check_duplicate(&jobs, &self.name, enqueued.sequence).await
            })?;
        }
        self.discard_dead_letter(letter)?;
        Ok(enqueued)
    }

    /// Takes a dead letter out for good.
    ///
    /// Does not touch another letter that has its place by now, after the stream was made anew. A stream
    /// that is made anew in the very moment between the check and the removal is the exception.
    ///
    /// # Errors
    ///
    /// [`QueueError`], also if the letter was taken out before.
    pub fn discard_dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        self.look_up(async {
            let stream = self.dead_stream().await?;
            letter.check(&stream).await?;
            let deleted = stream.delete_message(letter.sequence()).await;
            deleted.map(|_| ()).map_err(|error| QueueError::Rejected(error.into()))
        })
    }

    /// Waits for what is asked of the server.
    fn look_up<T>(&self, looking: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
        self.link.wait(looking)?
    }

    async fn dead_stream(&self) -> Result<Stream<()>, QueueError> {
        let name = dead_letter::stream_of(&self.name);
        self.link.jetstream.get_stream_no_info(name).await.map_err(QueueError::from)
    }
}

/// Creates a stream, or checks the one that exists.
async fn create_or_check(jetstream: &jetstream::Context, wanted: &Config) -> Result<(), QueueError> {
    let stream = jetstream.get_or_create_stream(wanted).await?;
    let differences = settings::of_stream(wanted, &stream.cached_info().config);
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

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for JobQueue {}
impl RefUnwindSafe for JobQueue {}

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

/// What all streams have in common: nothing is lost when they are full.
fn plain() -> Config {
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
