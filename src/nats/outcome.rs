//! Tells the server what became of a delivery, and waits until it confirms that.
//!
//! Rules:
//! 1. An outcome that is not confirmed is told again, until the server has given the job to another anyway.
//! 2. A job is terminated after its dead letter is stored, never before. If the letter cannot be stored, the job is
//!    delivered again.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::PublishMessage;

use super::attempt::Verdict;
use super::connection::Link;
use super::dead_letter::Obituary;
use super::event::Event;
use super::job::Delivered;
use crate::io;
use crate::sync::Arc;

/// Between two tries to tell an outcome.
const PAUSE: Duration = Duration::from_millis(100);
/// After how long a job is delivered again whose dead letter could not be stored; doubles with each delivery.
const FIRST_DEAD_RETRY: Duration = Duration::from_secs(1);
/// The longest of these.
const LONGEST_DEAD_RETRY: Duration = Duration::from_secs(60);

/// What came of telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Done,
    Retried,
    Dead,
    Returned,
    /// The server has confirmed nothing.
    Lost,
}

/// Where outcomes are told, and for how long that is tried.
pub(super) struct Registrar {
    pub(super) link: Arc<Link>,
    pub(super) stream: Arc<str>,
    pub(super) dead_subject: Arc<str>,
    pub(super) ack_wait: Duration,
}

impl Registrar {
    pub(super) async fn settle(&self, delivered: &Delivered, verdict: Verdict) -> Settled {
        match verdict {
            Verdict::Done => self.confirm(delivered, "+ACK", Settled::Done).await,
            Verdict::Retry(delay) => self.confirm(delivered, &delayed(delay), Settled::Retried).await,
            Verdict::Return => self.confirm(delivered, "-NAK", Settled::Returned).await,
            Verdict::Dead { reason, error } => {
                let attempts = delivered.deliveries;
                let obituary =
                    Obituary { stream: &self.stream, sequence: delivered.sequence, attempts, reason, error: &error };
                match self.bury(obituary.letter(&delivered.message)).await {
                    Ok(()) => self.confirm(delivered, "+TERM", Settled::Dead).await,
                    Err(error) => {
                        let (subject, sequence) = (delivered.message.subject.to_string(), delivered.sequence);
                        self.link.listener.tell(&Event::DeadLetterFailed { subject, sequence, error });
                        self.confirm(delivered, &delayed(dead_retry(attempts)), Settled::Retried).await
                    }
                }
            }
        }
    }

    /// Stores a dead letter.
    async fn bury(&self, letter: PublishMessage) -> Result<(), String> {
        let jetstream = &self.link.jetstream;
        let stored = async { jetstream.send_publish(self.dead_subject.to_string(), letter).await?.await };
        stored.await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Keeps rule 1.
    async fn confirm(&self, delivered: &Delivered, word: &str, settled: Settled) -> Settled {
        let Some(reply) = &delivered.message.reply else { return Settled::Lost };
        let give_up_at = Instant::now().checked_add(self.ack_wait);
        loop {
            if self.link.is_connected() {
                let told = self.link.client.request(reply.clone(), word.to_owned().into()).await;
                if told.is_ok() {
                    return settled;
                }
            }
            if give_up_at.is_some_and(|moment| Instant::now() >= moment) {
                let (subject, sequence) = (delivered.message.subject.to_string(), delivered.sequence);
                self.link.listener.tell(&Event::OutcomeLost { subject, sequence });
                return Settled::Lost;
            }
            io::sleep(PAUSE).await;
        }
    }
}

/// "Not now, but after so long", in the server's words.
fn delayed(delay: Duration) -> String {
    let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64);
    format!("-NAK {{\"delay\": {nanoseconds}}}")
}

fn dead_retry(deliveries: u32) -> Duration {
    let doubled = FIRST_DEAD_RETRY.checked_mul(1 << (deliveries.saturating_sub(1)).min(16));
    doubled.map_or(LONGEST_DEAD_RETRY, |delay| delay.min(LONGEST_DEAD_RETRY))
}
