//! Jobs that are given up: how they are written, and read again.
//!
//! A dead letter is the job's payload with the job's headers, but for those that are orders to the server, and headers of
//! ours. Its id is made of the job's place, so a job that is given up twice within the duplicate window leaves one letter.

use std::fmt;
use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};

use super::error::BoxError;
use super::payload::Decode;

/// The subject of the job.
const SUBJECT: &str = "Workcrew-Subject";
/// The stream the job was in.
const STREAM: &str = "Workcrew-Stream";
/// Its place there.
const SEQUENCE: &str = "Workcrew-Sequence";
/// Why it was given up; see [`DeadReason`].
const REASON: &str = "Workcrew-Reason";
/// How often it was delivered.
const ATTEMPTS: &str = "Workcrew-Attempts";
/// The last error.
const ERROR: &str = "Workcrew-Error";
/// The id under which the job was enqueued.
const ID: &str = "Workcrew-Id";
/// What the server takes for an order about the message at hand.
const ORDERS: &str = "Nats-";
/// The id of a message.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The longest error that is written down, in bytes.
const LONGEST_ERROR: usize = 1_024;

/// Why a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// The policy says of the last error that it is permanent.
    Permanent,
    /// The attempts are used up.
    Attempts,
    /// The next attempt would have come after the policy's deadline.
    Deadline,
    /// The budget that the policy's jobs share is used up.
    Budget,
    /// It was delivered more often than [`max_deliveries`](super::WorkerBuilder::max_deliveries) allows without
    /// an outcome: perhaps it ends its process.
    Deliveries,
}

/// All reasons, and how they are written.
const REASONS: [(DeadReason, &str); 5] = [
    (DeadReason::Permanent, "permanent"),
    (DeadReason::Attempts, "attempts"),
    (DeadReason::Deadline, "deadline"),
    (DeadReason::Budget, "budget"),
    (DeadReason::Deliveries, "deliveries"),
];

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = REASONS.iter().find(|(reason, _)| reason == self).map_or("", |(_, word)| word);
        f.write_str(word)
    }
}

/// A job that was given up. From [`JobQueue::dead_letters`](super::JobQueue::dead_letters).
#[derive(Clone)]
pub struct DeadLetter {
    message: StreamMessage,
}

impl DeadLetter {
    pub(super) fn new(message: StreamMessage) -> Self {
        Self { message }
    }

    /// Its place among the dead letters.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.message.sequence
    }

    /// The subject of the job; the dead letters' own, if somebody else has written it without saying.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.header(SUBJECT).unwrap_or(&self.message.subject)
    }

    /// The id under which the job was enqueued, if it had one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.header(ID)
    }

    /// Why the job was given up.
    #[must_use]
    pub fn reason(&self) -> Option<DeadReason> {
        let word = self.header(REASON)?;
        REASONS.iter().find(|(_, written)| *written == word).map(|(reason, _)| *reason)
    }

    /// How often the job was delivered.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.header(ATTEMPTS).and_then(|number| u32::from_str(number).ok())
    }

    /// The last error, on one line and cut off after 1,024 bytes.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.header(ERROR)
    }

    /// The first header of this name, of the job's own or of those that begin with `Workcrew-`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The payload of the job.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.message.payload
    }

    /// The payload as a value.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(&self.message.payload)
    }

    /// The job as it was, with an id that makes two requeueings one.
    pub(super) fn revived(&self, queue: &str) -> PublishMessage {
        let mut headers = HeaderMap::new();
        for (name, values) in self.message.headers.iter() {
            let own: &str = name.as_ref();
            if !is_ours(own) && !own.starts_with(ORDERS) {
                values.iter().for_each(|value| headers.append(own, value.clone()));
            }
        }
        let id = format!("requeue-{queue}-{}", self.sequence());
        PublishMessage::build().payload(self.message.payload.clone()).headers(headers).message_id(id)
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

/// What is written of a job that is given up.
pub(super) struct Obituary<'a> {
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
    pub(super) attempts: u32,
    pub(super) reason: DeadReason,
    pub(super) error: &'a str,
}

impl Obituary<'_> {
    /// The dead letter. Its id makes two deliveries that are given up one letter.
    pub(super) fn letter(&self, job: &async_nats::Message) -> PublishMessage {
        let mut headers = HeaderMap::new();
        for (name, values) in job.headers.iter().flat_map(HeaderMap::iter) {
            let own: &str = name.as_ref();
            if own == MESSAGE_ID {
                values.iter().for_each(|value| headers.append(ID, value.clone()));
            } else if !own.starts_with(ORDERS) && !is_ours(own) {
                values.iter().for_each(|value| headers.append(own, value.clone()));
            }
        }
        headers.insert(SUBJECT, job.subject.as_str());
        headers.insert(STREAM, self.stream);
        headers.insert(SEQUENCE, self.sequence.to_string());
        headers.insert(REASON, self.reason.to_string());
        headers.insert(ATTEMPTS, self.attempts.to_string());
        headers.insert(ERROR, one_line(self.error));
        let id = format!("dead-{}-{}", self.stream, self.sequence);
        PublishMessage::build().payload(job.payload.clone()).headers(headers).message_id(id)
    }
}

fn is_ours(name: &str) -> bool {
    [SUBJECT, STREAM, SEQUENCE, REASON, ATTEMPTS, ERROR, ID].contains(&name)
}

/// A text as a header may hold it.
fn one_line(text: &str) -> String {
    let mut end = text.len().min(LONGEST_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_written_on_one_line_and_cut_between_letters() {
        assert_eq!(one_line("a\r\nb"), "a  b");
        let long = "é".repeat(LONGEST_ERROR);
        assert_eq!(one_line(&format!("x{long}")).len(), LONGEST_ERROR - 1);
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for (reason, word) in REASONS {
            assert_eq!(reason.to_string(), word);
            assert_eq!(REASONS.iter().filter(|(_, other)| *other == word).count(), 1);
        }
    }
}
