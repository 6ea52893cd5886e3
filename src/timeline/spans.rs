//! The spans of a timeline: what ran, on which worker, and what waited.

use std::panic::Location;
use std::time::Duration;

use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::sync::Arc;

/// One run of a task, or of an attempt.
#[derive(Clone)]
pub(super) struct Span {
    pub(super) id: TaskId,
    pub(super) label: Option<Arc<str>>,
    pub(super) location: &'static Location<'static>,
    /// When it started, after the epoch.
    pub(super) start: Duration,
    pub(super) run_time: Duration,
    /// How long it was queued before the start.
    pub(super) queue_wait: Duration,
    /// `None` for an attempt that has failed.
    pub(super) outcome: Option<TaskOutcome>,
}

/// The recorded spans of one worker, or of all other threads.
pub(super) struct Track {
    /// `None` for other threads.
    pub(super) worker: Option<usize>,
    pub(super) spans: Vec<Span>,
}

impl Span {
    /// Returns the label of the task, or the place where it was submitted.
    pub(super) fn name(&self) -> String {
        self.label.as_ref().map_or_else(|| self.location.to_string(), ToString::to_string)
    }

    /// Returns when the task ended, or its attempt.
    pub(super) fn end(&self) -> Duration {
        self.start + self.run_time
    }

    /// Returns when the task was queued.
    pub(super) fn queued_at(&self) -> Duration {
        self.start.saturating_sub(self.queue_wait)
    }
}

/// Returns how many of the recorded tasks were queued, each time that the number changed.
pub(super) fn queue_lengths(tracks: &[Track]) -> Vec<(Duration, u64)> {
    let spans = || tracks.iter().flat_map(|track| &track.spans).filter(|span| !span.queue_wait.is_zero());
    let starts = spans().map(|span| (span.start, false));
    let mut changes: Vec<_> = spans().map(|span| (span.queued_at(), true)).chain(starts).collect();
    changes.sort_unstable();
    let mut queued = 0_u64;
    let mut lengths: Vec<(Duration, u64)> = Vec::new();
    for (time, is_more) in changes {
        // At equal times ends come first, and a task cannot leave before it came.
        queued = if is_more { queued + 1 } else { queued.saturating_sub(1) };
        match lengths.last_mut() {
            Some((last, length)) if *last == time => *length = queued,
            _ => lengths.push((time, queued)),
        }
    }
    lengths
}
