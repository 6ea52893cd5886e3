//! Asking for jobs, taking what arrives, and telling what became of it.

use async_nats::StatusCode;

use super::{Course, Note, State};
use crate::nats::attempt::Verdict;
use crate::nats::dead_letter::DeadReason;
use crate::nats::event::Event;
use crate::nats::inbox;
use crate::nats::job::Delivered;
use crate::nats::metrics::add;
use crate::nats::outcome::Settled;
use crate::sync::Arc;

impl Course {
    pub(super) fn ask(&mut self) {
        let State::Open(prepared) = &mut self.state else { return };
        if self.was_disconnected {
            return;
        }
        if !self.credit.is_asking() {
            prepared.inbox.heard(); // the server had no reason to say anything until now
        }
        let jobs = self.credit.ask(self.hands.len());
        if jobs > 0 {
            prepared.ask(jobs, &self.outfit.link);
        }
    }

    pub(super) fn receive(&mut self, message: async_nats::Message) {
        if let State::Open(prepared) = &mut self.state {
            prepared.inbox.heard();
        }
        match message.status {
            None | Some(StatusCode::OK) => self.receive_job(message),
            Some(status) => self.receive_status(status, &message),
        }
    }

    pub(super) fn receive_job(&mut self, message: async_nats::Message) {
        self.credit.received();
        let Some(delivered) = Delivered::read(message) else {
            self.tell(&Event::Complaint("a message came that is no job".to_owned()));
            return;
        };
        let counters = &self.outfit.counters;
        add(&counters.delivered);
        if delivered.deliveries > 1 {
            add(&counters.redelivered);
        }
        counters.enter();
        let delivered = Arc::new(delivered);
        let (number, token) = (self.hands.next_number(), self.token.child_token());
        let verdict = if delivered.deliveries > self.outfit.terms.max_deliveries {
            let error = "it was delivered too often without an outcome".to_owned();
            Some(Verdict::Dead { reason: DeadReason::Deliveries, error })
        } else if self.hands.len() >= self.outfit.slots || !self.is_open() {
            Some(Verdict::Return)
        } else {
            None
        };
        let task = match &verdict {
            Some(_) => None,
            None => self.outfit.crew.take(number, Arc::clone(&delivered), &token, &self.verdicts.0),
        };
        let is_refused = task.is_none();
        self.hands.hold(delivered, token, task);
        if is_refused {
            self.settle(number, verdict.unwrap_or(Verdict::Return));
        }
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
        let is_lost = status == StatusCode::NO_RESPONDERS || text.eq_ignore_ascii_case("Consumer Deleted");
        if let Some(jobs) = inbox::returned(message) {
            self.credit.returned(jobs);
        } else if is_lost {
            self.tell(&Event::ConsumerLost { consumer: self.outfit.terms.consumer.clone() });
            self.prepare_anew();
        } else {
            self.fail(format!("{status} {text}"));
        }
    }

    /// There is a verdict: tells the server.
    pub(super) fn settle(&mut self, number: u64, verdict: Verdict) {
        let Some(hand) = self.hands.ended(number) else { return };
        if hand.is_stuck && matches!(verdict, Verdict::Retry(_)) {
            // It is on its way to somebody else, by the server's own clock.
            return self.let_go(number, Settled::Lost);
        }
        let (delivered, notes) = (Arc::clone(&hand.delivered), self.outfit.notes.0.clone());
        let registrar = Arc::clone(&self.outfit.registrar);
        self.outfit.link.io.spawn(async move {
            let settled = registrar.settle(&delivered, verdict).await;
            let _ = notes.send(Note::Settled(number, settled));
        });
    }

    pub(super) fn let_go(&mut self, number: u64, settled: Settled) {
        let Some(hand) = self.hands.release(number) else { return };
        let counters = &self.outfit.counters;
        match settled {
            Settled::Done => counters.note_done(hand.delivered.age()),
            Settled::Retried => add(&counters.retried),
            Settled::Dead => add(&counters.dead),
            Settled::Returned => add(&counters.returned),
            Settled::Lost => add(&counters.lost),
        }
        counters.leave(1);
    }
}
