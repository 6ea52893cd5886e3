//! Requests jobs, receives them and dispatches them.

use std::time::{Duration, Instant};

use async_nats::StatusCode;

use super::state::{State, WorkerRun};
use crate::io;
use crate::nats::event::Event;
use crate::nats::queue::dead_letter::DeadLetterReason;
use crate::nats::worker::command::Command;
use crate::nats::worker::history::JobRecord;
use crate::nats::worker::inbox::{self, Source};
use crate::nats::worker::incarnation;
use crate::nats::worker::job::Delivered;
use crate::nats::worker::job_task::Disposition;
use crate::nats::worker::metrics::add;
use crate::sync::{Arc, Ordering};

/// How long the server holds back a job that this worker had no room for.
const RETURN_PAUSE: Duration = Duration::from_secs(1);
/// How long a job that seems early waits at most for the server's time.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

impl WorkerRun {
    /// Requests as many jobs as there is credit for, if jobs may be requested.
    pub(crate) fn request_jobs(&mut self) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        if self.was_disconnected
            || self.is_paused
            || self.health.is_sweeping
            || !self.solo.is_none()
            || self.is_pool_stuck()
        {
            return;
        }
        let State::Open(prepared) = &mut self.state else { return };
        if !self.credit.has_requests() {
            prepared.inbox.touch(); // the server had no reason to send anything until now
        }
        let most = if self.health.is_next_too_large { 1 } else { usize::MAX };
        let most = most.min(self.requests_ahead());
        let jobs = self.reserve_requests(self.in_flight.not_acking().saturating_sub(self.key_queues.waiting()), most);
        let State::Open(prepared) = &mut self.state else { return };
        if jobs > 0 {
            self.health.is_next_too_large = false;
            let are_waiting = self.credit.are_jobs_waiting();
            prepared.request(jobs, are_waiting, self.context.config.max_bytes, &self.context.connection);
        }
    }

    /// Handles a message that arrived in an inbox.
    pub(crate) fn on_message(&mut self, message: async_nats::Message, source: Source) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.touch();
        }
        self.health.denied = 0;
        // A job may carry a status among its headers.
        let is_job = message.reply.as_deref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
        match message.status {
            Some(status) if !is_job => self.receive_status(status, &message),
            _ => self.receive_job(message, source),
        }
    }

    /// Receives a job. One that was delivered before is looked up first.
    pub(crate) fn receive_job(&mut self, message: async_nats::Message, Source { origin, doubts }: Source) {
        let Some(delivered) = Delivered::read(message, origin, &self.clock) else {
            self.credit.received(0);
            self.emit(&Event::Warning("a message arrived that is not a job".to_owned()));
            return;
        };
        self.credit.received(delivered.pending);
        let counters = &self.context.counters;
        add(&counters.delivered);
        if delivered.deliveries > 1 {
            add(&counters.redelivered);
        }
        counters.pending.store(delivered.pending, Ordering::Relaxed);
        let is_new = delivered.deliveries == 1 && !self.may_have_history(&delivered);
        let delivered = Arc::new(delivered);
        if self.in_flight.adopt(&delivered, doubts) {
            return add(&counters.duplicates);
        }
        let number = self.in_flight.insert(Arc::clone(&delivered), doubts, self.token.child_token());
        if self.context.order.is_none() {
            self.take_turn(number); // that of its request
        }
        self.enter_key_queue(number);
        if !self.clock.is_known() {
            self.check_origin();
        }
        let is_early = !delivered.until_due().is_zero();
        let asks_for_time = is_early && !self.clock.is_fresh();
        if is_new && !asks_for_time {
            return self.dispatch(number, None);
        }
        let (preparer, commands) = (Arc::clone(&self.context.preparer), self.context.commands.0.clone());
        let (connection, config) = (Arc::clone(&self.context.connection), Arc::clone(&self.context.config));
        self.context.connection.io.spawn(async move {
            if asks_for_time {
                let asking = incarnation::server_time(&connection, &config);
                if let Ok(Some(time)) = io::timeout(LOOKUP_TIMEOUT, asking).await {
                    delivered.clock.learn(time);
                }
            }
            let record = if is_new { JobRecord::default() } else { preparer.history.read(&delivered).await };
            let _ = commands.send(Command::Known(number, delivered, record));
        });
    }

    /// Returns `true` if an earlier consumer may have left a history of the job.
    fn may_have_history(&self, delivered: &Delivered) -> bool {
        delivered.origin.consumer > delivered.stored_at.into()
            && (self.has_history || self.context.preparer.history.remembers_any())
    }

    /// Notes the history of a job. Another delivery may have taken the place of that for which it
    /// was read.
    pub(crate) fn on_known(&mut self, number: u64, looked_up: &Arc<Delivered>, record: JobRecord) {
        let Some(job) = self.in_flight.get(number) else { return };
        looked_up.set_returns(record.returns);
        if record != JobRecord::default() {
            looked_up.set_recorded();
        }
        if !Arc::ptr_eq(&job.delivered, looked_up) {
            job.delivered.continue_from(looked_up);
        }
        self.dispatch(number, record.dead);
    }

    /// Decides what to do with a delivery, once everything is known of its job.
    fn dispatch(&mut self, number: u64, dead: Option<(DeadLetterReason, String)>) {
        let Some(job) = self.in_flight.get(number) else { return };
        let delivered = Arc::clone(&job.delivered);
        let config = &self.context.config;
        if let Some((reason, error)) = dead {
            self.queue_outcome(number, Disposition::Dead { reason, error });
        } else if !delivered.until_due().is_zero() {
            self.queue_outcome(number, Disposition::Postpone(Duration::ZERO));
        } else if delivered.attempts() > config.max_deliveries {
            let error = "it was delivered too often without an outcome".to_owned();
            self.queue_outcome(number, Disposition::Dead { reason: DeadLetterReason::Deliveries, error });
        } else if let Some(error) = job.key_error.clone() {
            let disposition = self.context.dispatcher.failure(error, &delivered);
            self.queue_outcome(number, disposition);
        } else if self.context.order.is_some() && !self.is_open() {
            let next = self.key_queues.set_ready(number);
            self.admit_next(next);
        } else if !self.is_open() || self.is_paused || self.is_pending_full() || self.is_pool_stuck() {
            self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        } else if self.context.order.is_some() {
            self.admit_in_order(number);
        } else if self.take_turn(number) {
            self.admit(number);
        } else {
            self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        }
    }

    /// Has a delivery start as soon as there is a slot for it, alone if it may end the process.
    pub(crate) fn admit(&mut self, number: u64) {
        let is_alone = self.in_flight.get(number).is_some_and(|job| {
            job.delivered.attempts() >= self.context.config.alone_from && !self.in_flight.has_duplicate(number)
        });
        if is_alone || !self.solo.is_none() {
            self.run_alone(number);
        } else if let Some(job) = self.in_flight.get_mut(number) {
            job.ready_at = Instant::now();
            self.pending.push_back(number);
        }
    }

    /// Returns `true` if a further delivery would have to wait for more than the confirmation of an
    /// outcome.
    fn is_pending_full(&self) -> bool {
        // A job whose key has become free competes with the job that was requested for its slot.
        let ahead = if self.context.order.is_some() { self.lookahead() } else { 0 };
        self.in_flight.with_pool() + self.pending.len() >= self.credit.slots().saturating_add(ahead)
    }

    /// Starts deliveries from the pending list while there are free slots and turns.
    pub(crate) fn start_next(&mut self) {
        if let Some(limits) = self.context.batch {
            return self.start_batches(limits);
        }
        while self.in_flight.slots_taken() < self.credit.slots()
            && let Some(&number) = self.pending.front()
            && self.take_turn(number)
        {
            self.pending.pop_front();
            self.start(number);
        }
    }

    /// Returns the deliveries that wait for a slot or, unless the run drains, for their key.
    pub(crate) fn return_pending(&mut self) {
        let waiting = if self.is_open() { self.key_queues.ready() } else { Vec::new() };
        for number in std::mem::take(&mut self.pending).into_iter().chain(waiting) {
            self.queue_outcome(number, Disposition::Nak(Duration::ZERO));
        }
    }

    /// Passes a delivery to the pool. One that has waited for too long, while nothing passed to the
    /// server, is dropped: the server gives the job to another worker.
    pub(crate) fn start(&mut self, number: u64) {
        if self.in_flight.is_expired(number, self.context.config.ack_wait, Instant::now()) {
            return self.release(number);
        }
        let Some(job) = self.in_flight.get(number) else { return };
        let (dispatcher, counters) = (&self.context.dispatcher, &self.context.counters);
        counters.enter(); // before its handler can start
        let task = dispatcher.take(number, Arc::clone(&job.delivered), &job.token, &job.started, &self.dispositions.0);
        match task {
            Some(task) => self.in_flight.start(number, task),
            None => {
                counters.leave(1);
                self.queue_outcome(number, Disposition::Nak(Duration::ZERO));
            }
        }
    }

    /// Returns the delay of a returned job. It is zero in a drain and in a pause, since this worker
    /// requests no jobs then.
    pub(crate) fn pause_of_return(&self) -> Duration {
        if self.is_open() && !self.is_paused { RETURN_PAUSE } else { Duration::ZERO }
    }

    /// Handles a status message of the server.
    pub(crate) fn receive_status(&mut self, status: StatusCode, message: &async_nats::Message) {
        let text = message.description.as_deref().unwrap_or_default();
        let State::Open(prepared) = &self.state else { return };
        if status == StatusCode::IDLE_HEARTBEAT || !prepared.inbox.owns(&message.subject) {
            return;
        }
        let is_lost = status == StatusCode::NO_RESPONDERS || text.contains("Deleted");
        if let Some(jobs) = inbox::returned(message) {
            self.credit.returned(jobs);
            self.health.is_next_too_large = inbox::is_too_large(message);
            self.health.note_idle(status == StatusCode::TIMEOUT);
        } else if is_lost {
            self.doubts += 1;
            self.lease.void();
            self.emit(&Event::ConsumerLost { consumer: self.context.config.consumer.clone() });
            self.prepare_again();
        } else {
            self.fail(format!("{status} {text}"));
        }
    }
}
