//! One run of a worker: a future on the I/O thread that requests jobs, dispatches them and sends
//! acknowledgements.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | *preparing* | the consumer and an inbox | *open*; *pausing* |
//! | *pausing* | a moment, or the connection | *preparing* |
//! | *open* | jobs | *preparing*, when the consumer, the connection or the server's heartbeat is lost; *draining* |
//! | *draining* | running handlers, and messages on their way | *ended*, at the deadline at the latest |
//!
//! Rules:
//! 1. A delivery is in flight from its arrival until the server has confirmed its outcome. It holds
//!    a slot from the moment it is given to the pool.
//! 2. Requested and in-flight jobs together never exceed the slots, except for deliveries whose
//!    acknowledgement is on its way. The next job is requested together with that acknowledgement,
//!    and waits in the *pending* list until the slot is confirmed free. Excess jobs, which arrive
//!    if a request was wrongly presumed lost, are returned with a nak.
//! 3. An inbox that is abandoned is closed. The messages that the server sent before that are taken
//!    or returned. No job is returned before the server has closed the inbox, or the job would
//!    arrive by it again.
//! 4. Acknowledgements and heartbeats are sent under a lease (see `incarnation`). `outcomes` takes
//!    the leases.
//! 5. A job that was delivered many times without an outcome runs alone (see `solo`).
//! 6. A disposition is sent once, by the thread that claims the task (see `job_task`). Everything
//!    else happens in this one future, so it needs no lock.
//!
//! `state` holds the data of a run, and depends on none of the files that act on it.

pub(crate) mod state;
mod pending_acks;
mod lease;
mod order;
mod health;
mod send_acks;
mod batch;
mod consumer;
mod jobs;
mod outcomes;
mod rate;
mod resize;
mod solo;
mod watch;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use self::state::{State, WorkerRun};
use super::ack_preparer::AckResult;
use super::config::RunReport;
use super::inbox::{Inbox, Source};
use super::job_task::Disposition;
use super::metrics::add;
use crate::error::CancelReason;
use crate::nats::core::dispatch::ConnectionEvent;
use crate::nats::error::WorkerError;
use crate::nats::event::Event;
use crate::nats::worker::command::Command;

/// The error of a handler that does not return.
const STUCK: &str = "the handler ran for longer than `stuck_after`";

/// The next event that a run handles.
enum Step {
    Command(Command),
    Disposition(u64, Disposition),
    /// A message, and what its inbox knows of the stream.
    Arrival(async_nats::Message, Source),
    /// The server's answer to an acknowledgement.
    Reply(async_nats::Message),
    /// A deadline has passed, or an inbox has ended.
    Time,
}

impl WorkerRun {
    /// Runs until the run has drained, or has failed for good.
    pub(crate) async fn run(mut self) -> Result<RunReport, WorkerError> {
        loop {
            if let Some(result) = self.result_if_ended() {
                self.token.cancel_with(CancelReason::Requested);
                self.end_turns();
                self.context.counters.leave(self.in_flight.slots_taken());
                self.context.counters.change_slots(self.credit.slots(), 0);
                return result;
            }
            let step = poll_fn(|context| self.poll_step(context)).await;
            self.look_again_at = None;
            match step {
                Step::Command(command) => self.on_command(command),
                Step::Disposition(number, disposition) => self.on_disposition(number, disposition),
                Step::Arrival(message, source) => self.on_message(message, source),
                Step::Reply(message) => self.on_ack_reply(&message),
                Step::Time => self.on_tick(),
            }
            self.start_solo();
            self.start_next();
            self.send_outcomes();
            if !self.pending.is_empty() {
                self.start_next(); // an outcome that was given up may have freed a key
            }
            self.settle_turns();
            self.request_jobs();
        }
    }

    /// Returns the result of the run, if it has ended.
    fn result_if_ended(&mut self) -> Option<Result<RunReport, WorkerError>> {
        let State::Draining { until, error, .. } = &mut self.state else { return None };
        let is_empty = self.in_flight.is_empty() && self.closing.is_empty();
        let is_late = match until {
            Some(moment) => Instant::now() >= *moment,
            // A report ends every wait without a limit. What has ended is still confirmed.
            None => self.is_left_behind && self.closing.is_empty() && self.in_flight.are_all_running(),
        };
        if !is_empty && !is_late {
            return None;
        }
        let report = RunReport { drained: is_empty, jobs_left: self.in_flight.len() };
        Some(error.take().map_or(Ok(report), Err))
    }

    /// Polls the sources of events. Dispositions and acknowledgements come first, since they free
    /// slots; then commands, messages and the clock.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(Some((number, disposition))) = self.dispositions.1.poll_recv(context) {
            return Poll::Ready(Step::Disposition(number, disposition));
        }
        if let Poll::Ready(message) = self.acks.poll_reply(context) {
            return Poll::Ready(Step::Reply(message));
        }
        if let Poll::Ready(Some(command)) = self.context.commands.1.poll_recv(context) {
            return Poll::Ready(Step::Command(command));
        }
        if let State::Open(prepared) = &mut self.state {
            match prepared.inbox.poll_next(context) {
                Poll::Ready(Some(message)) => return Poll::Ready(Step::Arrival(message, prepared.inbox.source)),
                Poll::Ready(None) => {
                    self.prepare_again();
                    return Poll::Ready(Step::Time);
                }
                Poll::Pending => {}
            }
        }
        let now = Instant::now();
        self.poll_closing(context, now).map_or_else(|| self.poll_clock(context, now), Poll::Ready)
    }

    /// Polls the inboxes that are being closed. The end of an inbox is a step as well.
    fn poll_closing(&mut self, context: &mut Context<'_>, now: Instant) -> Option<Step> {
        for place in 0..self.closing.len() {
            match self.closing[place].poll_next(context) {
                Poll::Ready(Some(message)) => return Some(Step::Arrival(message, self.closing[place].source)),
                Poll::Pending if !self.closing[place].is_overdue(now) => {}
                Poll::Ready(None) | Poll::Pending => {
                    self.closing.swap_remove(place);
                    // A check that starts now ends after the server has closed the inbox.
                    self.lease.void();
                    return Some(Step::Time);
                }
            }
        }
        None
    }

    /// Polls the timer for the next deadline.
    fn poll_clock(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<Step> {
        let Some(due) = self.next_due() else { return Poll::Pending };
        if due <= now {
            return Poll::Ready(Step::Time);
        }
        // Only an earlier deadline resets the timer: the deadline changes with each job.
        if due < self.wakes_at || self.wakes_at <= now {
            self.wakes_at = due;
            self.sleep.as_mut().reset(due.into());
        }
        self.sleep.as_mut().poll(context).map(|()| Step::Time)
    }

    /// Returns the time of the next deadline, if there is one.
    fn next_due(&self) -> Option<Instant> {
        let of_state = match &self.state {
            State::Pausing { until } => Some(*until),
            State::Open(prepared) if self.credit.has_requests() => Some(prepared.inbox.heartbeat_deadline()),
            State::Draining { last_call, until, .. } => last_call.or(*until),
            State::Preparing | State::Open(_) => None,
        };
        let overdue = self.closing.iter().filter_map(Inbox::overdue_at);
        let (in_flight, acks) = (self.in_flight.next_check(), self.acks.next_due());
        let own = [in_flight, acks, self.outcomes_due_at(), self.solo.next_due(), self.health.next_due()];
        let limits = [self.key_queues.next_check(), self.look_again_at];
        overdue.chain(of_state).chain(own.into_iter().chain(limits).flatten()).min()
    }

    /// Handles every deadline that has passed.
    fn on_tick(&mut self) {
        let now = Instant::now();
        match &mut self.state {
            State::Pausing { until } if *until <= now => self.prepare(),
            State::Open(prepared) if prepared.inbox.heartbeat_deadline() <= now && self.credit.has_requests() => {
                self.check_server();
            }
            State::Draining { last_call, .. } if last_call.is_some_and(|moment| moment <= now) => {
                *last_call = None;
                self.token.cancel_with(CancelReason::Requested);
                self.return_waiting();
            }
            _ => {}
        }
        if self.health.is_disconnected_too_long(now) && self.was_disconnected && matches!(self.state, State::Open(_)) {
            self.fail("the server is silent".to_owned());
        }
        self.expire_acks(now);
        let due = self.in_flight.due(now);
        for number in due.stuck {
            self.on_stuck(number);
        }
        self.lease.heartbeats.extend(due.heartbeats);
        self.find_leftovers(now);
        self.check_expected(now);
        self.expire_solo(now);
    }

    /// Treats a job that has run for too long as a failed attempt.
    fn on_stuck(&mut self, number: u64) {
        let Some(job) = self.in_flight.get_mut(number) else { return };
        job.token.cancel();
        add(&self.context.counters.stuck);
        let (subject, sequence) = job.delivered.name();
        let disposition = self.context.dispatcher.failure(STUCK.to_owned(), &job.delivered);
        self.queue_outcome(number, disposition);
        self.emit(&Event::JobStuck { subject, sequence });
        if self.is_pool_stuck() {
            // Jobs that wait for a worker of this pool could run elsewhere.
            self.return_queued();
            if matches!(self.state, State::Open(_)) {
                self.prepare_again();
            }
        }
    }

    /// Returns `true` if stuck handlers occupy all workers of the pool.
    fn is_pool_stuck(&self) -> bool {
        let stuck = self.in_flight.stuck_handlers();
        stuck > 0 && stuck >= self.context.dispatcher.workers()
    }

    /// Handles a command.
    fn on_command(&mut self, command: Command) {
        match command {
            Command::AckResult(number, AckResult::Lost) => self.lose_outcome(number),
            Command::AckResult(number, result) => self.on_ack_result(number, result),
            Command::Unsent(number) => self.on_unsent(number),
            Command::Connection(ConnectionEvent::Disconnected) => {
                self.health.note_disconnected(self.credit.has_requests());
                self.was_disconnected = true;
                self.doubts += 1;
                self.lease.void();
                self.credit.forget();
            }
            Command::Connection(ConnectionEvent::Denied(denial)) => self.on_denied(&denial),
            Command::Connection(ConnectionEvent::Connected) => {
                self.in_flight.heartbeat_now();
                self.lease.void();
                self.context.preparer.history.retry_reads();
                let stale = matches!(self.state, State::Open(_) | State::Preparing) && self.was_disconnected;
                if stale || matches!(self.state, State::Pausing { .. }) {
                    self.prepare_again();
                }
            }
            Command::Prepared(number, prepared) if number == self.prepare_count => self.on_prepared(prepared),
            Command::Prepared(..) => {}
            Command::OriginChecked(number, check) => self.on_origin_checked(number, &check),
            Command::Known(number, delivered, record) => self.on_known(number, &delivered, record),
            Command::Swept => self.health.is_sweeping = false,
            Command::Leftovers(found) => self.on_leftovers(found),
            Command::Begun(number) => self.end_turn(number),
            Command::TurnsChanged => {} // each step looks for free turns
            Command::JobsGone(gone) => self.on_jobs_gone(gone),
            Command::Slots(slots) => self.set_slots(slots),
            Command::Pause(is_paused) => self.pause(is_paused),
            Command::Drain => self.drain(None),
            Command::LeftBehind => {
                self.is_left_behind = true;
                self.return_waiting();
            }
        }
    }
}
