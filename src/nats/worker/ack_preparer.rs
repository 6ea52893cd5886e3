//! The steps before an acknowledgement: dead letters are stored and returns are recorded.
//!
//! Rules:
//! 1. The run itself sends the acknowledgement (see `run::send_acks`), under a fresh lease. The
//!    steps before it are done here, and then the delivery goes back to the run.
//! 2. A job is terminated after its dead letter is stored, never before. If the letter cannot be
//!    stored, the disposition is recorded, and the job is delivered again without being run.
//! 3. An outcome for a consumer that no longer exists is applied to the stream: a finished job is
//!    deleted there. The consumer that replaced it delivers all other jobs anyway.
//! 4. A server that returns with an older state of its disk gives the numbers of lost jobs to
//!    others, in the same stream. So after a lost connection or consumer, a job's place in the
//!    stream is checked before its acknowledgement is sent.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use serde_json::{Value, json};

use super::history::History;
use super::incarnation;
use super::job::Delivered;
use super::job_task::Disposition;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::error::EnqueueError;
use crate::nats::event::Event;
use crate::nats::queue::dead_letter::{self, DeadLetterDraft, DeadLetterReason, Form};
use crate::nats::queue::delay;
use crate::nats::server_time::moment_of;
use crate::sync::Arc;

/// The first delay before a job is delivered again whose dead letter could not be stored. It
/// doubles with each delivery.
const MIN_DEAD_RETRY: Duration = Duration::from_secs(1);
/// The longest such delay.
const MAX_DEAD_RETRY: Duration = Duration::from_secs(60);
/// How many letters of one job are tried while the server takes each for a duplicate of another.
const MAX_COPIES: u32 = 8;

/// The result of sending an outcome.
#[derive(Debug)]
pub(crate) enum AckResult {
    Done,
    /// The job is delivered again after this delay.
    Retried(Duration),
    Dead,
    /// The job has not run, and is delivered again after this delay.
    Returned(Duration),
    Postponed,
    /// The server has confirmed nothing, and never will.
    Lost,
    /// The steps before the acknowledgement are done.
    Ready(Disposition),
    /// The job has its place in the stream, after this number of doubts.
    InPlace {
        disposition: Disposition,
        doubts: u64,
    },
    /// The server did not confirm it. It is to be sent again.
    Unacked {
        disposition: Disposition,
        /// Whether the server does not know the consumer.
        is_consumer_missing: bool,
    },
}

/// What has the place of a job in its stream.
enum Place {
    /// The job; or nothing, and never again anything else.
    Own,
    /// Another job.
    Other,
    /// Nothing, but another job may get it; or the server does not answer.
    Unknown,
}

/// Where an outcome is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the consumer of the delivery.
    Consumer,
    /// To the stream, since that consumer no longer exists.
    Stream,
}

/// Prepares acknowledgements, and stores dead letters.
pub(crate) struct AckPreparer {
    /// The connection to the server.
    pub(crate) connection: Arc<ConnectionInner>,
    /// The stream of the jobs.
    pub(crate) stream: Arc<str>,
    /// The subject of dead letters.
    pub(crate) dead_subject: Arc<str>,
    /// How long an outcome may wait to be sent.
    pub(crate) ack_wait: Duration,
    /// The histories of jobs.
    pub(crate) history: History,
}

impl AckPreparer {
    /// Does the steps before the acknowledgement. Does all of it if the outcome goes to the stream.
    pub(crate) async fn prepare(&self, delivered: &Delivered, disposition: Disposition, route: Route) -> AckResult {
        let disposition = match disposition {
            Disposition::Dead { reason, error } => match self.store_letter_of(delivered, reason, &error).await {
                Ok(()) => {
                    self.history.remember(delivered, (reason, error));
                    Disposition::DeadLetterStored
                }
                Err(failure) => {
                    self.history.note_dead(delivered, reason, &error).await;
                    let (subject, sequence) = delivered.name();
                    self.connection.callback.call(&Event::DeadLetterFailed { subject, sequence, error: failure });
                    Disposition::Retry(dead_retry(delivered.deliveries))
                }
            },
            Disposition::Nak(delay) if route == Route::Consumer => {
                self.history.note_return(delivered).await;
                Disposition::Nak(delay)
            }
            Disposition::Retry(delay) if route == Route::Consumer => {
                self.history.note_returns(delivered).await;
                Disposition::Retry(delay)
            }
            Disposition::Postpone(_) if route == Route::Consumer => {
                self.history.note_early(delivered).await;
                Disposition::Postpone(delay::pause(delivered.until_due(), delivered.clock.is_known()))
            }
            other => other,
        };
        if route == Route::Consumer {
            return AckResult::Ready(disposition);
        }
        let result = self.ack_to_stream(delivered, disposition).await;
        if matches!(result, AckResult::Done | AckResult::Dead) && delivered.is_recorded() {
            self.history.erase(delivered).await;
        }
        result
    }

    async fn store_letter_of(
        &self,
        delivered: &Delivered,
        reason: DeadLetterReason,
        error: &str,
    ) -> Result<(), String> {
        let draft = DeadLetterDraft {
            stream: &self.stream,
            sequence: delivered.sequence,
            stored_at: delivered.stored_at,
            attempts: delivered.attempts(),
            reason,
            error,
            job: &delivered.message,
        };
        self.store_dead_letter(&draft).await
    }

    /// Stores a dead letter, in the largest form that fits.
    pub(crate) async fn store_dead_letter(&self, draft: &DeadLetterDraft<'_>) -> Result<(), String> {
        let (largest, mut error) = (self.connection.client.max_payload(), EnqueueError::TooLarge);
        for form in Form::ALL {
            let (_, size) = draft.letter(form, 0);
            if size > largest && form != Form::Notice {
                continue;
            }
            match self.store_letter(draft, form).await {
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

    /// Stores a letter. A duplicate counts only if the letter of this very job is stored.
    async fn store_letter(&self, draft: &DeadLetterDraft<'_>, form: Form) -> Result<(), EnqueueError> {
        for copy in 0..MAX_COPIES {
            let (letter, _) = draft.letter(form, copy);
            let stored = self.publish(letter).await?;
            if !stored.duplicate {
                return Ok(());
            }
            let letters = self.connection.jetstream.get_stream_no_info(dead_letter::stream_of(&self.stream)).await;
            let Ok(letters) = letters else { break };
            let found = self.connection.with_timeout(letters.get_raw_message(stored.sequence)).await;
            if found.is_some_and(|found| found.is_ok_and(|found| draft.is_of(&found))) {
                return Ok(());
            }
        }
        Err(EnqueueError::Rejected("the server takes it for a duplicate of a letter that no longer exists".into()))
    }

    async fn publish(
        &self,
        letter: PublishMessage,
    ) -> Result<async_nats::jetstream::publish::PublishAck, EnqueueError> {
        let letter = letter.expected_stream(dead_letter::stream_of(&self.stream));
        let storing = async {
            let sent = self.connection.jetstream.send_publish(self.dead_subject.to_string(), letter).await?;
            Ok(sent.await?)
        };
        let subjects = [self.dead_subject.to_string()];
        match self.connection.with_timeout(self.connection.permitted(&subjects, storing)).await {
            Some(stored) => stored?,
            None => Err(EnqueueError::Timeout),
        }
    }

    /// Applies an outcome to the stream. See rule 3.
    async fn ack_to_stream(&self, delivered: &Delivered, disposition: Disposition) -> AckResult {
        let result = AckResult::of(&disposition);
        if !matches!(result, AckResult::Done | AckResult::Dead) {
            return result;
        }
        let unacked = |disposition| AckResult::Unacked { disposition, is_consumer_missing: false };
        match self.place(delivered).await {
            Place::Own => {}
            Place::Other => return AckResult::Lost,
            Place::Unknown => return unacked(disposition),
        }
        let Ok(stream) = self.connection.jetstream.get_stream_no_info(&*self.stream).await else {
            return unacked(disposition);
        };
        match self.connection.with_timeout(stream.delete_message(delivered.sequence)).await {
            Some(Ok(_)) => result,
            Some(Err(error)) if error.to_string().contains("no message found") => result,
            _ => unacked(disposition),
        }
    }

    /// Checks that the job has its place in the stream before it is acknowledged. See rule 4.
    pub(crate) async fn check_place(&self, delivered: &Delivered, disposition: Disposition, doubts: u64) -> AckResult {
        match self.place(delivered).await {
            Place::Own => AckResult::InPlace { disposition, doubts },
            Place::Other => AckResult::Lost,
            Place::Unknown => AckResult::Unacked { disposition, is_consumer_missing: false },
        }
    }

    async fn place(&self, delivered: &Delivered) -> Place {
        let subject = format!("STREAM.MSG.GET.{}", self.stream);
        let question = json!({ "seq": delivered.sequence });
        let asking = self.connection.answer(self.connection.jetstream.request(subject.clone(), &question));
        let answer: Value = match self.connection.permitted_api(&[subject], asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Place::Unknown,
            Err(_) => return Place::Own, // it is not permitted to know better
        };
        if answer["error"]["code"] == 404 {
            // The stream has no job of this number. Perhaps a new leader does not have it yet.
            let info = incarnation::stream_info(&self.connection, &self.stream).await;
            let has_passed =
                info.is_ok_and(|info| info.is_some_and(|info| info.state.last_sequence >= delivered.sequence));
            return if has_passed { Place::Own } else { Place::Unknown };
        }
        match moment_of(&answer["message"]["time"]) {
            Some(stored_at) if stored_at != delivered.stored_at.into() => Place::Other,
            _ => Place::Own,
        }
    }
}

impl AckResult {
    /// Returns the result of a disposition that the server has confirmed.
    pub(crate) fn of(disposition: &Disposition) -> Self {
        match disposition {
            Disposition::Done => Self::Done,
            Disposition::DeadLetterStored | Disposition::Dead { .. } => Self::Dead,
            Disposition::Retry(delay) => Self::Retried(*delay),
            Disposition::Nak(delay) => Self::Returned(*delay),
            Disposition::Postpone(_) => Self::Postponed,
        }
    }
}

impl AckResult {
    /// Returns the delay after which the server delivers the job again, if the job holds its key
    /// until then. A job whose own delay is not over does not.
    pub(crate) fn next_delivery(&self) -> Option<Duration> {
        match self {
            Self::Retried(delay) | Self::Returned(delay) => Some(*delay),
            Self::Lost => Some(Duration::ZERO),
            _ => None,
        }
    }
}

/// Returns the payload of the acknowledgement.
pub(crate) fn ack_payload(disposition: &Disposition) -> String {
    match disposition {
        Disposition::Done => "+ACK".to_owned(),
        Disposition::DeadLetterStored | Disposition::Dead { .. } => "+TERM".to_owned(),
        Disposition::Retry(delay) | Disposition::Nak(delay) | Disposition::Postpone(delay) => delayed(*delay),
    }
}

/// Returns the payload of a nak with a delay.
fn delayed(delay: Duration) -> String {
    if delay.is_zero() {
        return "-NAK".to_owned();
    }
    let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX as u64);
    format!("-NAK {{\"delay\": {nanoseconds}}}")
}

fn dead_retry(deliveries: u32) -> Duration {
    let doubled = MIN_DEAD_RETRY.checked_mul(1 << (deliveries.saturating_sub(1)).min(16));
    doubled.map_or(MAX_DEAD_RETRY, |delay| delay.min(MAX_DEAD_RETRY))
}
