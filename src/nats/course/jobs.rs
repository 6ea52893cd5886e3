//! Asking for jobs, taking what arrives, and telling what became of it.

use std::time::Duration;

use async_nats::StatusCode;

use super::{Course, Note, State};
use crate::nats::attempt::Verdict;
use crate::nats::dead_letter::DeadReason;
use crate::nats::event::Event;
use crate::nats::history::WorkerCounters;
use crate::nats::inbox;
use crate::nats::job::Delivered;
use crate::nats::metrics::add;
use crate::sync::Arc;

/// After what time a job comes again that this worker has no room for.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

impl Course {
    pub(super) fn ask(&mut self) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        if self.was_disconnected || self.watch.is_sweeping || !self.solo.is_none() || self.is_full_of_stuck() {
            return;
        }
        let State::Open(prepared) = &mut self.state else { return };
        if !self.credit.is_asking() {
            prepared.inbox.heard(); // the server had no reason to say anything until now
        }
        let most = if self.watch.is_next_too_large { 1 } else { usize::MAX };
        let jobs = self.credit.ask(self.hands.len(), most);
        if jobs > 0 {
            self.watch.is_next_too_large = false;
            prepared.ask(jobs, self.outfit.terms.max_bytes, &self.outfit.link);
        }
    }

    pub(super) fn receive(&mut self, message: async_nats::Message) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.heard();
        }
        // A job may have a status among its headers, too.
        let is_job = message.reply.as_deref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
        match message.status {
            Some(status) if !is_job => self.receive_status(status, &message),
            _ => self.receive_job(message),
        }
    }

    /// Takes a job. One that comes again is looked up first.
    pub(super) fn receive_job(&mut self, message: async_nats::Message) {
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
        counters.enter();
        let is_new = delivered.deliveries == 1;
        let delivered = Arc::new(delivered);
        let number = self.hands.hold(Arc::clone(&delivered), self.token.child_token());
        if !self.clock.is_known() {
            self.look();
        }
        if is_new {
            return self.decide(number, WorkerCounters::default());
        }
        let (registrar, notes) = (Arc::clone(&self.outfit.registrar), self.outfit.notes.0.clone());
        self.outfit.link.io.spawn(async move {
            let record = registrar.history.read(&delivered).await;
            let _ = notes.send(Note::Known(number, record));
        });
    }

    /// Decides what becomes of a delivery, now that all is known of its job.
    pub(super) fn decide(&mut self, number: u64, record: WorkerCounters) {
        let Some(hand) = self.hands.get(number) else { return };
        let delivered = Arc::clone(&hand.delivered);
        delivered.set_returns(record.returns);
        if record != WorkerCounters::default() {
            delivered.set_recorded();
        }
        let terms = &self.outfit.terms;
        if let Some((reason, error)) = record.dead {
            self.wait_to_tell(number, Verdict::Dead { reason, error });
        } else if delivered.attempts() > terms.max_deliveries {
            let error = "it was delivered too often without an outcome".to_owned();
            self.wait_to_tell(number, Verdict::Dead { reason: DeadReason::Deliveries, error });
        } else if !self.is_open() || self.hands.len() > self.outfit.slots || self.is_full_of_stuck() {
            self.wait_to_tell(number, Verdict::Return(self.pause_of_return()));
        } else if !self.solo.is_none() || (delivered.attempts() >= terms.alone_from && !self.hands.has_twin(number)) {
            self.take_alone(number);
        } else {
            self.begin(number);
        }
    }

    /// Hands a delivery to the pool.
    pub(super) fn begin(&mut self, number: u64) {
        let Some(hand) = self.hands.get(number) else { return };
        let crew = &self.outfit.crew;
        let task = crew.take(number, Arc::clone(&hand.delivered), &hand.token, &hand.started, &self.verdicts.0);
        match task {
            Some(task) => self.hands.begin(number, task),
            None => self.wait_to_tell(number, Verdict::Return(Duration::ZERO)),
        }
    }

    /// After what time a job that is given back may come again: at once in a drain, since this worker asks for nothing.
    pub(super) fn pause_of_return(&self) -> Duration {
        if self.is_open() { RETURN_PAUSE } else { Duration::ZERO }
    }

    /// Whether jobs may still be begun.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Draining { .. })
    }

    pub(super) fn receive_status(&mut self, status: StatusCode, message: &async_nats::Message) {
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
