//! Tells outcomes to the consumer, and hears that the server has taken them.
//!
//! | state of an acknowledgement | what it waits for | next |
//! |---|---|---|
//! | *handed over* | the server's answer | *confirmed*; *untold*, after the time of an answer or when the server knows no such consumer |
//! | *queued*: the client's channel is full | room, for the time of a lease | *handed over*; *untold* |
//!
//! An acknowledgement and the question for the next job are handed over together, so that they travel together.
//! One that waits for room for longer than a lease is not sent: the lease is over.

use std::time::{Duration, Instant};

use async_nats::StatusCode;

use super::state::Course;
use crate::io;
use crate::nats::core::time_limit::hand_over;
use crate::nats::worker::ack::{Settled, word_of};
use crate::nats::worker::command::Note;
use crate::nats::worker::incarnation::LEASE;
use crate::nats::worker::job_task::Verdict;
use crate::nats::worker::run::pending_acks::Ack;
use crate::sync::Arc;

/// The longest that an answer is waited for, whatever the time of an answer is.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Course {
    /// Tells the consumer the outcome of a delivery.
    pub(crate) fn send_ack(&mut self, delivery: u64, verdict: Verdict) {
        let (Some(hand), Some(replies)) = (self.hands.get(delivery), &self.acks.replies) else { return };
        let Some(subject) = hand.delivered.message.reply.clone() else { return self.lose(delivery) };
        self.acks.sent += 1;
        let number = self.acks.sent;
        let (reply, word, link) = (replies.subject(number), word_of(&verdict), &self.outfit.link);
        let sending = link.client.publish_with_reply(subject.clone(), reply.clone(), word.clone().into());
        if hand_over(sending).is_none() {
            let (link, notes) = (Arc::clone(link), self.outfit.notes.0.clone());
            self.outfit.link.io.spawn(async move {
                let sending = link.client.publish_with_reply(subject, reply, word.into());
                if io::timeout(LEASE, sending).await.is_err() {
                    let _ = notes.send(Note::Unsent(number));
                }
            });
        }
        let until = Instant::now() + self.outfit.link.timeout.min(LONGEST_WAIT);
        self.acks.waiting.insert(number, Ack { delivery, verdict, until });
        self.hands.leave(delivery);
    }

    /// The server has answered an acknowledgement.
    pub(crate) fn hear_reply(&mut self, message: &async_nats::Message) {
        let number = self.acks.replies.as_ref().and_then(|replies| replies.number(&message.subject));
        let Some(ack) = number.and_then(|number| self.acks.waiting.remove(&number)) else { return };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return self.settled(ack.delivery, Settled::Untold { verdict: ack.verdict, is_gone: true });
        }
        let settled = Settled::of(&ack.verdict);
        let Some(hand) = self.hands.get(ack.delivery) else { return };
        if !matches!(settled, Settled::Done | Settled::Dead) || !hand.delivered.is_recorded() {
            return self.settled(ack.delivery, settled);
        }
        let (delivered, notes) = (Arc::clone(&hand.delivered), self.outfit.notes.0.clone());
        let registrar = Arc::clone(&self.outfit.registrar);
        self.outfit.link.io.spawn(async move {
            registrar.history.erase(&delivered).await;
            let _ = notes.send(Note::Settled(ack.delivery, settled));
        });
    }

    /// An acknowledgement was not handed over in time.
    pub(crate) fn unsent(&mut self, number: u64) {
        if let Some(Ack { delivery, verdict, .. }) = self.acks.waiting.remove(&number) {
            self.settled(delivery, Settled::Untold { verdict, is_gone: false });
        }
    }

    /// Gives answers up that do not come.
    pub(crate) fn look_for_late_replies(&mut self, now: Instant) {
        while let Some(oldest) = self.acks.waiting.first_entry()
            && oldest.get().until <= now
        {
            let number = *oldest.key();
            self.unsent(number);
        }
    }
}
