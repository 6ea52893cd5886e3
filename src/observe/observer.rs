//! What can be seen of tasks from outside: identities, outcomes and the [`Observer`].

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::error::CancelReason;
use crate::sync::Arc;

/// The identity of a task, unique within its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The one fate that an accepted task meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// It ran and returned; in a group, it returned `()` or `Ok`.
    Succeeded,
    /// It ended with an error: a task of a group or a scope, one that was tried again and given up, a delivery of an event, a
    /// remote call.
    Failed,
    /// It ran and panicked.
    Panicked,
    /// It was cancelled: a closure before it ran, a retried task before it was tried again, a future perhaps on its way.
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
    /// The identity of the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Where the task was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// The label, if it has one: of its group, its subscription, its driver or caller.
    #[must_use]
    pub fn label(&self) -> Option<&'a str> {
        self.label.map(|label| &**label)
    }
}

/// Follows every task of a pool through its life.
///
/// The calls come from the threads that submit, run or cancel the task, under no lock, and the task goes on only when
/// they return: an observer should be quick. Its panics are contained and counted in
/// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked). A pool without an observer pays nothing for it.
///
/// An observer may submit tasks, which calls it again. Hooks are nested at most 16 deep on one stack: a further call is
/// skipped, and [`Metrics::hooks_skipped`](crate::Metrics::hooks_skipped) counts it. The task is not
/// affected. An observer that submits a task for each task that has ended goes on until the pool is closed.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use workcrew::{Observer, TaskOutcome, TaskInfo, WorkerPool};
///
/// #[derive(Default)]
/// struct Failures(AtomicUsize);
///
/// impl Observer for Failures {
///     fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
///         if outcome == TaskOutcome::Panicked {
///             eprintln!("the task from {} panicked", task.location());
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let failures = Arc::new(Failures::default());
/// let pool = WorkerPool::builder().workers(1).observer(failures.clone()).build()?;
/// pool.execute(|| panic!("oh no"))?;
/// pool.wait_idle();
/// assert_eq!(failures.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// The task was accepted, or is about to be: a refusal follows at once.
    fn task_submitted(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// The task was refused after all; its closure went back to the submitter.
    fn task_refused(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// The task starts on this thread.
    fn task_started(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// The task has met its fate. Called before its handle or group learns of it.
    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        let _ = (task, outcome);
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn task_submitted(&self, task: &TaskInfo<'_>) {
        (**self).task_submitted(task);
    }

    fn task_refused(&self, task: &TaskInfo<'_>) {
        (**self).task_refused(task);
    }

    fn task_started(&self, task: &TaskInfo<'_>) {
        (**self).task_started(task);
    }

    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        (**self).task_ended(task, outcome);
    }
}

/// What a worker is doing, from [`WorkerPool::running`](crate::WorkerPool::running).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTask {
    pub(crate) worker: usize,
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) since: Instant,
}

impl RunningTask {
    /// The index of the worker, as in its thread's name.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The identity of the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Where the task was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// The label, if it has one: of its group, its subscription, its driver or caller.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// When it started.
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
