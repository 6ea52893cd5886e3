//! Sends acknowledgements to the consumer, and handles the server's answers.
//!
//! | state of an acknowledgement | what it waits for | next |
//! |---|---|---|
//! | *passed to the client* | the server's answer | *confirmed*; *unacked*, after the request timeout or if the server does not know the consumer |
//! | *queued*: the client's channel is full | room, for the time of a lease | *passed to the client*; *unacked* |
//!
//! An acknowledgement and the request for the next job are passed to the client together, so that
//! they travel together. One that waits for room for longer than a lease is not sent, since the
//! lease is over.

use std::time::{Duration, Instant};

use async_nats::StatusCode;

use super::pending_acks::Ack;
use super::state::WorkerRun;
use crate::io;
use crate::nats::core::time_limit::poll_once;
use crate::nats::worker::ack_preparer::{AckResult, ack_payload};
use crate::nats::worker::command::Command;
use crate::nats::worker::incarnation::LEASE;
use crate::nats::worker::job_task::Disposition;
use crate::sync::Arc;

/// The longest wait for an answer, even if the request timeout is longer.
const MAX_ACK_TIMEOUT: Duration = Duration::from_secs(10);

impl WorkerRun {
    /// Acknowledges a delivery to the consumer.
    pub(crate) fn send_ack(&mut self, delivery: u64, disposition: Disposition) {
        let (Some(job), Some(replies)) = (self.in_flight.get(delivery), &self.acks.replies) else { return };
        let Some(subject) = job.delivered.message.reply.clone() else { return self.lose_outcome(delivery) };
        self.acks.sent += 1;
        let number = self.acks.sent;
        let (reply, word, connection) = (replies.subject(number), ack_payload(&disposition), &self.context.connection);
        let sending = connection.client.publish_with_reply(subject.clone(), reply.clone(), word.clone().into());
        if poll_once(sending).is_none() {
            let (connection, commands) = (Arc::clone(connection), self.context.commands.0.clone());
            self.context.connection.io.spawn(async move {
                let sending = connection.client.publish_with_reply(subject, reply, word.into());
                if io::timeout(LEASE, sending).await.is_err() {
                    let _ = commands.send(Command::Unsent(number));
                }
            });
        }
        let until = Instant::now() + self.context.connection.timeout.min(MAX_ACK_TIMEOUT);
        self.acks.waiting.insert(number, Ack { delivery, disposition, until });
        self.in_flight.mark_acking(delivery);
    }

    /// Handles the server's answer to an acknowledgement.
    pub(crate) fn on_ack_reply(&mut self, message: &async_nats::Message) {
        let number = self.acks.replies.as_ref().and_then(|replies| replies.number(&message.subject));
        let Some(ack) = number.and_then(|number| self.acks.waiting.remove(&number)) else { return };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return self.on_ack_result(
                ack.delivery,
                AckResult::Unacked { disposition: ack.disposition, is_consumer_missing: true },
            );
        }
        let result = AckResult::of(&ack.disposition);
        let Some(job) = self.in_flight.get(ack.delivery) else { return };
        if !matches!(result, AckResult::Done | AckResult::Dead) || !job.delivered.is_recorded() {
            return self.on_ack_result(ack.delivery, result);
        }
        let (delivered, commands) = (Arc::clone(&job.delivered), self.context.commands.0.clone());
        let preparer = Arc::clone(&self.context.preparer);
        self.context.connection.io.spawn(async move {
            preparer.history.erase(&delivered).await;
            let _ = commands.send(Command::AckResult(ack.delivery, result));
        });
    }

    /// Handles an acknowledgement that was not sent, or not answered, in time.
    pub(crate) fn on_unsent(&mut self, number: u64) {
        if let Some(Ack { delivery, disposition, .. }) = self.acks.waiting.remove(&number) {
            self.on_ack_result(delivery, AckResult::Unacked { disposition, is_consumer_missing: false });
        }
    }

    /// Gives up answers that are overdue.
    pub(crate) fn expire_acks(&mut self, now: Instant) {
        while let Some(oldest) = self.acks.waiting.first_entry()
            && oldest.get().until <= now
        {
            let number = *oldest.key();
            self.on_unsent(number);
        }
    }
}
