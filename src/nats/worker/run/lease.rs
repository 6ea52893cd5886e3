//! The last look at the stream and the consumer, and what waits for one.

use std::collections::VecDeque;
use std::time::Instant;

use crate::nats::worker::incarnation::{LEASE, Origin};

/// The last check, and what waits for one.
#[derive(Default)]
pub(crate) struct Lease {
    /// When the last look that found all the same was begun.
    pub(crate) confirmed_at: Option<Instant>,
    /// Counts the checks.
    pub(crate) checks: u64,
    /// The look that is under way: its number, and when it was begun.
    pub(crate) checking: Option<(u64, Instant)>,
    /// When the next look may be begun.
    pub(crate) next_at: Option<Instant>,
    /// Whether the look was begun since the inbox was silent.
    pub(crate) is_for_silence: bool,
    /// In a drain: the consumer that was found missing_consumer.
    pub(crate) missing_consumer: Option<Origin>,
    /// Deliveries whose outcome waits to be reported.
    pub(crate) waiting: VecDeque<u64>,
    /// Deliveries that a heartbeat is due for.
    pub(crate) heartbeats: Vec<u64>,
}

impl Lease {
    pub(crate) fn is_fresh(&self) -> bool {
        self.confirmed_at.is_some_and(|moment| moment.elapsed() < LEASE)
    }

    /// What was seen before now counts no longer, nor does a look that is under way.
    pub(crate) fn void(&mut self) {
        (self.confirmed_at, self.checking) = (None, None);
    }

    pub(crate) fn is_consumer_gone(&self, origin: Origin) -> bool {
        self.missing_consumer == Some(origin)
    }
}
