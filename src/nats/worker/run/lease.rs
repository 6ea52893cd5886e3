//! The lease under which outcomes are sent: the last check of the stream and the consumer.

use std::collections::VecDeque;
use std::time::Instant;

use crate::nats::worker::incarnation::{LEASE, Origin};

/// The last check, and the messages that wait for one.
#[derive(Default)]
pub(crate) struct Lease {
    /// When the last check that found no change was started.
    pub(crate) confirmed_at: Option<Instant>,
    /// The number of checks.
    pub(crate) checks: u64,
    /// The running check: its number and when it was started.
    pub(crate) checking: Option<(u64, Instant)>,
    /// The earliest time of the next check.
    pub(crate) next_at: Option<Instant>,
    /// Whether the check was started because the inbox was silent.
    pub(crate) is_for_silence: bool,
    /// While draining: the consumer that was found missing.
    pub(crate) missing_consumer: Option<Origin>,
    /// Deliveries whose outcome is to be sent.
    pub(crate) waiting: VecDeque<u64>,
    /// Deliveries that are due for a heartbeat.
    pub(crate) heartbeats: Vec<u64>,
}

impl Lease {
    pub(crate) fn is_fresh(&self) -> bool {
        self.confirmed_at.is_some_and(|moment| moment.elapsed() < LEASE)
    }

    /// Voids the lease and any running check.
    pub(crate) fn void(&mut self) {
        (self.confirmed_at, self.checking) = (None, None);
    }

    pub(crate) fn is_consumer_gone(&self, origin: Origin) -> bool {
        self.missing_consumer == Some(origin)
    }
}
