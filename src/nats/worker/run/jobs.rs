//! Asking for jobs, taking what arrives, and telling what became of it.

use std::time::Duration;

use async_nats::StatusCode;

use super::state::{Course, State};
use crate::io;
use crate::nats::event::Event;
use crate::nats::queue::dead_letter::DeadReason;
use crate::nats::worker::command::Note;
use crate::nats::worker::history::WorkerCounters;
use crate::nats::worker::job::Delivered;
use crate::nats::worker::job_task::Verdict;
use crate::nats::worker::metrics::add;
use crate::nats::worker::{inbox, incarnation};
use crate::sync::{Arc, Ordering};

/// After what time a job comes again that this worker has no room for.
const RETURN_PAUSE: Duration = Duration::from_secs(1);
/// How long a job that seems too early waits for the server's time at most.
const PATIENCE: Duration = Duration::from_secs(2);

impl Course {
    pub(crate) fn ask(&mut self) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        if self.was_disconnected
            || self.is_paused
            || self.watch.is_sweeping
            || !self.solo.is_none()
            || self.is_full_of_stuck()
        {
            return;
        }
        let State::Open(prepared) = &mut self.state else { return };
        if !self.credit.is_asking() {
            prepared.inbox.heard(); // the server had no reason to say anything until now
        }
        let most = if self.watch.is_next_too_large { 1 } else { usize::MAX };
        let jobs = self.credit.ask(self.hands.staying(), most);
        if jobs > 0 {
            self.watch.is_next_too_large = false;
            prepared.ask(jobs, self.outfit.terms.max_bytes, &self.outfit.link);
        }
    }

    pub(crate) fn receive(&mut self, message: async_nats::Message) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.heard();
        }
        self.watch.denied = 0;
        // A job may have a status among its headers, too.
        let is_job = message.reply.as_deref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
        match message.status {
            Some(status) if !is_job => self.receive_status(status, &message),
            _ => self.receive_job(message),
        }
    }

    /// Takes a job. One that comes again is looked up first.
    pub(crate) fn receive_job(&mut self, message: async_nats::Message) {
        self.credit.received();
        let read = self.origin.and_then(|origin| Delivered::read(message, origin, &self.clock));
        let Some(delivered) = read else {
            self.tell(&Event::Complaint("a message came that is no job".to_owned()));
            return;
        };
        let counters = &self.outfit.counters;
        add(&counters.delivered);
        if delivered.deliveries > 1 {
            add(&counters.redelivered);
        }
        counters.pending.store(delivered.pending, Ordering::Relaxed);
        let is_new = delivered.deliveries == 1;
        let delivered = Arc::new(delivered);
        let number = self.hands.hold(Arc::clone(&delivered), self.token.child_token());
        if !self.clock.is_known() {
            self.look();
        }
        let is_early = !delivered.until_due().is_zero();
        let asks_for_time = is_early && !self.clock.is_fresh();
        if is_new && !asks_for_time {
            return self.decide(number, WorkerCounters::default());
        }
        let (registrar, notes) = (Arc::clone(&self.outfit.registrar), self.outfit.notes.0.clone());
        let (link, terms) = (Arc::clone(&self.outfit.link), Arc::clone(&self.outfit.terms));
        self.outfit.link.io.spawn(async move {
            if asks_for_time {
                let asking = incarnation::server_time(&link, &terms);
                if let Ok(Some(time)) = io::timeout(PATIENCE, asking).await {
                    delivered.clock.learn(time);
                }
            }
            let record = if is_new { WorkerCounters::default() } else { registrar.history.read(&delivered).await };
            let _ = notes.send(Note::Known(number, record));
        });
    }

    /// Decides what becomes of a delivery, now that all is known of its job.
    pub(crate) fn decide(&mut self, number: u64, record: WorkerCounters) {
        let Some(hand) = self.hands.get(number) else { return };
        let delivered = Arc::clone(&hand.delivered);
        delivered.set_returns(record.returns);
        if record != WorkerCounters::default() {
            delivered.set_recorded();
        }
        let terms = &self.outfit.terms;
        if let Some((reason, error)) = record.dead {
            self.wait_to_tell(number, Verdict::Dead { reason, error });
        } else if !delivered.until_due().is_zero() {
            self.wait_to_tell(number, Verdict::Postpone(Duration::ZERO));
        } else if delivered.attempts() > terms.max_deliveries {
            let error = "it was delivered too often without an outcome".to_owned();
            self.wait_to_tell(number, Verdict::Dead { reason: DeadReason::Deliveries, error });
        } else if !self.is_open() || self.is_paused || self.is_line_full() || self.is_full_of_stuck() {
            self.wait_to_tell(number, Verdict::Return(self.pause_of_return()));
        } else if !self.solo.is_none() || (delivered.attempts() >= terms.alone_from && !self.hands.has_twin(number)) {
            self.take_alone(number);
        } else {
            self.line.push_back(number);
        }
    }

    /// Whether a further delivery would have to wait for more than the confirmation of an outcome.
    fn is_line_full(&self) -> bool {
        self.hands.with_pool() + self.line.len() >= self.credit.slots()
    }

    /// Begins what waits, as far as there are slots.
    pub(crate) fn begin_next(&mut self) {
        while self.hands.slots_taken() < self.credit.slots()
            && let Some(number) = self.line.pop_front()
        {
            self.begin(number);
        }
    }

    /// What waits for a slot goes back.
    pub(crate) fn return_line(&mut self) {
        for number in std::mem::take(&mut self.line) {
            self.wait_to_tell(number, Verdict::Return(Duration::ZERO));
        }
    }

    /// Hands a delivery to the pool.
    pub(crate) fn begin(&mut self, number: u64) {
        let Some(hand) = self.hands.get(number) else { return };
        let (crew, counters) = (&self.outfit.crew, &self.outfit.counters);
        counters.enter(); // before its handler can begin
        let task = crew.take(number, Arc::clone(&hand.delivered), &hand.token, &hand.started, &self.verdicts.0);
        match task {
            Some(task) => self.hands.begin(number, task),
            None => {
                counters.leave(1);
                self.wait_to_tell(number, Verdict::Return(Duration::ZERO));
            }
        }
    }

    /// After what time a job that is given back may come again: at once in a drain and in a pause, since this worker
    /// asks for nothing.
    pub(crate) fn pause_of_return(&self) -> Duration {
        if self.is_open() && !self.is_paused { RETURN_PAUSE } else { Duration::ZERO }
    }

    pub(crate) fn receive_status(&mut self, status: StatusCode, message: &async_nats::Message) {
        let text = message.description.as_deref().unwrap_or_default();
        let State::Open(prepared) = &self.state else { return };
        if status == StatusCode::IDLE_HEARTBEAT || !prepared.inbox.owns(&message.subject) {
            return;
        }
        let is_lost = status == StatusCode::NO_RESPONDERS || text.contains("Deleted");
        if let Some(jobs) = inbox::returned(message) {
            self.credit.returned(jobs);
            self.watch.is_next_too_large = inbox::is_too_large(message);
            self.watch.note_idle(status == StatusCode::TIMEOUT);
        } else if is_lost {
            self.lease.void();
            self.tell(&Event::ConsumerLost { consumer: self.outfit.terms.consumer.clone() });
            self.prepare_anew();
        } else {
            self.fail(format!("{status} {text}"));
        }
    }
}
