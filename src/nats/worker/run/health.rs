//! What a run knows of its connection, and of finished jobs that are still stored.

use std::time::{Duration, Instant};

/// The time without a connection after which the consumer counts as lost.
const MAX_DISCONNECTED: Duration = Duration::from_secs(15);

/// The state of the connection and of searches for faulty jobs.
#[derive(Default)]
pub(crate) struct Health {
    /// When the connection broke; `None` if it is up.
    pub(crate) disconnected_at: Option<Instant>,
    /// Whether the connection broke while jobs were requested. One of those jobs may be the cause.
    pub(crate) may_have_culprit: bool,
    /// Whether the run has had a consumer.
    pub(crate) has_started: bool,
    /// When the last search for such jobs started.
    pub(crate) swept_at: Option<Instant>,
    /// Whether such a search is running. No jobs are requested meanwhile.
    pub(crate) is_sweeping: bool,
    /// Whether the next job is larger than the rest of the requested bytes.
    pub(crate) is_next_too_large: bool,
    /// The number of consecutive requests for jobs that the server did not permit.
    pub(crate) denied: u32,
    /// When to search for finished jobs that are still stored.
    pub(crate) next_check: Option<Instant>,
    /// The first job that the last search found.
    pub(crate) seen: Option<u64>,
    /// The first job that an event reported.
    pub(crate) reported: Option<u64>,
}

impl Health {
    pub(crate) fn note_disconnected(&mut self, has_requests: bool) {
        self.disconnected_at = Some(Instant::now());
        self.may_have_culprit |= has_requests;
    }

    /// Returns `true`, once, if the connection has been down for too long.
    pub(crate) fn is_disconnected_too_long(&mut self, now: Instant) -> bool {
        self.disconnected_at.take_if(|moment| now.saturating_duration_since(*moment) >= MAX_DISCONNECTED).is_some()
    }

    /// Notes that the server had no job for a while: a good moment for a search.
    pub(crate) fn note_idle(&mut self, is_idle: bool) {
        if is_idle && self.next_check.is_none() {
            self.next_check = Some(Instant::now());
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next_check.into_iter().chain(self.disconnected_at.map(|moment| moment + MAX_DISCONNECTED)).min()
    }
}
