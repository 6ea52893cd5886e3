//! Tells the server what became of a delivery, and waits until it confirms that.
//!
//! Rules:
//! 1. One call tells an outcome once. What is not confirmed comes back to the run, which looks whether the
//!    stream is still the same before it tells the outcome again.
//! 2. A job is terminated after its dead letter is stored, never before. If the letter cannot be stored,
//!    the verdict is written down, and the job is delivered again without being run.
//! 3. An outcome of a consumer that is gone is told to the stream: what has ended is deleted there. The
//!    consumer that was made in its place delivers all else anyway.

use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::jetstream::message::PublishMessage;

use super::attempt::Verdict;
use super::connection::Link;
use super::dead_letter::{self, DeadReason, Form, Obituary};
use super::delay;
use super::error::EnqueueError;
use super::event::Event;
use super::history::History;
use super::job::Delivered;
use crate::sync::Arc;

/// After how long a job is delivered again whose dead letter could not be stored; doubles with each delivery.
const FIRST_DEAD_RETRY: Duration = Duration::from_secs(1);
/// The longest of these.
const LONGEST_DEAD_RETRY: Duration = Duration::from_secs(60);
/// How many letters of one job are tried while the store takes each for a duplicate of another.
const MAX_COPIES: u32 = 8;

/// What came of telling it.
#[derive(Debug)]
pub(super) enum Settled {
    Done,
    Retried,
    Dead,
    Returned,
    Postponed,
    /// The server has confirmed nothing, and never will.
    Lost,
    /// The server did not confirm it. It is to be told again.
    Untold {
        verdict: Verdict,
        /// Whether the server said that there is no such consumer.
        is_gone: bool,
    },
}

/// Where an outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the consumer that the delivery came from.
    Consumer,
    /// To the stream, since that consumer is gone.
    Stream,
}

/// Where outcomes are told.
pub(super) struct Registrar {
    pub(super) link: Arc<Link>,
    pub(super) stream: Arc<str>,
    pub(super) dead_subject: Arc<str>,
    pub(super) ack_wait: Duration,
    pub(super) history: History,
}

impl Registrar {
    pub(super) async fn settle(&self, delivered: &Delivered, verdict: Verdict, route: Route) -> Settled {
        let settled = match verdict {
            Verdict::Done => self.end(delivered, "+ACK", Verdict::Done, route).await,
            Verdict::Buried => self.end(delivered, "+TERM", Verdict::Buried, route).await,
            Verdict::Dead { reason, error } => match self.bury_job(delivered, reason, &error).await {
                Ok(()) => self.end(delivered, "+TERM", Verdict::Buried, route).await,
                Err(failure) => {
                    self.history.note_dead(delivered, reason, &error).await;
                    let (subject, sequence) = delivered.name();
                    self.link.listener.tell(&Event::DeadLetterFailed { subject, sequence, error: failure });
                    let delay = dead_retry(delivered.deliveries);
                    self.give_back(delivered, Verdict::Retry(delay), delay, route).await
                }
            },
            Verdict::Retry(delay) => self.give_back(delivered, Verdict::Retry(delay), delay, route).await,
            Verdict::Return(delay) => {
                if route == Route::Consumer {
                    self.history.note_return(delivered).await;
                }
                self.give_back(delivered, Verdict::Return(delay), delay, route).await
            }
            Verdict::Postpone => {
                if route == Route::Consumer {
                    self.history.note_early(delivered).await;
                }
                let pause = delay::pause(delivered.until_due(), delivered.clock.is_known());
                self.give_back(delivered, Verdict::Postpone, pause, route).await
            }
        };
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
    pub(super) async fn bury(&self, obituary: &Obituary<'_>) -> Result<(), String> {
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
            let found = letters.get_raw_message(stored.sequence).await;
            if found.is_ok_and(|found| obituary.is_of(&found)) {
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
            let jetstream = &self.link.jetstream;
            jetstream.send_publish(self.dead_subject.to_string(), letter).await?.await
        };
        Ok(self.link.permitted(&[self.dead_subject.to_string()], storing).await??)
    }

    /// Ends a job.
    async fn end(&self, delivered: &Delivered, word: &str, verdict: Verdict, route: Route) -> Settled {
        let settled = if matches!(verdict, Verdict::Done) { Settled::Done } else { Settled::Dead };
        match route {
            Route::Consumer => self.confirm(delivered, word.to_owned(), verdict, settled).await,
            Route::Stream => {
                let Ok(stream) = self.link.jetstream.get_stream_no_info(&*self.stream).await else {
                    return Settled::Untold { verdict, is_gone: false };
                };
                match stream.delete_message(delivered.sequence).await {
                    Ok(_) => settled,
                    Err(error) if error.to_string().contains("no message found") => settled,
                    Err(_) => Settled::Untold { verdict, is_gone: false },
                }
            }
        }
    }

    /// Has a job delivered again.
    async fn give_back(&self, delivered: &Delivered, verdict: Verdict, delay: Duration, route: Route) -> Settled {
        let settled = match verdict {
            Verdict::Return(_) => Settled::Returned,
            Verdict::Postpone => Settled::Postponed,
            _ => Settled::Retried,
        };
        match route {
            Route::Consumer => self.confirm(delivered, delayed(delay), verdict, settled).await,
            Route::Stream => settled,
        }
    }

    /// Keeps rule 1.
    async fn confirm(&self, delivered: &Delivered, word: String, verdict: Verdict, settled: Settled) -> Settled {
        let Some(reply) = &delivered.message.reply else { return Settled::Lost };
        match self.link.client.request(reply.clone(), word.into()).await {
            Ok(_) => settled,
            Err(error) => Settled::Untold { verdict, is_gone: error.kind() == RequestErrorKind::NoResponders },
        }
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
