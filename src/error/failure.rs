//! The error that a task returned, together with the task.

use std::error::Error;
use std::fmt;
use std::ops::Deref;

use super::failed_task::FailedTask;

/// The error that a task of a group returned, together with the task.
///
/// Errors of [`TaskGroup::wait_with_task`](crate::TaskGroup::wait_with_task) and
/// [`NoSuccess`](crate::NoSuccess) contain it. It dereferences to the error of the task. The field
/// [`error`](Self::error) holds that error, and [`task`](Self::task) returns the task.
///
/// `Display` writes both, for example "task 3 of group \`backup\`, spawned at src/main.rs:10:5:
/// permission denied". The [source](Error::source) is the error of the task.
///
/// # Examples
///
/// ```
/// use workcrew::{GroupError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let group = pool.group().label("prints");
/// group.spawn(|| Ok::<_, &str>(()));
/// group.spawn(|| Err("no paper"));
/// match group.wait_with_task() {
///     Err(GroupError::Failed(failure)) => {
///         assert_eq!(failure.error, "no paper");
///         assert_eq!(failure.task().index(), Some(1));
///         assert_eq!(failure.to_string(), format!("{}: no paper", failure.task()));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), workcrew::BuildError>(())
/// ```
#[non_exhaustive]
#[derive(Debug)]
pub struct TaskFailure<E> {
    /// The error that the task returned.
    pub error: E,
    /// The task.
    task: Box<FailedTask>,
}

impl<E> TaskFailure<E> {
    pub(crate) fn new(error: E, task: FailedTask) -> Self {
        Self { error, task: Box::new(task) }
    }

    /// Returns the task that returned the error.
    #[must_use]
    pub fn task(&self) -> &FailedTask {
        &self.task
    }

    /// Returns the error and the task by value.
    #[must_use]
    pub fn into_parts(self) -> (E, FailedTask) {
        (self.error, *self.task)
    }
}

impl<E> Deref for TaskFailure<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.error
    }
}

/// Writes the task, and then the error with its causes, if its type shows them.
impl<E: fmt::Display> fmt::Display for TaskFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:#}", self.task, self.error)
    }
}

impl<E: Error + 'static> Error for TaskFailure<E> {
    /// Returns the error that the task returned.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}
