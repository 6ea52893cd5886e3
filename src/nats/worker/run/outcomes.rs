//! Sends outcomes and heartbeats under a lease, which is a recent check of the stream and the
//! consumer.
//!
//! | result of a check | deliveries of this stream and consumer | deliveries of another consumer of this stream | deliveries of another stream |
//! |---|---|---|---|
//! | unchanged | outcomes and heartbeats are sent | finished jobs are deleted from the stream; all others are delivered again anyway | dropped, counted as lost, reported by an event |
//! | another consumer, or none | wait until the consumer is created again; while draining, as in the next column | | |
//! | another stream | dropped, counted as lost, reported by an event | dropped | dropped |
//! | no stream, no answer | wait for the next check, up to `ack_wait` | wait | dropped |
//!
//! Each check has a number. The result of a check that was started before the lease was voided is
//! ignored.

use std::time::{Duration, Instant};

use super::state::{State, WorkerRun};
use crate::io;
use crate::nats::event::Event;
use crate::nats::worker::ack_preparer::{AckResult, Route};
use crate::nats::worker::command::Command;
use crate::nats::worker::incarnation::{self, LEASE, Origin, OriginCheck, OriginStatus};
use crate::nats::worker::job_task::Disposition;
use crate::nats::worker::metrics::add;
use crate::sync::Arc;

/// The pause between two checks if the first found no answer.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause before a check that was caused by an unknown consumer.
const MISSING_CONSUMER_PAUSE: Duration = Duration::from_millis(20);

impl WorkerRun {
    /// Handles the disposition of a delivery, sent by the pool.
    pub(crate) fn on_disposition(&mut self, number: u64, disposition: Disposition) {
        let Some(job) = self.in_flight.finish(number) else { return };
        if !job.is_stuck {
            return self.queue_outcome(number, disposition);
        }
        // The attempt was given up while its handler ran; the handler has returned now.
        let is_done = matches!(disposition, Disposition::Done);
        if job.is_acked && is_done && !job.is_dead {
            (job.is_stuck, job.give_up_at) = (false, None);
            self.queue_outcome(number, disposition);
        } else if job.is_acked {
            self.release(number);
        } else {
            job.is_stuck = false;
            if is_done && job.disposition.is_some() {
                (job.disposition, job.is_decided) = (Some(disposition), true);
            }
        }
    }

    /// Queues the outcome of a delivery for sending.
    pub(crate) fn queue_outcome(&mut self, number: u64, disposition: Disposition) {
        self.end_turn(number);
        self.key_queues.set_active(number);
        let give_up_at = Instant::now().checked_add(self.context.preparer.ack_wait);
        let Some(job) = self.in_flight.get_mut(number) else { return };
        job.is_decided = matches!(disposition, Disposition::Done | Disposition::Dead { .. });
        job.disposition = Some(disposition);
        if job.give_up_at.is_none() {
            job.give_up_at = give_up_at;
        }
        self.lease.waiting.push_back(number);
    }

    /// Sends the queued outcomes and heartbeats if there is a lease; otherwise starts a check.
    pub(crate) fn send_outcomes(&mut self) {
        if self.lease.waiting.is_empty() && self.lease.heartbeats.is_empty() {
            return;
        }
        let now = Instant::now();
        self.expire_outcomes(now);
        if !self.context.connection.is_connected() {
            self.lease.heartbeats.clear(); // all become due when the connection is back
            return;
        }
        let Some(origin) = self.origin.filter(|_| self.lease.is_fresh()) else {
            if self.lease.next_at.is_none_or(|moment| moment <= now) && self.needs_origin_check() {
                self.check_origin();
            }
            return;
        };
        self.send_heartbeats(origin);
        for _ in 0..self.lease.waiting.len() {
            let Some(number) = self.lease.waiting.pop_front() else { break };
            let Some(job) = self.in_flight.get_mut(number) else { continue };
            let returns = job.disposition.as_ref().is_some_and(Disposition::is_nak);
            if returns && !self.closing.is_empty() {
                self.lease.waiting.push_back(number); // rule 3 of the run
                continue;
            }
            let Some(disposition) = job.disposition.take() else { continue };
            let from = job.delivered.origin;
            if from.stream != origin.stream {
                self.lose_outcome(number);
                continue;
            }
            let is_consumer_lost = from.consumer != origin.consumer || self.lease.is_consumer_gone(origin);
            let route = if is_consumer_lost { Route::Stream } else { Route::Consumer };
            self.send_outcome(number, disposition, route);
        }
    }

    /// Returns `true` if a check would let a queued message be sent.
    fn needs_origin_check(&self) -> bool {
        let helps = |number: &u64| {
            let disposition = self.in_flight.get(*number).and_then(|job| job.disposition.as_ref());
            disposition.is_some_and(|disposition| !disposition.is_nak()) || self.closing.is_empty()
        };
        self.origin.is_some()
            && self.lease.checking.is_none()
            && !matches!(self.state, State::Preparing | State::Pausing { .. })
            && (!self.lease.heartbeats.is_empty() || self.lease.waiting.iter().any(helps))
    }

    /// Sends one outcome, after the steps that come before it.
    fn send_outcome(&mut self, number: u64, disposition: Disposition, route: Route) {
        let Some(job) = self.in_flight.get(number) else { return };
        let needs_more = match disposition {
            Disposition::Dead { .. } => true,
            Disposition::Nak(_) | Disposition::Postpone(_) => !job.is_ready,
            Disposition::Retry(_) => !job.is_ready && job.delivered.has_unrecorded_returns(),
            Disposition::Done | Disposition::DeadLetterStored => false,
        };
        let is_ready = route == Route::Consumer && !needs_more;
        if is_ready && job.doubts == self.doubts {
            return self.send_ack(number, disposition);
        }
        let (delivered, commands) = (Arc::clone(&job.delivered), self.context.commands.0.clone());
        let (preparer, doubts) = (Arc::clone(&self.context.preparer), self.doubts);
        self.context.connection.io.spawn(async move {
            let result = if is_ready {
                preparer.check_place(&delivered, disposition, doubts).await
            } else {
                preparer.prepare(&delivered, disposition, route).await
            };
            let _ = commands.send(Command::AckResult(number, result));
        });
    }

    /// Sends the heartbeats that are due.
    fn send_heartbeats(&mut self, origin: Origin) {
        let numbers = std::mem::take(&mut self.lease.heartbeats);
        let subjects = self.in_flight.subjects(&numbers, |delivered| delivered.origin == origin);
        if subjects.is_empty() {
            return;
        }
        self.in_flight.note_heartbeats(&numbers);
        self.context.counters.note_heartbeats(subjects.len());
        let client = self.context.connection.client.clone();
        let sending = async move {
            for subject in subjects {
                let _ = client.publish(subject, "+WPI".into()).await;
            }
        };
        // After this time the next heartbeats are due.
        let limit = self.context.config.ack_wait / 3;
        self.context.connection.io.spawn(async move { io::timeout(limit, sending).await.unwrap_or(()) });
    }

    /// Starts a check of the stream and the consumer.
    pub(crate) fn check_origin(&mut self) {
        let Some(known) = self.origin else { return };
        if self.lease.checking.is_some() {
            return;
        }
        self.lease.checks += 1;
        let number = self.lease.checks;
        self.lease.checking = Some((number, Instant::now()));
        let (connection, config) = (Arc::clone(&self.context.connection), Arc::clone(&self.context.config));
        let commands = self.context.commands.0.clone();
        self.context.connection.io.spawn(async move {
            let check = incarnation::check_origin(&connection, &config, known).await;
            let _ = commands.send(Command::OriginChecked(number, check));
        });
    }

    pub(crate) fn on_origin_checked(&mut self, number: u64, check: &OriginCheck) {
        if let Some(time) = check.server_time {
            self.clock.learn(time);
        }
        let Some((_, begun_at)) = self.lease.checking.take_if(|(current, _)| *current == number) else { return };
        self.lease.next_at = None;
        if std::mem::take(&mut self.lease.is_for_silence) && matches!(self.state, State::Open(_)) {
            // In any case the request was not answered.
            if check.status == OriginStatus::Silence {
                self.replace_dead_connection();
            }
            return self.fail("the server is silent".to_owned());
        }
        match check.status {
            OriginStatus::Same => {
                self.lease.missing_consumer = None;
                // Even if the answer took long, the messages that waited for it can be sent.
                let earliest = Instant::now().checked_sub(LEASE / 2);
                self.lease.confirmed_at = Some(earliest.map_or(begun_at, |moment| moment.max(begun_at)));
                return;
            }
            OriginStatus::OtherConsumer if self.is_open() => return self.on_consumer_lost(),
            OriginStatus::OtherConsumer => {
                // While draining no consumer is created. Finished jobs are deleted from the stream.
                (self.lease.missing_consumer, self.lease.confirmed_at) = (self.origin, Some(begun_at));
                return;
            }
            OriginStatus::OtherStream if self.is_open() => return self.prepare_again(),
            OriginStatus::OtherStream => self.stream_was_replaced(),
            OriginStatus::NoStream if self.is_open() => {
                self.doubts += 1;
                self.prepare_again();
            }
            OriginStatus::Silence => self.replace_dead_connection(),
            OriginStatus::NoStream | OriginStatus::Unknown(_) => {}
        }
        self.lease.next_at = Instant::now().checked_add(PAUSE);
    }

    /// Creates the consumer again: the server no longer has it.
    fn on_consumer_lost(&mut self) {
        self.doubts += 1;
        self.emit(&Event::ConsumerLost { consumer: self.context.config.consumer.clone() });
        self.prepare_again();
    }

    /// Drops the outcomes of the old stream: another stream has its name now.
    pub(crate) fn stream_was_replaced(&mut self) {
        self.emit(&Event::StreamReplaced { stream: self.context.config.stream.to_string() });
        let now = self.origin.filter(|_| self.is_open());
        for number in self.in_flight.numbers() {
            let Some(job) = self.in_flight.get_mut(number) else { continue };
            let is_old = now.is_none_or(|now| job.delivered.origin.stream != now.stream);
            if is_old && job.disposition.take().is_some() {
                self.lose_outcome(number);
            }
        }
        self.key_queues.forget_expected();
        if now.is_none() {
            self.origin = None;
        }
    }

    /// Gives up outcomes that have waited too long. The server gives those jobs to another worker.
    fn expire_outcomes(&mut self, now: Instant) {
        let is_late = |number: &u64| {
            let moment = self.in_flight.get(*number).and_then(|job| job.give_up_at);
            self.origin.is_none() || moment.is_some_and(|moment| moment <= now)
        };
        let late: Vec<_> = self.lease.waiting.iter().copied().filter(is_late).collect();
        if late.is_empty() {
            return;
        }
        self.lease.waiting.retain(|number| !late.contains(number));
        late.into_iter().for_each(|number| self.lose_outcome(number));
    }

    /// Gives up an outcome, and reports that.
    pub(crate) fn lose_outcome(&mut self, number: u64) {
        if let Some(job) = self.in_flight.get(number) {
            let (subject, sequence) = job.delivered.name();
            self.emit(&Event::AckLost { subject, sequence });
        }
        self.on_ack_result(number, AckResult::Lost);
    }

    /// Handles the result of sending an outcome.
    pub(crate) fn on_ack_result(&mut self, number: u64, result: AckResult) {
        let Some(job) = self.in_flight.get_mut(number) else { return };
        let counters = &self.context.counters;
        let (is_dead, is_lost) = (matches!(result, AckResult::Dead), matches!(result, AckResult::Lost));
        let delay = result.next_delivery();
        match result {
            AckResult::Ready(disposition) => {
                (job.disposition, job.is_ready) = (Some(disposition), true);
                return self.lease.waiting.push_back(number);
            }
            AckResult::InPlace { disposition, doubts } => {
                (job.disposition, job.doubts) = (Some(disposition), doubts);
                return self.lease.waiting.push_back(number);
            }
            AckResult::Unacked { disposition, is_consumer_missing } => {
                job.disposition = Some(disposition);
                self.in_flight.unmark_acking(number);
                self.lease.waiting.push_back(number);
                if self.lease.confirmed_at.take().is_some() {
                    let pause = if is_consumer_missing { MISSING_CONSUMER_PAUSE } else { PAUSE };
                    self.lease.next_at = Instant::now().checked_add(pause);
                }
                return;
            }
            AckResult::Done => counters.note_done(job.delivered.since_due()),
            AckResult::Retried(_) => add(&counters.retried),
            AckResult::Dead => {
                self.context.preparer.history.forget(&job.delivered);
                add(&counters.dead);
            }
            AckResult::Returned(_) => add(&counters.returned),
            AckResult::Postponed => add(&counters.postponed),
            AckResult::Lost => add(&counters.lost),
        }
        let is_stuck = job.is_stuck;
        if is_stuck {
            job.is_dead = is_dead;
            job.is_decided &= !is_lost; // the server delivers it again
            job.is_acked = true; // its handler still holds the slot
        }
        if self.context.order.is_some() {
            self.leave_key_queue(number, delay);
        }
        if !is_stuck {
            self.release(number);
        }
    }

    /// Removes a delivery whose outcome is final.
    pub(crate) fn release(&mut self, number: u64) {
        if let Some(held_slot) = self.in_flight.release(number) {
            self.context.counters.leave(held_slot.into());
            self.solo.note_end(number);
        }
        if self.context.order.is_some() {
            // If it is still there, it had no outcome, and is delivered again.
            self.leave_key_queue(number, Some(Duration::ZERO));
        }
    }

    /// Returns when outcomes need attention next.
    pub(crate) fn outcomes_due_at(&self) -> Option<Instant> {
        if self.lease.waiting.is_empty() && self.lease.heartbeats.is_empty() {
            return None;
        }
        let late = self.lease.waiting.iter().filter_map(|number| self.in_flight.get(*number)?.give_up_at).min();
        let next =
            self.lease.next_at.filter(|_| self.lease.checking.is_none() && self.context.connection.is_connected());
        late.into_iter().chain(next.filter(|_| self.needs_origin_check())).min()
    }
}
