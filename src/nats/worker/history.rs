//! What the workers of a queue know of a job besides the server's count of deliveries.
//!
//! The server counts each delivery. A worker counts attempts: deliveries whose handler started. The
//! difference is kept in a stream of its own, `NAME_ATTEMPTS`, with one small message for each such
//! job. So is the disposition of a job whose dead letter could not be stored.
//!
//! | when | what happens |
//! |---|---|
//! | a delivery is returned unrun | one more return is recorded, then the job is returned |
//! | an attempt fails, during which the job was delivered again | those deliveries are recorded as returns, then the job is returned |
//! | a dead letter cannot be stored | the disposition is recorded, then the job is returned |
//! | a job is delivered again, or is older than its consumer | its message is read before the job is run |
//! | a job that has a message ends | the message is removed |
//!
//! So a job that is done at its first delivery costs nothing. The stream is created when it is
//! first needed. If it cannot be created or read, each delivery counts as an attempt.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};

use super::incarnation::{self, OriginStatus};
use super::job::{Delivered, JobKey};
use crate::io;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::queue::dead_letter::{DeadLetterReason, one_line};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

const STORED: &str = "Workcrew-Stored";
const CONSUMER: &str = "Workcrew-Consumer";
const RETURNS: &str = "Workcrew-Returns";
const REASON: &str = "Workcrew-Reason";
const ERROR: &str = "Workcrew-Error";

/// How long a message stays at most after its last change.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a return waits at most for its message.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the return of a job that is not due waits at most for its message.
const EARLY_TIMEOUT: Duration = Duration::from_secs(15);
/// How many dispositions are remembered in this process, for when they cannot be stored.
const MAX_REMEMBERED: usize = 4_096;

/// The history of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobRecord {
    /// The number of deliveries that were returned unrun.
    pub(crate) returns: u32,
    /// The reason and the error, if the dead letter is still to be stored.
    pub(crate) dead: Option<(DeadLetterReason, String)>,
}

/// Reads and writes the histories of jobs.
pub(crate) struct History {
    /// The connection to the server.
    connection: Arc<ConnectionInner>,
    /// The name of the queue.
    queue: Arc<str>,
    /// Set after a read without an answer. Each further read would delay a job as long.
    is_unanswered: AtomicBool,
    /// The dead jobs that this process knows of.
    remembered: Mutex<Vec<(JobKey, (DeadLetterReason, String))>>,
}

impl History {
    pub(crate) fn new(connection: Arc<ConnectionInner>, queue: Arc<str>) -> Self {
        Self { connection, queue, is_unanswered: AtomicBool::new(false), remembered: Mutex::new(Vec::new()) }
    }

    /// Returns the history of a job that was delivered before.
    pub(crate) async fn read(&self, delivered: &Delivered) -> JobRecord {
        let mut record = self.read_stored(delivered).await.unwrap_or_default();
        let key = delivered.key();
        if let Some((_, dead)) = self.remembered.lock().iter().find(|(other, _)| *other == key) {
            record.dead = Some(dead.clone());
        }
        record
    }

    async fn read_stored(&self, delivered: &Delivered) -> Option<JobRecord> {
        if self.is_unanswered.load(Ordering::Relaxed) {
            return None;
        }
        let stream = self.connection.jetstream.get_stream_no_info(self.stream()).await.ok()?;
        let checking = stream.raw_message_builder().last_by_subject(self.subject(delivered.sequence)).send();
        let calls = [format!("STREAM.MSG.GET.{}", self.stream())];
        let Ok(on_origin_checked) = io::timeout(LOOKUP_TIMEOUT, self.connection.permitted_api(&calls, checking)).await
        else {
            self.is_unanswered.store(true, Ordering::Relaxed);
            return None;
        };
        let headers = on_origin_checked.ok()?.ok()?.headers;
        let number = |name: &str| headers.get(name)?.as_str().parse::<i128>().ok();
        if number(STORED) != Some(delivered.stored_at.into()) {
            return None; // another job had this number
        }
        // A new consumer counts deliveries from one again.
        let is_same_count = number(CONSUMER) == Some(delivered.origin.consumer);
        let returns = number(RETURNS).filter(|_| is_same_count).and_then(|returns| u32::try_from(returns).ok());
        let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let reason = text(REASON).and_then(DeadLetterReason::read);
        let dead = reason.map(|reason| (reason, text(ERROR).unwrap_or_default().to_owned()));
        Some(JobRecord { returns: returns.unwrap_or(0), dead })
    }

    /// Allows reads again: there is a new connection.
    pub(crate) fn retry_reads(&self) {
        self.is_unanswered.store(false, Ordering::Relaxed);
    }

    /// Records that a delivery is returned unrun. Without effect if the server does not take it.
    pub(crate) async fn note_return(&self, delivered: &Delivered) {
        let returns = delivered.returns().saturating_add(1);
        let _ = io::timeout(LOOKUP_TIMEOUT, self.write(delivered, &JobRecord { returns, dead: None })).await;
    }

    /// Records the deliveries that were no attempts, since an earlier delivery was running.
    pub(crate) async fn note_returns(&self, delivered: &Delivered) {
        let record = JobRecord { returns: delivered.returns(), dead: None };
        let _ = io::timeout(LOOKUP_TIMEOUT, self.write(delivered, &record)).await;
    }

    /// Records that no delivery so far was an attempt. The job is not due yet, so there is time.
    pub(crate) async fn note_early(&self, delivered: &Delivered) {
        delivered.set_returns(delivered.deliveries.saturating_sub(1));
        let record = JobRecord { returns: delivered.deliveries, dead: None };
        let _ = io::timeout(EARLY_TIMEOUT, self.write(delivered, &record)).await;
    }

    /// Records that a job is dead, at least in this process.
    pub(crate) async fn note_dead(&self, delivered: &Delivered, reason: DeadLetterReason, error: &str) {
        let dead = (reason, error.to_owned());
        self.remember(delivered, dead.clone());
        let record = JobRecord { returns: delivered.returns(), dead: Some(dead) };
        let _ = io::timeout(LOOKUP_TIMEOUT, self.write(delivered, &record)).await;
        delivered.set_recorded();
    }

    /// Notes in this process that a job is dead. Its acknowledgement may be lost after its letter
    /// is stored, and then it is delivered again.
    pub(crate) fn remember(&self, delivered: &Delivered, dead: (DeadLetterReason, String)) {
        self.forget(delivered);
        let mut remembered = self.remembered.lock();
        if remembered.len() == MAX_REMEMBERED {
            remembered.remove(0);
        }
        remembered.push((delivered.key(), dead));
    }

    /// Removes what this process knows of a job.
    pub(crate) fn forget(&self, delivered: &Delivered) {
        let key = delivered.key();
        self.remembered.lock().retain(|(other, _)| *other != key);
    }

    /// Returns `true` if this process knows of dead jobs that have not left the queue.
    pub(crate) fn remembers_any(&self) -> bool {
        !self.remembered.lock().is_empty()
    }

    /// Returns `true` if the server has histories, or does not say.
    pub(crate) async fn has_stored(&self) -> bool {
        let calls = [format!("STREAM.INFO.{}", self.stream())];
        let stream = self.stream();
        let asking = self.connection.permitted_api(&calls, incarnation::stream_info(&self.connection, &stream));
        match io::timeout(LOOKUP_TIMEOUT, asking).await {
            Ok(Ok(Ok(info))) => info.is_some_and(|info| info.state.messages > 0),
            _ => true,
        }
    }

    /// Removes the history of a job that has ended.
    pub(crate) async fn erase(&self, delivered: &Delivered) {
        self.forget(delivered);
        if let Ok(stream) = self.connection.jetstream.get_stream_no_info(self.stream()).await {
            let purging = stream.purge().filter(self.subject(delivered.sequence));
            let _ = self.connection.with_timeout(purging.into_future()).await;
        }
    }

    async fn write(&self, delivered: &Delivered, record: &JobRecord) -> Result<(), ()> {
        let mut headers = HeaderMap::new();
        headers.insert(STORED, delivered.stored_at.to_string());
        headers.insert(CONSUMER, delivered.origin.consumer.to_string());
        headers.insert(RETURNS, record.returns.to_string());
        if let Some((reason, error)) = &record.dead {
            headers.insert(REASON, reason.to_string());
            headers.insert(ERROR, one_line(error));
        }
        for _ in 0..2 {
            let message = PublishMessage::build().headers(headers.clone()).expected_stream(self.stream());
            let stored = async {
                let jetstream = &self.connection.jetstream;
                jetstream.send_publish(self.subject(delivered.sequence), message).await?.await
            };
            match self.connection.permitted(&[self.subject(delivered.sequence)], stored).await.map_err(|_| ())? {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => self.create().await?,
                Err(_) => return Err(()),
            }
        }
        Err(())
    }

    /// Creates the stream, with the storage and replicas of the jobs.
    async fn create(&self) -> Result<(), ()> {
        let info: Result<_, OriginStatus> = incarnation::stream_info(&self.connection, &self.queue).await;
        let jobs = info.map_err(|_| ())?.ok_or(())?.config;
        let config = Config {
            name: self.stream(),
            subjects: vec![format!("workcrew.attempts.{}.*", self.queue)],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_messages: -1,
            max_bytes: -1,
            max_message_size: -1,
            max_messages_per_subject: 1,
            max_age: MAX_AGE,
            num_replicas: jobs.num_replicas,
            storage: jobs.storage,
            ..Config::default()
        };
        self.connection.jetstream.get_or_create_stream(config).await.map(drop).map_err(|_| ())
    }

    fn stream(&self) -> String {
        format!("{}_ATTEMPTS", self.queue)
    }

    fn subject(&self, sequence: u64) -> String {
        format!("workcrew.attempts.{}.{sequence}", self.queue)
    }
}
