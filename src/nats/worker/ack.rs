//! What comes before and after the last word about a delivery: letters, and what is written down.
//!
//! Rules:
//! 1. The last word to the consumer is the run's own (see `course::acks`), under a fresh lease. What comes
//!    before it is done here, and then the delivery comes back to the run.
//! 2. A job is terminated after its dead letter is stored, never before. If the letter cannot be stored,
//!    the verdict is written down, and the job is delivered again without being run.
//! 3. An outcome of a consumer that is gone is told to the stream: what has ended is deleted there. The
//!    consumer that was made in its place delivers all else anyway.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;

use super::history::History;
use super::job::Delivered;
use super::job_task::Verdict;
use crate::nats::core::inner::Link;
use crate::nats::error::EnqueueError;
use crate::nats::event::Event;
use crate::nats::queue::dead_letter::{self, DeadReason, Form, Obituary};
use crate::nats::queue::delay;
use crate::sync::Arc;

/// After how long a job is delivered again whose dead letter could not be stored; doubles with each delivery.
const FIRST_DEAD_RETRY: Duration = Duration::from_secs(1);
/// The longest of these.
const LONGEST_DEAD_RETRY: Duration = Duration::from_secs(60);
/// How many letters of one job are tried while the store takes each for a duplicate of another.
const MAX_COPIES: u32 = 8;

/// What came of telling it.
#[derive(Debug)]
pub(crate) enum Settled {
    Done,
    Retried,
    Dead,
    Returned,
    Postponed,
    /// The server has confirmed nothing, and never will.
    Lost,
    /// What comes before the last word is done.
    Ready(Verdict),
    /// The server did not confirm it. It is to be told again.
    Untold {
        verdict: Verdict,
        /// Whether the server said that there is no such consumer.
        is_gone: bool,
    },
}

/// Where an outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the consumer that the delivery came from.
    Consumer,
    /// To the stream, since that consumer is gone.
    Stream,
}

/// Where outcomes are told.
pub(crate) struct Registrar {
    pub(crate) link: Arc<Link>,
    pub(crate) stream: Arc<str>,
    pub(crate) dead_subject: Arc<str>,
    pub(crate) ack_wait: Duration,
    pub(crate) history: History,
}

impl Registrar {
    /// Does what comes before the last word of an outcome, or all of it if that is told to the stream.
    pub(crate) async fn settle(&self, delivered: &Delivered, verdict: Verdict, route: Route) -> Settled {
        let verdict = match verdict {
            Verdict::Dead { reason, error } => match self.bury_job(delivered, reason, &error).await {
                Ok(()) => Verdict::Buried,
                Err(failure) => {
                    self.history.note_dead(delivered, reason, &error).await;
                    let (subject, sequence) = delivered.name();
                    self.link.listener.tell(&Event::DeadLetterFailed { subject, sequence, error: failure });
                    Verdict::Retry(dead_retry(delivered.deliveries))
                }
            },
            Verdict::Return(delay) if route == Route::Consumer => {
                self.history.note_return(delivered).await;
                Verdict::Return(delay)
            }
            Verdict::Postpone(_) if route == Route::Consumer => {
                self.history.note_early(delivered).await;
                Verdict::Postpone(delay::pause(delivered.until_due(), delivered.clock.is_known()))
            }
            other => other,
        };
        if route == Route::Consumer {
            return Settled::Ready(verdict);
        }
        let settled = self.tell_stream(delivered, verdict).await;
        if matches!(settled, Settled::Done | Settled::Dead) && delivered.is_recorded() {
            self.history.erase(delivered).await;
        }
        settled
    }

    async fn bury_job(&self, delivered: &Delivered, reason: DeadReason, error: &str) -> Result<(), String> {
        let obituary = Obituary {
            stream: &self.stream,
            sequence: delivered.sequence,
            stored_at: delivered.stored_at,
            attempts: delivered.attempts(),
            reason,
            error,
            job: &delivered.message,
        };
        self.bury(&obituary).await
    }

    /// Stores a dead letter, in the largest form that fits.
    pub(crate) async fn bury(&self, obituary: &Obituary<'_>) -> Result<(), String> {
        let (largest, mut error) = (self.link.client.max_payload(), EnqueueError::TooLarge);
        for form in Form::ALL {
            let (_, size) = obituary.letter(form, 0);
            if size > largest && form != Form::Notice {
                continue;
            }
            match self.store_letter(obituary, form).await {
                Ok(()) => return Ok(()),
                Err(EnqueueError::TooLarge) => error = EnqueueError::TooLarge,
                Err(other) => {
                    error = other;
                    break;
                }
            }
        }
        Err(error.to_string())
    }

    /// Stores a letter. A duplicate counts only if the letter of this very job is there.
    async fn store_letter(&self, obituary: &Obituary<'_>, form: Form) -> Result<(), EnqueueError> {
        for copy in 0..MAX_COPIES {
            let (letter, _) = obituary.letter(form, copy);
            let stored = self.publish(letter).await?;
            if !stored.duplicate {
                return Ok(());
            }
            let letters = self.link.jetstream.get_stream_no_info(dead_letter::stream_of(&self.stream)).await;
            let Ok(letters) = letters else { break };
            let found = self.link.in_time(letters.get_raw_message(stored.sequence)).await;
            if found.is_some_and(|found| found.is_ok_and(|found| obituary.is_of(&found))) {
                return Ok(());
            }
        }
        Err(EnqueueError::Rejected("the store takes it for a duplicate of a letter that is gone".into()))
    }

    async fn publish(
        &self,
        letter: PublishMessage,
    ) -> Result<async_nats::jetstream::publish::PublishAck, EnqueueError> {
        let letter = letter.expected_stream(dead_letter::stream_of(&self.stream));
        let storing = async {
            let sent = self.link.jetstream.send_publish(self.dead_subject.to_string(), letter).await?;
            Ok(sent.await?)
        };
        let subjects = [self.dead_subject.to_string()];
        match self.link.in_time(self.link.permitted(&subjects, storing)).await {
            Some(stored) => stored?,
            None => Err(EnqueueError::Timeout),
        }
    }

    /// Keeps rule 3.
    async fn tell_stream(&self, delivered: &Delivered, verdict: Verdict) -> Settled {
        let settled = Settled::of(&verdict);
        if !matches!(settled, Settled::Done | Settled::Dead) {
            return settled;
        }
        let Ok(stream) = self.link.jetstream.get_stream_no_info(&*self.stream).await else {
            return Settled::Untold { verdict, is_gone: false };
        };
        match self.link.in_time(stream.delete_message(delivered.sequence)).await {
            Some(Ok(_)) => settled,
            Some(Err(error)) if error.to_string().contains("no message found") => settled,
            _ => Settled::Untold { verdict, is_gone: false },
        }
    }
}

impl Settled {
    /// What a verdict comes to when the server has taken it.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::Done,
            Verdict::Buried | Verdict::Dead { .. } => Self::Dead,
            Verdict::Retry(_) => Self::Retried,
            Verdict::Return(_) => Self::Returned,
            Verdict::Postpone(_) => Self::Postponed,
        }
    }
}

/// A verdict in the server's words.
pub(crate) fn word_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Done => "+ACK".to_owned(),
        Verdict::Buried | Verdict::Dead { .. } => "+TERM".to_owned(),
        Verdict::Retry(delay) | Verdict::Return(delay) | Verdict::Postpone(delay) => delayed(*delay),
    }
}

/// "Not now, but after so long", in the server's words.
fn delayed(delay: Duration) -> String {
    if delay.is_zero() {
        return "-NAK".to_owned();
    }
    let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64);
    format!("-NAK {{\"delay\": {nanoseconds}}}")
}

fn dead_retry(deliveries: u32) -> Duration {
    let doubled = FIRST_DEAD_RETRY.checked_mul(1 << (deliveries.saturating_sub(1)).min(16));
    doubled.map_or(LONGEST_DEAD_RETRY, |delay| delay.min(LONGEST_DEAD_RETRY))
}
