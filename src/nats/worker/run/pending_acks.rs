//! The acknowledgements that wait for the server's answer.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::nats::worker::inbox::Replies;
use crate::nats::worker::job_task::Disposition;

/// The acknowledgements that the server has not answered.
#[derive(Default)]
pub(crate) struct PendingAcks {
    /// The subscription for the answers, once there is a consumer.
    pub(crate) replies: Option<Replies>,
    /// The number of acknowledgements; each answer names the number of its own.
    pub(crate) sent: u64,
    /// By number, so the oldest comes first.
    pub(crate) waiting: BTreeMap<u64, Ack>,
}

/// An acknowledgement that was sent.
pub(crate) struct Ack {
    /// The number of the delivery.
    pub(crate) delivery: u64,
    pub(crate) disposition: Disposition,
    /// When to stop waiting for the answer.
    pub(crate) until: Instant,
}

impl PendingAcks {
    /// Returns when the oldest answer is overdue.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, ack)| ack.until)
    }

    /// Polls for the next answer.
    pub(crate) fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<async_nats::Message> {
        let Some(replies) = &mut self.replies else { return Poll::Pending };
        match replies.poll_next(context) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            // The subscription ends only with the client.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
