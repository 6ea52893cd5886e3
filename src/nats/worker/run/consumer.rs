//! Creates the consumer, handles its loss, and drains the run.

use std::time::Duration;
use std::time::Instant;

use async_nats::RequestErrorKind;

use super::state::{State, WorkerRun};

use crate::error::CancelReason;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::command::Command;
use crate::nats::worker::inbox::{self, PrepareError, Prepared};
use crate::nats::worker::incarnation::Origin;
use crate::sync::Arc;

/// The first pause after a failure. It doubles with each further one.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long before the end of a drain the tokens are cancelled, so that a handler that checks its
/// token still has its outcome sent. At most a quarter of the drain's time.
const CANCEL_BEFORE_END: Duration = Duration::from_secs(1);

impl WorkerRun {
    /// Starts to get the consumer and an inbox.
    pub(crate) fn prepare(&mut self) {
        self.prepare_count += 1;
        self.state = State::Preparing;
        let (number, commands) = (self.prepare_count, self.context.commands.0.clone());
        let (connection, config) = (Arc::clone(&self.context.connection), Arc::clone(&self.context.config));
        let (preparer, needs_replies) = (Arc::clone(&self.context.preparer), self.acks.replies.is_none());
        if connection.denials.is_inbox_denied() {
            self.subscribe_again();
        }
        self.context.connection.io.spawn(async move {
            let prepared = inbox::prepare(&connection, &config, &preparer.history, needs_replies).await;
            // If the run has ended, the inbox is dropped with the command.
            let _ = commands.send(Command::Prepared(number, prepared.map(Box::new)));
        });
    }

    /// Closes the inbox, if there is one, and prepares again at once.
    pub(crate) fn prepare_again(&mut self) {
        self.close_inbox();
        self.was_disconnected = false;
        self.prepare();
    }

    /// Closes the inbox. See rule 3.
    pub(crate) fn close_inbox(&mut self) {
        self.credit.forget();
        let open = std::mem::replace(&mut self.state, State::Preparing);
        if let State::Open(prepared) = open {
            self.closing.push(prepared.inbox.close(&self.context.connection));
        }
    }

    /// Handles the result of preparing.
    pub(crate) fn on_prepared(&mut self, prepared: Result<Box<Prepared>, PrepareError>) {
        if !matches!(self.state, State::Preparing) {
            return;
        }
        match prepared {
            Ok(mut prepared) => {
                self.acks.replies = self.acks.replies.take().or(prepared.replies.take());
                self.failures = 0;
                self.was_disconnected = false;
                self.set_origin(prepared.inbox.source.origin);
                prepared.inbox.source.doubts = self.doubts;
                self.has_history = prepared.has_history;
                let may_have_culprit = prepared.has_pending && !std::mem::replace(&mut self.health.has_started, true);
                self.state = State::Open(prepared);
                self.sweep(may_have_culprit);
                self.emit(&Event::ConsumerReady { consumer: self.context.config.consumer.clone() });
            }
            Err(PrepareError::Permanent(error)) => self.drain(Some(error)),
            Err(_) if self.context.connection.is_closed() => self.drain(Some(WorkerError::ConnectionClosed)),
            Err(PrepareError::Transient(error)) => self.fail(error),
            Err(PrepareError::Silence) => {
                self.replace_dead_connection();
                self.fail("the server does not answer".to_owned());
            }
        }
    }

    /// Sets the stream and the consumer of deliveries from now on.
    fn set_origin(&mut self, origin: Origin) {
        let known = self.origin.replace(origin);
        self.lease.void();
        if known.is_some_and(|known| known.stream != origin.stream) {
            self.stream_was_replaced();
        }
        if known.is_some_and(|known| known != origin) {
            self.return_pending(); // they are delivered again, or no longer exist
        }
    }

    /// Checks whether the server is alive: its heartbeat is overdue.
    pub(crate) fn check_server(&mut self) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.touch(); // the next check is as far away
        }
        self.lease.void();
        self.lease.is_for_silence = true;
        self.check_origin();
    }

    /// Has the client reconnect if the server does not answer at all. "No responders" is an answer.
    pub(crate) fn replace_dead_connection(&self) {
        let connection = Arc::clone(&self.context.connection);
        if !connection.is_connected() {
            return;
        }
        self.context.connection.io.spawn(async move {
            let probe = connection.client.new_inbox();
            let answer = connection.with_timeout(connection.client.request(probe, "".into())).await;
            if answer.is_none_or(|answer| answer.is_err_and(|error| error.kind() == RequestErrorKind::TimedOut)) {
                let _ = connection.with_timeout(connection.client.force_reconnect()).await;
            }
        });
    }

    /// Has the client reconnect, since the server does not permit its inbox. It may do so by now,
    /// but it has dropped the subscription, which the client makes again only when it reconnects.
    fn subscribe_again(&self) {
        let connection = Arc::clone(&self.context.connection);
        self.context.connection.io.spawn(async move {
            let _ = connection.with_timeout(connection.client.force_reconnect()).await;
        });
    }

    /// Handles a failure: prepares again after a pause.
    pub(crate) fn fail(&mut self, error: String) {
        self.close_inbox();
        let pause = MIN_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        self.failures += 1;
        self.state = State::Pausing { until: Instant::now() + pause };
        let consumer = self.context.config.consumer.clone();
        self.emit(&Event::ConsumerFailed { consumer, error, retry_after: pause });
    }

    /// Starts to drain; `error` is the reason, if it is one.
    pub(crate) fn drain(&mut self, error: Option<WorkerError>) {
        if !self.is_open() {
            return;
        }
        self.close_inbox();
        self.prepare_count += 1; // the result of preparing is stale
        let (now, time) = (Instant::now(), self.context.config.drain_timeout);
        let last_call = now.checked_add(time.saturating_sub(CANCEL_BEFORE_END.min(time / 4)));
        self.state = State::Draining { last_call, until: now.checked_add(time), error };
        self.return_queued();
        self.cancel_solo();
        self.drain_key_queues();
    }

    /// Sends back the jobs that have not started.
    pub(crate) fn return_queued(&mut self) {
        self.return_pending();
        for task in self.in_flight.tasks() {
            task.cancel(CancelReason::Requested, &self.context.executor);
        }
    }
}
