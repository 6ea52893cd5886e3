//! A job as its handler sees it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::BoxError;
use super::payload::Decode;
use crate::cancel::CancellationToken;
use crate::retry::Attempt;
use crate::sync::Arc;

/// A job that a [`Worker`](super::Worker) was given.
pub struct Job {
    pub(super) delivered: Arc<Delivered>,
    pub(super) attempt: Attempt,
}

/// What the server delivered.
pub(super) struct Delivered {
    pub(super) message: async_nats::Message,
    /// Its place in the stream.
    pub(super) sequence: u64,
    /// How often it was delivered, this time included.
    pub(super) deliveries: u32,
    /// When it was stored.
    pub(super) stored_at: SystemTime,
}

impl Job {
    /// What it was enqueued with.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.delivered.message.subject
    }

    /// The payload as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.delivered.message.payload
    }

    /// The payload, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()).ok()
    }

    /// The payload as a value.
    ///
    /// # Errors
    ///
    /// Those of [`Decode::decode`].
    pub fn decode<T: Decode>(&self) -> Result<T, BoxError> {
        T::decode(self.bytes())
    }

    /// The first header of this name; the case of letters counts.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.delivered.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The id it was enqueued with: what a handler that must not do things twice writes down.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.header("Nats-Msg-Id")
    }

    /// Its place in the stream, the same at each delivery.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.delivered.sequence
    }

    /// How long ago it was stored, by the clocks of the server and of this machine; zero, if they disagree.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.delivered.age()
    }

    /// Which attempt this is. Each delivery counts as one, on whatever machine and whatever became of it.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Tells the handler to stop: when the attempt's time or the job's is over, the job counts as
    /// [stuck](super::WorkerBuilder::stuck_after), or the drain has taken too long. A handler that stops for it returns
    /// an error, and the job is delivered again.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        self.attempt.token()
    }
}

impl Delivered {
    /// Reads what the server says of a job, in the subject that outcomes go to; `None`, if it is no job.
    pub(super) fn read(message: async_nats::Message) -> Option<Self> {
        let words: Vec<_> = message.reply.as_deref()?.strip_prefix("$JS.ACK.")?.split('.').collect();
        // Newer servers put the domain and the account first, and perhaps more at the end.
        let own = if words.len() >= 9 { &words[2..] } else { &words };
        let &[_stream, _consumer, deliveries, sequence, _, nanoseconds, ..] = own else { return None };
        let stored_at = UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds.parse().ok()?))?;
        let (sequence, deliveries) = (sequence.parse().ok()?, deliveries.parse().ok()?);
        Some(Self { message, sequence, deliveries, stored_at })
    }

    pub(super) fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.stored_at).unwrap_or_default()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("subject", &self.subject())
            .field("sequence", &self.sequence())
            .field("attempt", &self.attempt.number())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> Option<Delivered> {
        let message = async_nats::Message {
            subject: "jobs".into(),
            reply: Some(reply.into()),
            payload: "".into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        Delivered::read(message)
    }

    #[test]
    fn old_and_new_servers_say_the_same_of_a_job() {
        for reply in [
            "$JS.ACK.JOBS.worker.3.41.77.1700000000000000000.5",
            "$JS.ACK._.hash.JOBS.worker.3.41.77.1700000000000000000.5",
            "$JS.ACK.hub.hash.JOBS.worker.3.41.77.1700000000000000000.5.token",
        ] {
            let job = read(reply).expect(reply);
            assert_eq!((job.deliveries, job.sequence), (3, 41), "{reply}");
            assert_eq!(job.stored_at, UNIX_EPOCH + Duration::from_secs(1_700_000_000), "{reply}");
        }
        for reply in ["_INBOX.a.b", "$JS.ACK.JOBS.worker.3", "$JS.ACK.JOBS.worker.x.41.77.1.5"] {
            assert!(read(reply).is_none(), "{reply}");
        }
    }
}
