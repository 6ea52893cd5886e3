//! Getting the consumer, losing it, and leaving it for good.

use std::time::Duration;
use std::time::Instant;

use async_nats::RequestErrorKind;

use super::state::{Course, State};

use crate::error::CancelReason;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::command::Note;
use crate::nats::worker::inbox::{self, PrepareError, Prepared};
use crate::nats::worker::incarnation::Origin;
use crate::sync::Arc;

/// The first pause after a failure; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long before the end of a drain the tokens are cancelled, so that a handler that heeds its token can still
/// have its outcome told; at most a quarter of the drain's time.
const LAST_CALL: Duration = Duration::from_secs(1);

impl Course {
    pub(crate) fn prepare(&mut self) {
        self.tries += 1;
        self.state = State::Preparing;
        let (number, notes) = (self.tries, self.outfit.notes.0.clone());
        let (link, terms) = (Arc::clone(&self.outfit.link), Arc::clone(&self.outfit.terms));
        let needs_replies = self.acks.replies.is_none();
        self.outfit.link.io.spawn(async move {
            let prepared = inbox::prepare(&link, &terms, needs_replies).await;
            // The run may have ended, and then it drops the inbox.
            let _ = notes.send(Note::Prepared(number, prepared.map(Box::new)));
        });
    }

    /// Gives the inbox up, if there is one, and prepares again at once.
    pub(crate) fn prepare_anew(&mut self) {
        self.close_inbox();
        self.was_disconnected = false;
        self.prepare();
    }

    /// Keeps rule 3.
    pub(crate) fn close_inbox(&mut self) {
        self.credit.forget();
        let open = std::mem::replace(&mut self.state, State::Preparing);
        if let State::Open(prepared) = open {
            self.old.push(prepared.inbox.close(&self.outfit.link));
        }
    }

    pub(crate) fn prepared(&mut self, prepared: Result<Box<Prepared>, PrepareError>) {
        if !matches!(self.state, State::Preparing) {
            return;
        }
        match prepared {
            Ok(mut prepared) => {
                self.acks.replies = self.acks.replies.take().or(prepared.replies.take());
                self.failures = 0;
                self.was_disconnected = false;
                self.came_from(prepared.origin);
                self.state = State::Open(prepared);
                self.sweep();
                self.tell(&Event::ConsumerReady { consumer: self.outfit.terms.consumer.clone() });
            }
            Err(PrepareError::Final(error)) => self.drain(Some(error)),
            Err(PrepareError::Passing(error)) => self.fail(error),
            Err(PrepareError::Silence) => {
                self.replace_dead_connection();
                self.fail("the server does not answer".to_owned());
            }
        }
    }

    /// Deliveries come from this stream and this consumer from now on.
    fn came_from(&mut self, origin: Origin) {
        let known = self.origin.replace(origin);
        self.lease.void();
        if known.is_some_and(|known| known.stream != origin.stream) {
            self.stream_was_replaced();
        }
        if known.is_some_and(|known| known != origin) {
            self.return_line(); // it is delivered again, or is gone
        }
    }

    /// Looks whether the server is there: it was to say something by now.
    pub(crate) fn look_for_the_server(&mut self) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.heard(); // the next look is as far away
        }
        self.lease.void();
        self.lease.is_for_silence = true;
        self.look();
    }

    /// Has the client connect anew, if the server is not heard at all. "No responders" is an answer, too.
    pub(crate) fn replace_dead_connection(&self) {
        let link = Arc::clone(&self.outfit.link);
        if !link.is_connected() {
            return;
        }
        self.outfit.link.io.spawn(async move {
            let probe = link.client.new_inbox();
            let answer = link.in_time(link.client.request(probe, "".into())).await;
            if answer.is_none_or(|answer| answer.is_err_and(|error| error.kind() == RequestErrorKind::TimedOut)) {
                let _ = link.in_time(link.client.force_reconnect()).await;
            }
        });
    }

    /// Something is wrong: tries again after a pause.
    pub(crate) fn fail(&mut self, error: String) {
        self.close_inbox();
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.state = State::Pausing { until: Instant::now() + pause };
        let consumer = self.outfit.terms.consumer.clone();
        self.tell(&Event::ConsumerFailed { consumer, error, retry_after: pause });
    }

    pub(crate) fn drain(&mut self, error: Option<WorkerError>) {
        if !self.is_open() {
            return;
        }
        self.close_inbox();
        self.tries += 1; // what is being prepared is not wanted any more
        let (now, time) = (Instant::now(), self.outfit.terms.drain_timeout);
        let last_call = now.checked_add(time.saturating_sub(LAST_CALL.min(time / 4)));
        self.state = State::Draining { last_call, until: now.checked_add(time), error };
        self.return_queued();
        self.solo_is_over();
    }

    /// What has not started goes back.
    pub(crate) fn return_queued(&mut self) {
        self.return_line();
        for task in self.hands.tasks() {
            task.cancel(CancelReason::Requested, &self.outfit.executor);
        }
    }
}
