//! The dead letters of a queue: how they are written and read.
//!
//! A dead letter is the job's payload with the job's headers and headers of this crate. Headers
//! that the server would execute are omitted, and so is the job's delay: a requeued job runs at
//! once.
//!
//! Rules:
//! 1. A letter belongs to one job. Its id holds the stream, the job's sequence number and the time
//!    at which the job was stored. So a stream that was created again has letters of its own.
//! 2. A requeued job belongs to one letter, by the same rule, and keeps the job's first id.
//! 3. If the server finds a letter too large, it is written again without the error, then without
//!    the job's own headers, then without the payload. `Workcrew-Omitted` says what is missing.

use std::fmt;
use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::Stream;

use super::delay::DELAY;
use crate::nats::error::{BoxError, QueueError};
use crate::nats::payload::Decode;
use crate::nats::server_time::nanoseconds;

/// The subject of the job.
const SUBJECT: &str = "Workcrew-Subject";
/// The stream of the job.
const STREAM: &str = "Workcrew-Stream";
/// The job's sequence number there.
const SEQUENCE: &str = "Workcrew-Sequence";
/// Why the job is dead; see [`DeadLetterReason`].
const REASON: &str = "Workcrew-Reason";
/// How many attempts were made.
const ATTEMPTS: &str = "Workcrew-Attempts";
/// The last error.
const ERROR: &str = "Workcrew-Error";
/// The id under which the job was enqueued.
const ID: &str = "Workcrew-Id";
/// When the job was stored, in nanoseconds since 1970.
const STORED: &str = "Workcrew-Stored";
/// What the letter omits.
const OMITTED: &str = "Workcrew-Omitted";
/// The letter of a requeued job.
const REQUEUED: &str = "Workcrew-Requeued";
/// The prefix of headers that the server executes.
const SERVER_PREFIX: &str = "Nats-";
/// The id of a message.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The longest recorded error, in bytes.
const MAX_ERROR: usize = 1_024;

/// The reason why a job became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// The policy classifies the last error as permanent.
    Permanent,
    /// The attempts are used up.
    Attempts,
    /// The next attempt would have come after the policy's deadline.
    Deadline,
    /// The budget that the policy's jobs share is used up.
    Budget,
    /// The job was delivered more often than
    /// [`max_deliveries`](crate::nats::WorkerBuilder::max_deliveries) allows, without an outcome.
    /// It may end its process.
    Deliveries,
    /// The client library cannot read the job's headers. The letter holds the payload, and the
    /// error says what is wrong.
    Unreadable,
}

/// All reasons and their words in a header.
const REASONS: [(DeadLetterReason, &str); 6] = [
    (DeadLetterReason::Permanent, "permanent"),
    (DeadLetterReason::Attempts, "attempts"),
    (DeadLetterReason::Deadline, "deadline"),
    (DeadLetterReason::Budget, "budget"),
    (DeadLetterReason::Deliveries, "deliveries"),
    (DeadLetterReason::Unreadable, "unreadable"),
];

impl DeadLetterReason {
    /// Returns the reason that a word stands for.
    pub(crate) fn read(word: &str) -> Option<Self> {
        REASONS.iter().find(|(_, written)| *written == word).map(|(reason, _)| *reason)
    }
}

/// Returns the id with which a job was first enqueued.
pub(crate) fn id_of(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    // A job without an id was requeued under an id of its letter.
    text(ID).or_else(|| text(MESSAGE_ID).filter(|_| text(REQUEUED).is_none()))
}

/// Returns the name of the stream of a queue's dead letters.
pub(crate) fn stream_of(queue: &str) -> String {
    format!("{queue}_DEAD")
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = REASONS.iter().find(|(reason, _)| reason == self).map_or("", |(_, word)| word);
        f.write_str(word)
    }
}

/// A job that failed for good. From
/// [`JobQueue::dead_letters`](crate::nats::JobQueue::dead_letters).
#[derive(Clone)]
pub struct DeadLetter {
    message: StreamMessage,
}

impl DeadLetter {
    pub(crate) fn new(message: StreamMessage) -> Self {
        Self { message }
    }

    /// Returns its sequence number among the dead letters.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// Returns the subject of the job. If another program wrote the letter without it, returns the
    /// subject of the dead letters.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.header(SUBJECT).unwrap_or(&self.message.subject)
    }

    /// Returns the id under which the job was enqueued, if it had one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.header(ID)
    }

    /// Returns why the job failed for good.
    #[must_use]
    pub fn reason(&self) -> Option<DeadLetterReason> {
        DeadLetterReason::read(self.header(REASON)?)
    }

    /// Returns how many attempts the job had.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.header(ATTEMPTS).and_then(|number| u32::from_str(number).ok())
    }

    /// Returns the last error, on one line and cut off after 1,024 bytes.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.header(ERROR)
    }

    /// Returns the first header of this name, of the job's own or of those that begin with
    /// `Workcrew-`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Returns the payload of the job.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.message.payload
    }

    /// Decodes the payload.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(&self.message.payload)
    }

    /// Returns `true` if the payload did not fit into the letter. Such a letter cannot be requeued.
    #[must_use]
    pub fn is_without_payload(&self) -> bool {
        self.header(OMITTED).is_some_and(|omitted| omitted.contains("payload"))
    }

    /// Returns the original job, with an id that makes two requeues one. See rule 2.
    pub(crate) fn to_job(&self, queue: &str) -> PublishMessage {
        let mut headers = HeaderMap::new();
        for (name, values) in self.message.headers.iter() {
            let own: &str = name.as_ref();
            if (!is_ours(own) && !own.starts_with(SERVER_PREFIX)) || own == ID {
                values.iter().for_each(|value| headers.append(own, value.clone()));
            }
        }
        let id = self.requeue_id(queue);
        headers.insert(REQUEUED, self.sequence().to_string());
        PublishMessage::build().payload(self.message.payload.clone()).headers(headers).message_id(id)
    }

    fn requeue_id(&self, queue: &str) -> String {
        format!("requeue-{queue}-{}-{}", self.sequence(), nanoseconds(self.message.time))
    }

    /// Checks that the letter is still stored: by now it may be removed, or another letter may have
    /// its number.
    pub(crate) async fn check(&self, letters: &Stream<()>) -> Result<(), QueueError> {
        let found = letters.get_raw_message(self.sequence()).await;
        match found {
            Ok(found) if found.time == self.message.time && found.headers == self.message.headers => Ok(()),
            Ok(_) => Err(QueueError::Rejected("another letter has its number now".into())),
            Err(error) => Err(QueueError::Rejected(error.into())),
        }
    }

    /// Checks that a job which the server calls a duplicate is the job of this letter.
    pub(crate) async fn check_duplicate(
        &self,
        jobs: &Stream<()>,
        queue: &str,
        sequence: u64,
    ) -> Result<(), QueueError> {
        // A job that is not stored any more has been done.
        let Ok(found) = jobs.get_raw_message(sequence).await else { return Ok(()) };
        let id = found.headers.get(MESSAGE_ID).map(async_nats::HeaderValue::as_str);
        if id == Some(&*self.requeue_id(queue)) {
            return Ok(());
        }
        Err(QueueError::Rejected("the server takes the job for another one with the same id".into()))
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("sequence", &self.sequence())
            .field("subject", &self.subject())
            .field("reason", &self.reason())
            .field("attempts", &self.attempts())
            .field("error", &self.error())
            .finish_non_exhaustive()
    }
}

/// How much of a job its letter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// All of it.
    Full,
    WithoutError,
    /// Without the error and the job's own headers.
    WithoutHeaders,
    /// Without the payload as well.
    Notice,
}

impl Form {
    /// From the largest to the smallest.
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::WithoutError, Self::WithoutHeaders, Self::Notice];

    /// Returns what is omitted.
    fn omitted(self) -> Option<&'static str> {
        match self {
            Self::Full => None,
            Self::WithoutError => Some("error"),
            Self::WithoutHeaders => Some("error, headers"),
            Self::Notice => Some("error, headers, payload"),
        }
    }
}

/// The contents of a dead letter.
pub(crate) struct DeadLetterDraft<'a> {
    pub(crate) stream: &'a str,
    pub(crate) sequence: u64,
    /// When the job was stored, in nanoseconds since 1970.
    pub(crate) stored_at: i64,
    pub(crate) attempts: u32,
    pub(crate) reason: DeadLetterReason,
    pub(crate) error: &'a str,
    /// The job itself.
    pub(crate) job: &'a async_nats::Message,
}

impl DeadLetterDraft<'_> {
    /// Returns the letter and its size in bytes. Its id follows rule 1; `copy` distinguishes
    /// letters of one job of which the first is no longer stored.
    pub(crate) fn letter(&self, form: Form, copy: u32) -> (PublishMessage, usize) {
        let mut headers = HeaderMap::new();
        let own_headers = self.job.headers.iter().filter(|_| form < Form::WithoutHeaders);
        for (name, values) in own_headers.flat_map(HeaderMap::iter) {
            let own: &str = name.as_ref();
            if !own.starts_with(SERVER_PREFIX) && !is_ours(own) {
                values.iter().for_each(|value| headers.append(own, value.clone()));
            }
        }
        if let Some(id) = self.job.headers.as_ref().and_then(id_of) {
            headers.insert(ID, id);
        }
        headers.insert(SUBJECT, self.job.subject.as_str());
        headers.insert(STREAM, self.stream);
        headers.insert(SEQUENCE, self.sequence.to_string());
        headers.insert(STORED, self.stored_at.to_string());
        headers.insert(REASON, self.reason.to_string());
        headers.insert(ATTEMPTS, self.attempts.to_string());
        if form == Form::Full {
            headers.insert(ERROR, one_line(self.error));
        }
        if let Some(omitted) = form.omitted() {
            headers.insert(OMITTED, omitted);
        }
        let mut id = format!("dead-{}-{}-{}", self.stream, self.sequence, self.stored_at);
        if copy > 0 {
            id = format!("{id}-{copy}");
        }
        let payload = if form == Form::Notice { "".into() } else { self.job.payload.clone() };
        let size = payload.len() + wire_size(&headers) + MESSAGE_ID.len() + id.len() + self.stream.len() + 128;
        (PublishMessage::build().payload(payload).headers(headers).message_id(id), size)
    }

    /// Returns `true` if a stored message is a letter of this very job.
    pub(crate) fn is_of(&self, letter: &StreamMessage) -> bool {
        let text = |name: &str| letter.headers.get(name).map(async_nats::HeaderValue::as_str);
        text(STREAM) == Some(self.stream)
            && text(SEQUENCE) == Some(&*self.sequence.to_string())
            && text(STORED) == Some(&*self.stored_at.to_string())
    }
}

/// Returns how many bytes headers take in the protocol.
fn wire_size(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(|value| name.len() + value.as_str().len() + 4)
    });
    lines.sum::<usize>() + 16
}

fn is_ours(name: &str) -> bool {
    [SUBJECT, STREAM, SEQUENCE, STORED, REASON, ATTEMPTS, ERROR, ID, OMITTED, REQUEUED, DELAY].contains(&name)
}

/// Makes an error fit into a header: on one line, cut to the longest size.
pub(crate) fn one_line(text: &str) -> String {
    let mut end = text.len().min(MAX_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_on_one_line_and_cut_between_characters() {
        assert_eq!(one_line("a\r\nb"), "a  b");
        let long = "é".repeat(MAX_ERROR);
        assert_eq!(one_line(&format!("x{long}")).len(), MAX_ERROR - 1);
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for (reason, word) in REASONS {
            assert_eq!(reason.to_string(), word);
            assert_eq!(REASONS.iter().filter(|(_, other)| *other == word).count(), 1);
        }
    }
}
