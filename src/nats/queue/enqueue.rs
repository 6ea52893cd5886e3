//! Stores jobs: one at a time, or many with several answers in flight.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;

use super::JobQueue;
use super::delay::Schedule;
use crate::nats::check;
use crate::nats::core::denied::Mark;
use crate::nats::core::inner::WaitError;
use crate::nats::error::EnqueueError;
use crate::nats::headers::{self, Headers};
use crate::nats::payload::Encode;
use crate::time::deadline::Deadline;

/// How many jobs of one [`JobQueue::enqueue_all`] may wait for their answers at once.
const MAX_IN_FLIGHT: usize = 512;

/// The server's confirmation that a job is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    sequence: u64,
    is_duplicate: bool,
}

impl Enqueued {
    /// Returns the sequence number of the job in the stream; of a duplicate, that of the job that
    /// came first.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns `true` if a job with this id had been stored before, so that this one was not.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }
}

/// A job for [`JobQueue::enqueue_job`] and [`JobQueue::enqueue_all`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::nats::{Headers, NewJob};
///
/// let job = NewJob::new("mail.reminder", "order 7", "reminder-7")?
///     .headers(Headers::new().append("Trace", "t1"))
///     .delay(Duration::from_secs(24 * 60 * 60));
/// assert_eq!((job.subject(), job.id()), ("mail.reminder", "reminder-7"));
/// # Ok::<(), workcrew::nats::EnqueueError>(())
/// ```
#[derive(Clone)]
pub struct NewJob {
    subject: String,
    payload: Vec<u8>,
    id: String,
    headers: Headers,
    schedule: Schedule,
}

impl NewJob {
    /// Makes a job of a subject, a payload and an id. The subject and the id are checked when the
    /// job is enqueued.
    ///
    /// # Errors
    ///
    /// [`EnqueueError::Encode`].
    pub fn new(
        subject: impl Into<String>,
        payload: &(impl Encode + ?Sized),
        id: impl Into<String>,
    ) -> Result<Self, EnqueueError> {
        let payload = payload.encode().map_err(EnqueueError::Encode)?;
        Ok(Self {
            subject: subject.into(),
            payload,
            id: id.into(),
            headers: Headers::new(),
            schedule: Schedule::AtOnce,
        })
    }

    /// Sets the headers. *Default: none.*
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets how long the job may not run after it was stored, by the server's clock. At most 292
    /// years, and less than the queue's [`max_age`](crate::nats::JobQueueBuilder::max_age). The
    /// last call of this and [`not_before`](Self::not_before) counts. *Default: zero.*
    ///
    /// The job runs soon after that moment, as soon as a slot is free. Until then it counts in
    /// [`JobQueue::len`] and against
    /// [`max_ack_pending`](crate::nats::WorkerBuilder::max_ack_pending), and holds no slot. Its
    /// attempts and the policy's deadline count from that moment on. A dead letter is requeued
    /// without the delay.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.schedule = Schedule::After(delay);
        self
    }

    /// Sets a moment before which the job does not run. It is converted into a [delay](Self::delay)
    /// when the job is enqueued, by this machine's clock. A past moment means no delay.
    #[must_use]
    pub fn not_before(mut self, moment: SystemTime) -> Self {
        self.schedule = Schedule::NotBefore(moment);
        self
    }

    /// Returns the subject.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("subject", &self.subject)
            .field("id", &self.id)
            .field("bytes", &self.payload.len())
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// A job that was sent.
struct Sent {
    answer: PublishAckFuture,
    /// When to stop waiting for the answer.
    deadline: Deadline,
    /// A subject that the server denied since then may be this job's.
    mark: Mark,
    subject: [String; 1],
}

impl JobQueue {
    /// Stores a job. Blocks until the server confirms it, for at most the connection's timeout.
    ///
    /// The `id` identifies the job. A job whose id was enqueued within the [duplicate
    /// window](crate::nats::JobQueueBuilder::duplicate_window) is not stored again. So a caller
    /// that does not know whether a job was stored enqueues it again.
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
        self.store(subject, self.new_message(subject, id.as_ref(), HeaderMap::new(), bytes)?)
    }

    /// Stores a job that does not run before this time has passed; see [`NewJob::delay`]. Otherwise
    /// like [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// [`EnqueueError`].
    pub fn enqueue_after(
        &self,
        delay: Duration,
        subject: &str,
        payload: &(impl Encode + ?Sized),
        id: impl Into<String>,
    ) -> Result<Enqueued, EnqueueError> {
        self.enqueue_job(NewJob::new(subject, payload, id)?.delay(delay))
    }

    /// Stores a job with headers, a delay, or both. Otherwise like [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// [`EnqueueError`].
    pub fn enqueue_job(&self, job: NewJob) -> Result<Enqueued, EnqueueError> {
        let (subject, message) = self.message_of(job)?;
        self.store(&subject, message)
    }

    fn message_of(&self, job: NewJob) -> Result<(String, PublishMessage), EnqueueError> {
        let NewJob { subject, payload, id, headers, schedule } = job;
        let mut headers = headers.to_job_map()?;
        schedule.apply(&mut headers, self.max_age)?;
        let message = self.new_message(&subject, &id, headers, payload)?;
        Ok((subject, message))
    }

    /// Stores a job with headers. Otherwise like [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// [`EnqueueError`]. Headers that begin with `Nats-` or `Workcrew-` are reserved.
    pub fn enqueue_with_headers(
        &self,
        subject: &str,
        headers: &Headers,
        payload: &(impl Encode + ?Sized),
        id: impl AsRef<str>,
    ) -> Result<Enqueued, EnqueueError> {
        let bytes = payload.encode().map_err(EnqueueError::Encode)?;
        self.store(subject, self.new_message(subject, id.as_ref(), headers.to_job_map()?, bytes)?)
    }

    /// Stores many jobs. Returns one result for each job, in the order of the jobs.
    ///
    /// Up to 512 jobs wait for their answers at once, so that not every job costs a round trip. A
    /// failed job does not prevent later ones from being stored, with one exception. After the
    /// first [`Timeout`](EnqueueError::Timeout) or [`Disconnected`](EnqueueError::Disconnected)
    /// nothing more is sent, and each later job gets the same error. Enqueue those again with the
    /// same ids.
    ///
    /// Blocks until the last answer, or until one exceeds the connection's timeout.
    pub fn enqueue_all(&self, jobs: impl IntoIterator<Item = NewJob>) -> Vec<Result<Enqueued, EnqueueError>> {
        let mut batch = Batch { queue: self, sent: VecDeque::new(), results: Vec::new(), stop: None };
        for job in jobs {
            batch.send(job);
        }
        while batch.finish_oldest() {}
        let answered = batch.results.into_iter();
        answered.map(|result| result.unwrap_or(Err(EnqueueError::Timeout))).collect()
    }

    /// Checks a job and returns its message, with the context of this thread.
    fn new_message(
        &self,
        subject: &str,
        id: &str,
        mut headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<PublishMessage, EnqueueError> {
        check::job_subject("subject", subject)?;
        check::id(id)?;
        headers::add_context(&self.connection.pool.executor, &mut headers);
        Ok(PublishMessage::build().headers(headers).payload(payload.into()).message_id(id))
    }

    pub(crate) fn store(&self, subject: &str, message: PublishMessage) -> Result<Enqueued, EnqueueError> {
        let deadline = Deadline::after(self.connection.timeout);
        let sent = self.send(subject, message, deadline)?;
        self.confirmed(sent)
    }

    fn send(&self, subject: &str, message: PublishMessage, deadline: Deadline) -> Result<Sent, EnqueueError> {
        check::job_subject("subject", subject)?;
        if !self.connection.is_connected() {
            return Err(EnqueueError::Disconnected);
        }
        let message = message.expected_stream(&self.name);
        let mark = self.connection.denials.mark();
        let sending = self.connection.jetstream.send_publish(subject.to_owned(), message);
        let answer = self.connection.wait_until(sending, deadline)??;
        Ok(Sent { answer, deadline, mark, subject: [subject.to_owned()] })
    }

    fn confirmed(&self, sent: Sent) -> Result<Enqueued, EnqueueError> {
        let Sent { answer, deadline, mark, subject } = sent;
        let answered = self.connection.permitted_since(mark, &subject, answer.into_future());
        let ack = self.connection.wait_until(answered, deadline)???;
        Ok(Enqueued { sequence: ack.sequence, is_duplicate: ack.duplicate })
    }
}

/// The jobs of one `enqueue_all`.
struct Batch<'a> {
    queue: &'a JobQueue,
    /// The unanswered jobs, the oldest first, each with its index among the results.
    sent: VecDeque<(usize, Sent)>,
    /// `None` if not known yet.
    results: Vec<Option<Result<Enqueued, EnqueueError>>>,
    /// The error that stopped sending.
    stop: Option<fn() -> EnqueueError>,
}

impl Batch<'_> {
    fn send(&mut self, job: NewJob) {
        if self.sent.len() == MAX_IN_FLIGHT {
            self.finish_oldest();
        }
        let place = self.results.len();
        self.results.push(None);
        if let Some(stop) = self.stop {
            self.results[place] = Some(Err(stop()));
            return;
        }
        let deadline = Deadline::after(self.queue.connection.timeout);
        let message = self.queue.message_of(job);
        match message.and_then(|(subject, message)| self.queue.send(&subject, message, deadline)) {
            Ok(sent) => self.sent.push_back((place, sent)),
            Err(error) => self.record(place, Err(error)),
        }
    }

    /// Waits for the oldest answer; `false` if none is left.
    fn finish_oldest(&mut self) -> bool {
        let Some((place, sent)) = self.sent.pop_front() else { return false };
        let result = self.queue.confirmed(sent);
        self.record(place, result);
        true
    }

    fn record(&mut self, place: usize, result: Result<Enqueued, EnqueueError>) {
        match &result {
            Err(EnqueueError::Timeout) => self.stop = Some(|| EnqueueError::Timeout),
            Err(EnqueueError::Disconnected) => self.stop = Some(|| EnqueueError::Disconnected),
            Err(EnqueueError::WouldDeadlock) => self.stop = Some(|| EnqueueError::WouldDeadlock),
            _ => {}
        }
        self.results[place] = Some(result);
    }
}

impl From<WaitError> for EnqueueError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout => Self::Timeout,
            WaitError::OnIoThread => Self::WouldDeadlock,
        }
    }
}
