//! What a run knows of its connection and of jobs that stay stored.

use std::time::{Duration, Instant};

/// After how long without a connection the consumer counts as lost.
const UNHEARD: Duration = Duration::from_secs(15);

/// What is kept in mind.
#[derive(Default)]
pub(crate) struct Watch {
    /// When the connection broke.
    pub(crate) broken_at: Option<Instant>,
    /// Whether the connection broke while jobs were asked for, so that one of them may be the cause.
    pub(crate) has_suspect: bool,
    /// When such jobs were last looked for.
    pub(crate) swept_at: Option<Instant>,
    /// Whether they are looked for now; nothing is asked for meanwhile.
    pub(crate) is_sweeping: bool,
    /// Whether the next job is larger than what is left of the bytes that were asked for.
    pub(crate) is_next_too_large: bool,
    /// How often in a row the server did not permit to ask for jobs.
    pub(crate) denied: u32,
    /// When to look for done jobs that stay.
    pub(crate) look_at: Option<Instant>,
    /// The first of those that were found last.
    pub(crate) seen: Option<u64>,
    /// The first of those that were told of.
    pub(crate) told: Option<u64>,
}

impl Watch {
    pub(crate) fn note_disconnected(&mut self, is_asking: bool) {
        self.broken_at = Some(Instant::now());
        self.has_suspect |= is_asking;
    }

    /// Whether the connection is away for too long.
    pub(crate) fn is_unheard(&mut self, now: Instant) -> bool {
        self.broken_at.take_if(|moment| now.saturating_duration_since(*moment) >= UNHEARD).is_some()
    }

    /// The server had no job for a while: a moment to look.
    pub(crate) fn note_idle(&mut self, is_idle: bool) {
        if is_idle && self.look_at.is_none() {
            self.look_at = Some(Instant::now());
        }
    }

    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.broken_at.map(|moment| moment + UNHEARD)).min()
    }
}
