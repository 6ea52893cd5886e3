//! Reads dead letters, and requeues or discards them.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind, Stream};
use futures_core::Stream as _;

use super::JobQueue;
use super::dead_letter::{self, DeadLetter, DeadLetterReason};
use super::enqueue::Enqueued;
use crate::nats::check;
use crate::nats::error::QueueError;

/// How many letters are requested at once.
const PAGE: usize = 64;
/// How many bytes are requested at once, unless a single message may be larger.
const PAGE_BYTES: usize = 8 << 20;
/// How long the server keeps an unused reader.
const READER_EXPIRES: Duration = Duration::from_secs(30);

/// A selection of dead letters to read. Set the fields of a default value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterQuery {
    /// Only letters with a [sequence](DeadLetter::sequence) beyond this. *Default: 0, all letters.*
    pub after: u64,
    /// At most this many. *Default: 100.*
    pub limit: usize,
    /// Only jobs of this subject, which may hold wildcards. Letters of other jobs are transferred
    /// as well, and dropped by the client. *Default: all.*
    pub subject: Option<String>,
    /// Only letters with this reason. *Default: all.*
    pub reason: Option<DeadLetterReason>,
}

impl Default for DeadLetterQuery {
    fn default() -> Self {
        Self { after: 0, limit: 100, subject: None, reason: None }
    }
}

impl DeadLetterQuery {
    fn matches(&self, letter: &DeadLetter) -> bool {
        let is_asked_for = self.subject.as_deref().is_none_or(|filter| check::is_match(filter, letter.subject()));
        is_asked_for && self.reason.is_none_or(|reason| letter.reason() == Some(reason))
    }
}

/// # Dead letters
impl JobQueue {
    /// Returns the number of stored dead letters.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn dead_letters_len(&self) -> Result<u64, QueueError> {
        self.stored_in(&dead_letter::stream_of(&self.name))
    }

    /// Returns the oldest dead letters, at most `most`. They stay stored.
    ///
    /// Costs about one round trip for each 64 letters. Each may take the connection's timeout.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.find_dead_letters(&DeadLetterQuery { limit: most, ..DeadLetterQuery::default() })
    }

    /// Returns the dead letters that match a query, the oldest first. They stay stored.
    ///
    /// For the next page set [`after`](DeadLetterQuery::after) to the sequence of the last letter.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use workcrew::nats::{DeadLetterQuery, JobQueue, QueueError};
    ///
    /// fn requeue_all(queue: &JobQueue) -> Result<(), QueueError> {
    ///     let mut query = DeadLetterQuery::default();
    ///     query.subject = Some("resize.*".to_owned());
    ///     loop {
    ///         let page = queue.find_dead_letters(&query)?;
    ///         let Some(last) = page.last() else { return Ok(()) };
    ///         query.after = last.sequence();
    ///         for letter in &page {
    ///             queue.requeue(letter)?;
    ///         }
    ///     }
    /// }
    /// # let _ = requeue_all;
    /// ```
    pub fn find_dead_letters(&self, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, QueueError> {
        if let Some(subject) = &query.subject {
            check::filter("subject", subject)?;
        }
        let mut found = Vec::new();
        if query.limit == 0 {
            return Ok(found);
        }
        let stream = dead_letter::stream_of(&self.name);
        let calls = [format!("CONSUMER.CREATE.{stream}")];
        let reader = self.look_up(&calls, self.read_dead_letters(query.after))?;
        let calls = [format!("CONSUMER.MSG.NEXT.{stream}.{}", reader.cached_info().name)];
        let outcome = loop {
            match self.look_up(&calls, next_page(&reader, self.connection.client.max_payload())) {
                Err(error) => break Err(error),
                Ok(page) => {
                    let is_last = page.is_empty();
                    found.extend(page.into_iter().map(DeadLetter::new).filter(|letter| query.matches(letter)));
                    if is_last || found.len() >= query.limit {
                        found.truncate(query.limit);
                        break Ok(found);
                    }
                }
            }
        };
        // Otherwise the server removes the reader by itself, after half a minute.
        let calls = [format!("CONSUMER.DELETE.{stream}.{}", reader.cached_info().name)];
        let _ = self.look_up(&calls, async {
            let name = &reader.cached_info().name;
            self.dead_stream().await?.delete_consumer(name).await.map_err(QueueError::from)
        });
        outcome
    }

    /// Creates a consumer that reads the dead letters after a sequence and leaves them stored.
    async fn read_dead_letters(&self, after: u64) -> Result<Consumer<Config>, QueueError> {
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1).max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: READER_EXPIRES,
            memory_storage: true,
            ..Config::default()
        };
        self.dead_stream().await?.create_consumer(config).await.map_err(QueueError::from)
    }

    /// Enqueues the job of a dead letter again, and removes the letter.
    ///
    /// The job keeps its payload, its headers and its [id](crate::nats::Job::id). Its attempts are
    /// counted from one again. If this fails half-way, repeat it: within the duplicate window the
    /// job is enqueued once.
    ///
    /// # Errors
    ///
    /// [`QueueError`], also if the letter was removed before, or [holds no
    /// payload](DeadLetter::is_without_payload). Otherwise the letter stays stored after an error.
    pub fn requeue(&self, letter: &DeadLetter) -> Result<Enqueued, QueueError> {
        if letter.is_without_payload() {
            return Err(QueueError::Rejected("the letter does not hold the job's payload".into()));
        }
        let calls = [format!("STREAM.MSG.GET.{}", dead_letter::stream_of(&self.name))];
        self.look_up(&calls, async { letter.check(&self.dead_stream().await?).await })?;
        let enqueued = self.store(letter.subject(), letter.to_job(&self.name)).map_err(QueueError::Requeue)?;
        if enqueued.is_duplicate() {
            self.look_up(&[format!("STREAM.MSG.GET.{}", self.name)], async {
                let jobs = self.connection.jetstream.get_stream_no_info(&*self.name).await?;
                letter.check_duplicate(&jobs, &self.name, enqueued.sequence()).await
            })?;
        }
        self.discard_dead_letter(letter)?;
        Ok(enqueued)
    }

    /// Removes a dead letter for good.
    ///
    /// Does not touch another letter that has its number by now because the stream was created
    /// again. The exception is a stream that is created again between the check and the removal.
    ///
    /// # Errors
    ///
    /// [`QueueError`], also if the letter was removed before.
    pub fn discard_dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        let calls = ["GET", "DELETE"].map(|call| format!("STREAM.MSG.{call}.{}", dead_letter::stream_of(&self.name)));
        self.look_up(&calls, async {
            let stream = self.dead_stream().await?;
            letter.check(&stream).await?;
            let deleted = stream.delete_message(letter.sequence()).await;
            deleted.map(|_| ()).map_err(|error| QueueError::Rejected(error.into()))
        })
    }

    async fn dead_stream(&self) -> Result<Stream<()>, QueueError> {
        let name = dead_letter::stream_of(&self.name);
        self.connection.jetstream.get_stream_no_info(name).await.map_err(QueueError::from)
    }
}

/// Returns the next letters; none if there are no more.
async fn next_page(reader: &Consumer<Config>, max_payload: usize) -> Result<Vec<StreamMessage>, QueueError> {
    let unavailable = |error: async_nats::Error| QueueError::Unavailable(error);
    let bytes = PAGE_BYTES.max(max_payload.saturating_add(4_096));
    let asked = reader.fetch().max_messages(PAGE).max_bytes(bytes).messages().await;
    let mut messages = pin!(asked.map_err(|error| unavailable(error.into()))?);
    let mut page = Vec::new();
    while let Some(message) = poll_fn(|context| messages.as_mut().poll_next(context)).await {
        let message = message.map_err(unavailable)?;
        let (sequence, time) =
            message.info().map(|info| (info.stream_sequence, info.published)).map_err(unavailable)?;
        let async_nats::Message { subject, payload, headers, .. } = message.message;
        page.push(StreamMessage { subject, sequence, headers: headers.unwrap_or_default(), payload, time });
    }
    Ok(page)
}

impl From<ConsumerError> for QueueError {
    fn from(error: ConsumerError) -> Self {
        match error.kind() {
            ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => Self::Unavailable(error.into()),
            _ => Self::Rejected(error.into()),
        }
    }
}
