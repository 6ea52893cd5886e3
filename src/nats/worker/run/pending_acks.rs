//! The acknowledgements that wait for the server's answer.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::nats::worker::inbox::Replies;
use crate::nats::worker::job_task::Disposition;

/// The acknowledgements that the server has not answered.
#[derive(Default)]
pub(crate) struct Acks {
    /// Where the answers arrive, once there is a consumer.
    pub(crate) replies: Option<Replies>,
    /// Counts the acknowledgements; the answer to each names its number.
    pub(crate) sent: u64,
    /// By number, so the oldest comes first.
    pub(crate) waiting: BTreeMap<u64, Ack>,
}

/// One of them.
pub(crate) struct Ack {
    /// The number of the delivery.
    pub(crate) delivery: u64,
    pub(crate) disposition: Disposition,
    /// When the answer is given up.
    pub(crate) until: Instant,
}

impl Acks {
    /// When to look for answers that do not come.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, ack)| ack.until)
    }

    /// The next answer.
    pub(crate) fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<async_nats::Message> {
        let Some(replies) = &mut self.replies else { return Poll::Pending };
        match replies.poll_next(context) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            // It ends with the client only.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
