//! Spans of tasks, for the feature `tracing`.
//!
//! The span of a task is made at its submission, on the submitting thread. So its parent is the
//! span that is current there, and it shows tasks that never run, too. It is closed at the end of
//! the task. The crate `tracing` is known here and nowhere else.

use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::{self, Value};

use super::task_info::TaskOutcome;
use super::task_origin::TaskOrigin;

/// The span of one task.
pub(crate) struct TaskSpan {
    /// That of the task, or of the submitter if a filter has disabled it.
    span: Span,
    /// Whether it is that of the task.
    is_own: bool,
    /// When the task was submitted.
    submitted: Instant,
    /// How often an attempt was made; zero for a task that is run once.
    attempts: u32,
    /// How long a thread was in the span; `None` before the first time.
    run_time: Option<Duration>,
}

impl TaskSpan {
    /// Makes the span of a task that is submitted by this thread.
    pub(crate) fn new(task: &TaskOrigin<'_>) -> Self {
        let (label, location) = (task.label.map(|label| &**label), task.location);
        let span = tracing::info_span!(
            target: "workcrew",
            "task",
            id = task.id.0,
            label,
            location = %location,
            attempt = field::Empty,
            queue_wait_us = field::Empty,
            run_time_us = field::Empty,
            outcome = field::Empty,
        );
        let is_own = !span.is_disabled();
        let span = if is_own { span } else { Span::current() };
        Self { span, is_own, submitted: Instant::now(), attempts: 0, run_time: None }
    }

    /// Calls `run` in the span, as the closure of the task or a part of it.
    pub(crate) fn enter(&mut self, is_attempt: bool, run: &mut dyn FnMut()) {
        let started = Instant::now();
        if self.run_time.is_none() {
            self.record("queue_wait_us", micros(started.saturating_duration_since(self.submitted)));
        }
        if is_attempt {
            self.attempts = self.attempts.saturating_add(1);
            self.record("attempt", self.attempts);
        }
        self.span.in_scope(run);
        self.run_time = Some(self.run_time.unwrap_or_default().saturating_add(started.elapsed()));
    }

    /// Calls hooks of the pool in the span.
    pub(crate) fn enter_for_hooks(&self, run: &mut dyn FnMut()) {
        self.span.in_scope(run);
    }

    /// Records the end of the task. Without an outcome it was refused.
    pub(crate) fn end(&self, outcome: Option<TaskOutcome>) {
        if let Some(run_time) = self.run_time {
            self.record("run_time_us", micros(run_time));
        }
        match outcome {
            Some(outcome) => self.record("outcome", field::display(outcome)),
            None => self.record("outcome", "refused"),
        }
    }

    fn record(&self, name: &str, value: impl Value) {
        if self.is_own {
            self.span.record(name, value);
        }
    }
}

/// The span that is current on a thread which submits tasks later, such as by a timer.
pub(crate) struct SourceSpan(Span);

impl SourceSpan {
    pub(crate) fn current() -> Self {
        Self(Span::current())
    }

    /// Calls `run` in the span.
    pub(crate) fn enter(&self, run: &mut dyn FnMut()) {
        self.0.in_scope(run);
    }
}

/// Returns a duration in microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
