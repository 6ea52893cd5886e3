//! What can be seen of a task: its identity, its outcome, and what a worker is running.

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::error::{CancelReason, FailedTask};
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
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<&'a Arc<str>>,
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
    pub fn label(&self) -> Option<&'a str> {
        self.label.map(|label| &**label)
    }

    /// Returns the task for an error to hold.
    #[cold]
    pub(crate) fn to_failed(self) -> FailedTask {
        FailedTask::new(Some(self.id), self.label.cloned(), self.location)
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
