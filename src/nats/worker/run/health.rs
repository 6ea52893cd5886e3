//! What a run knows of its connection and of jobs that stay stored.

use std::time::{Duration, Instant};

/// After how long without a connection the consumer counts as lost.
const MAX_DISCONNECTED: Duration = Duration::from_secs(15);

/// What is kept in mind.
#[derive(Default)]
pub(crate) struct Health {
    /// When the connection broke.
    pub(crate) disconnected_at: Option<Instant>,
    /// Whether the connection broke while jobs were asked for, so that one of them may be the cause.
    pub(crate) may_have_culprit: bool,
    /// When such jobs were last on_origin_checked for.
    pub(crate) swept_at: Option<Instant>,
    /// Whether they are on_origin_checked for now; nothing is asked for meanwhile.
    pub(crate) is_sweeping: bool,
    /// Whether the next job is larger than what is left of the bytes that were asked for.
    pub(crate) is_next_too_large: bool,
    /// How often in a row the server did not permit to ask for jobs.
    pub(crate) denied: u32,
    /// When to look for done jobs that stay.
    pub(crate) next_check: Option<Instant>,
    /// The first of those that were found last.
    pub(crate) seen: Option<u64>,
    /// The first of those that were reported of.
    pub(crate) reported: Option<u64>,
}

impl Health {
    pub(crate) fn note_disconnected(&mut self, is_asking: bool) {
        self.disconnected_at = Some(Instant::now());
        self.may_have_culprit |= is_asking;
    }

    /// Whether the connection is away for too long.
    pub(crate) fn is_disconnected_too_long(&mut self, now: Instant) -> bool {
        self.disconnected_at.take_if(|moment| now.saturating_duration_since(*moment) >= MAX_DISCONNECTED).is_some()
    }

    /// The server had no job for a while: a moment to check.
    pub(crate) fn note_idle(&mut self, is_idle: bool) {
        if is_idle && self.next_check.is_none() {
            self.next_check = Some(Instant::now());
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next_check.into_iter().chain(self.disconnected_at.map(|moment| moment + MAX_DISCONNECTED)).min()
    }
}
