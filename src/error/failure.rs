//! The error that a task returned, together with the task.

use std::error::Error;
use std::fmt;
use std::ops::Deref;

use super::failed_task::FailedTask;

/// The error that a task of a group or a scope returned, and which task it was. The content of
/// [`GroupError::Failed`](crate::GroupError::Failed) and
/// [`TaskError::Failed`](crate::TaskError::Failed).
///
/// It is used like the error itself: it dereferences to it, compares with it, and has its
/// `Display`. The [`error`](Self::error) field gives it by value, also in a pattern.
/// [`task`](Self::task) tells which task returned it.
///
/// # Examples
///
/// ```
/// use workcrew::{GroupError, TaskFailure, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let failing = || {
///     let group = pool.group();
///     group.spawn(|| Err::<(), _>("no paper"));
///     group.wait().unwrap_err()
/// };
/// match failing() {
///     GroupError::Failed(failure) => {
///         assert_eq!(failure, "no paper");
///         assert_eq!(failure.task().unwrap().index(), Some(0));
///     }
///     other => panic!("{other}"),
/// }
/// // A pattern that looks into the error:
/// assert!(matches!(failing(), GroupError::Failed(TaskFailure { error: "no paper", .. })));
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[non_exhaustive]
pub struct TaskFailure<E> {
    /// The error that the task returned.
    pub error: E,
    /// The task. `None` only if the value was made by `From`.
    task: Option<Box<FailedTask>>,
}

impl<E> TaskFailure<E> {
    pub(crate) fn new(error: E, task: FailedTask) -> Self {
        Self { error, task: Some(Box::new(task)) }
    }

    /// Changes the error and keeps the task.
    pub(crate) fn map<X>(self, change: impl FnOnce(E) -> X) -> TaskFailure<X> {
        TaskFailure { error: change(self.error), task: self.task }
    }

    /// Returns the task that returned the error. `None` for a value that was made by `From`, as
    /// tests may do.
    #[must_use]
    pub fn task(&self) -> Option<&FailedTask> {
        self.task.as_deref()
    }

    /// Returns the error and the task by value.
    #[must_use]
    pub fn into_parts(self) -> (E, Option<FailedTask>) {
        (self.error, self.task.map(|task| *task))
    }
}

/// Makes a failure of no known task.
impl<E> From<E> for TaskFailure<E> {
    fn from(error: E) -> Self {
        Self { error, task: None }
    }
}

impl<E> Deref for TaskFailure<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.error
    }
}

/// Compares with an error; the task makes no difference.
impl<E: PartialEq> PartialEq<E> for TaskFailure<E> {
    fn eq(&self, other: &E) -> bool {
        self.error == *other
    }
}

impl<E: fmt::Debug> fmt::Debug for TaskFailure<E> {
    /// Formats the error, and then the task.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        self.task().map_or(Ok(()), |task| write!(f, " from {task}"))
    }
}

impl<E: fmt::Display> fmt::Display for TaskFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Has the source of the error itself, as it has its `Display`.
impl<E: Error> Error for TaskFailure<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
