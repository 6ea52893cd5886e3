//! Runs the jobs of each key one at a time and in order. See `key_queues`.
//!
//! A job that waits for its key is in hand: it has heartbeats, and no slot. There are at most as
//! many as the look-ahead allows. When three quarters of it are used up, the run requests no jobs,
//! with one exception: if an expected job is due, it requests one, since the server delivers that
//! first. Another job may arrive instead, and uses up a part of the rest. When nothing is left, it
//! goes back.

use std::time::{Duration, Instant};

use super::state::{State, WorkerRun};
use crate::nats::worker::command::Command;
use crate::nats::worker::job_task::Disposition;
use crate::nats::worker::key_queues::Key;
use crate::nats::worker::leftover;
use crate::sync::Arc;

/// How long after an expected job is due it is requested although the look-ahead is used up. The
/// server may take this long to notice that it is due.
const PROBE_DELAY: Duration = Duration::from_millis(20);
/// The pause between two such requests, if the first brought another job.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// This part of the look-ahead is used only by such requests.
const RESERVE: usize = 4;
/// The longest delay after which a job is expected.
const MAX_DELAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl WorkerRun {
    /// Gives a delivery that has arrived its place among the jobs of its key. Calls user code.
    pub(crate) fn enter_key_queue(&mut self, number: u64) {
        let Some(order) = &self.context.order else { return };
        let Some(job) = self.in_flight.get_mut(number) else { return };
        match order.key_of(&self.context.dispatcher.to_job(&job.delivered, &job.token)) {
            Ok(key) => {
                if self.key_queues.insert(key, job.delivered.sequence, number) {
                    self.probe_at = None;
                }
            }
            Err(error) => job.key_error = Some(error),
        }
    }

    /// Starts a delivery if no earlier job of its key is left; otherwise it waits, or goes back if
    /// too many wait.
    pub(crate) fn admit_in_order(&mut self, number: u64) {
        if !self.solo.is_none() {
            // A job that waited here would keep that job from running alone.
            return self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        }
        let next = self.key_queues.set_ready(number);
        if next != Some(number) && self.key_queues.waiting() > self.lookahead() {
            self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        }
        self.admit_next(next);
    }

    /// Starts a job whose key is free.
    pub(crate) fn admit_next(&mut self, next: Option<u64>) {
        let Some(number) = next else { return };
        if !self.is_open() {
            let delay = self.key_queues.delay_of(number, Instant::now());
            self.queue_outcome(number, Disposition::Nak(delay));
        } else if self.is_paused || self.is_pool_stuck() {
            self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        } else {
            self.admit(number);
        }
    }

    /// Frees the key of a delivery, unless the job is to be delivered again after a delay.
    pub(crate) fn leave_key_queue(&mut self, number: u64, delay: Option<Duration>) {
        let expected_at = delay.map(|delay| Instant::now() + delay.min(MAX_DELAY));
        let next = self.key_queues.end(number, expected_at);
        self.admit_next(next);
    }

    /// Returns the jobs that wait for their key, those of each key one after the other.
    pub(crate) fn drain_key_queues(&mut self) {
        for number in self.key_queues.drain() {
            self.admit_next(Some(number));
        }
    }

    /// Returns at once the jobs that still wait for their key in a drain.
    pub(crate) fn return_waiting(&mut self) {
        for number in self.key_queues.ready() {
            self.queue_outcome(number, Disposition::Nak(Duration::ZERO));
        }
    }

    /// Frees the keys of jobs that the server no longer has.
    pub(crate) fn on_jobs_gone(&mut self, gone: Vec<(Key, u64)>) {
        for (key, sequence) in gone {
            let next = self.key_queues.remove_expected(key, sequence);
            self.admit_next(next);
        }
    }

    /// Asks the server for expected jobs that are overdue.
    pub(crate) fn check_expected(&mut self, now: Instant) {
        let overdue = self.key_queues.take_overdue(now);
        if overdue.is_empty() || !matches!(self.state, State::Open(_)) || !self.context.connection.is_connected() {
            return;
        }
        let (connection, config) = (Arc::clone(&self.context.connection), Arc::clone(&self.context.config));
        let commands = self.context.commands.0.clone();
        self.context.connection.io.spawn(async move {
            let mut gone = Vec::new();
            for (key, sequence) in overdue {
                if leftover::is_gone(&connection, &config, sequence).await {
                    gone.push((key, sequence));
                }
            }
            let _ = commands.send(Command::JobsGone(gone));
        });
    }

    /// Returns how many more jobs may be requested, as far as the look-ahead allows.
    pub(crate) fn requests_ahead(&mut self) -> usize {
        if self.context.order.is_none() {
            return usize::MAX;
        }
        let lookahead = self.lookahead();
        let ordinary = lookahead - lookahead / RESERVE;
        let ahead = ordinary.saturating_sub(self.key_queues.waiting() + self.credit.requested());
        let has_room = self.in_flight.not_acking() < self.key_queues.waiting() + self.credit.slots();
        if ahead > 0 || self.credit.has_requests() || !has_room {
            return ahead;
        }
        let Some(due_at) = self.key_queues.first_due() else { return 0 };
        let (due_at, now) = (due_at + PROBE_DELAY, Instant::now());
        let probe_at = self.probe_at.map_or(due_at, |moment| moment.max(due_at));
        if probe_at > now {
            self.look_again(Some(probe_at));
            return 0;
        }
        self.probe_at = now.checked_add(PROBE_PAUSE);
        self.look_again(self.probe_at);
        1
    }

    /// Returns how many jobs may wait for their key.
    pub(crate) fn lookahead(&self) -> usize {
        let order = self.context.order.as_ref();
        order.map_or(usize::MAX, |order| order.lookahead(self.credit.slots()))
    }
}
