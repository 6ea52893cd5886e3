//! What can be seen of a task: its identity, its outcome, and what a worker is running.

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::task_origin::TaskOrigin;
use crate::error::CancelReason;
use crate::sync::Arc;

// Defined beside the errors, which name the task that they came from.
pub(crate) use crate::error::TaskId;

/// The outcome of a task. Every accepted task has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// The task ran and returned. A task of a group returned `()` or `Ok`.
    Succeeded,
    /// The task ended with an error. This applies to tasks of groups and scopes, retried tasks that
    /// gave up, deliveries of events and remote calls.
    Failed,
    /// The task ran and panicked.
    Panicked,
    /// The task was cancelled: a closure before it ran, a retried task before its next attempt, or
    /// a future that may have been polled.
    Cancelled(CancelReason),
}

/// A task as observers see it.
#[derive(Clone, Copy, Debug)]
pub struct TaskInfo<'a> {
    pub(crate) origin: TaskOrigin<'a>,
    /// How long it was queued, once it has started and if durations are recorded.
    pub(crate) queue_wait: Option<Duration>,
    /// When it started, if durations are recorded.
    pub(crate) started_at: Option<Instant>,
    /// How long it ran, once it has ended and if durations are recorded.
    pub(crate) run_time: Option<Duration>,
}

impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed => f.write_str("failed"),
            Self::Panicked => f.write_str("panicked"),
            Self::Cancelled(reason) => reason.fmt(f),
        }
    }
}

impl<'a> TaskInfo<'a> {
    /// Returns what is known of a task before it runs.
    pub(crate) fn of(origin: &TaskOrigin<'a>) -> Self {
        Self { origin: *origin, queue_wait: None, started_at: None, run_time: None }
    }

    /// Returns the identity of the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.origin.id
    }

    /// Returns the place where the task was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.origin.location
    }

    /// Returns the label of the task, if it has one: that of its builder, group, scope,
    /// subscription, driver or caller.
    #[must_use]
    pub fn label(&self) -> Option<&'a str> {
        self.origin.label.map(|label| &**label)
    }

    /// Returns how long the task was queued before it started for the first time.
    ///
    /// It is `None` before the start, for a later attempt of a task that is retried, for a future,
    /// and without [`timing`](crate::WorkerPoolBuilder::timing).
    #[must_use]
    pub fn queue_wait(&self) -> Option<Duration> {
        self.queue_wait
    }

    /// Returns when the task started, or its latest attempt.
    ///
    /// It is `None` before the start, for a future, and without
    /// [`timing`](crate::WorkerPoolBuilder::timing).
    #[must_use]
    pub fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// Returns how long the task ran, or its latest attempt.
    ///
    /// It is `None` before the end, for a task that was cancelled before it ran, and without
    /// [`timing`](crate::WorkerPoolBuilder::timing).
    #[must_use]
    pub fn run_time(&self) -> Option<Duration> {
        self.run_time
    }
}

/// A task that a worker is running. Returned by
/// [`WorkerPool::running`](crate::WorkerPool::running).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTask {
    pub(crate) worker: usize,
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) since: Instant,
}

impl RunningTask {
    /// Returns the index of the worker, as in its thread's name.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the identity of the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns the place where the task was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the label of the task, if it has one: that of its builder, group, scope,
    /// subscription, driver or caller.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns when the task started.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, id, location, label, since } = self;
        let seconds = Instant::now().checked_duration_since(*since).unwrap_or(Duration::ZERO).as_secs_f64();
        write!(f, "worker {worker}: task {id} from {location}")?;
        if let Some(label) = label {
            write!(f, " ({label})")?;
        }
        write!(f, ", for {seconds:.3} s")
    }
}
