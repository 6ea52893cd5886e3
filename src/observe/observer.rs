//! The [`Observer`], which follows each task of a pool.

use super::task_info::{TaskInfo, TaskOutcome};
use crate::sync::Arc;

/// An observer of every task of a pool.
///
/// The methods are called by the threads that submit, run or cancel the task, with no lock held.
/// The task waits until they return, so an observer should be quick. Its panics are contained and
/// counted in [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked). A pool without an
/// observer pays nothing for it.
///
/// An observer may submit tasks, which calls it again. Hooks are nested at most 16 deep on one
/// stack. Within one call of a hook that is not nested, at most 256 hooks are called more than two
/// deep, so several observers that submit are bounded, too. A further call is skipped and counted
/// in [`Metrics::hooks_skipped`](crate::Metrics::hooks_skipped); the task is not affected. An
/// observer that submits a task for each task that ends goes on until the pool is closed.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an observer",
    note = "implement `Observer` for a type of your own: each of its methods has a default",
    note = "for a closure that gets each panic, use `on_panic`"
)]
pub trait Observer: Send + Sync + 'static {
    /// Called when the pool admits a task, before the task is queued.
    /// [`task_refused`](Self::task_refused) follows if there is no room for it.
    fn task_submitted(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// Called when an admitted task is refused after all. Its closure is returned to the submitter.
    fn task_refused(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// Called on the thread on which the task starts.
    fn task_started(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// Called when an attempt of a task has failed, and the task will be tried again.
    /// [`task_started`](Self::task_started) follows for the next attempt.
    fn attempt_failed(&self, task: &TaskInfo<'_>) {
        let _ = task;
    }

    /// Called when the task has its outcome, before its handle or group gets it.
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

    fn attempt_failed(&self, task: &TaskInfo<'_>) {
        (**self).attempt_failed(task);
    }

    fn task_ended(&self, task: &TaskInfo<'_>, outcome: TaskOutcome) {
        (**self).task_ended(task, outcome);
    }
}
