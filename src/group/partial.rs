//! The waits that return more about a group that ends with an error: which task failed, or the
//! values of the tasks that succeeded.

use super::result::TaskResult;
use super::task_group::TaskGroup;
use crate::error::{GroupError, TaskFailure};

/// # More about an error
impl<R: TaskResult> TaskGroup<R> {
    /// Like [`wait`](Self::wait), but returns the first error together with its task: index, label,
    /// id, and the place where it was spawned.
    ///
    /// # Errors
    ///
    /// Those of `wait`. A failure is a [`TaskFailure`], which holds the error and the task.
    /// [`GroupError::task`] returns the task of a failure or a panic.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let group = pool.group().label("backup");
    /// group.spawn(|| Ok::<_, &str>(()));
    /// group.spawn(|| Err("permission denied"));
    /// let error = group.wait_with_task().unwrap_err();
    /// assert_eq!(error.task().unwrap().index(), Some(1));
    /// assert!(error.to_string().starts_with("task 1 of group `backup`, spawned at "));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn wait_with_task(mut self) -> Result<Vec<R::Value>, GroupError<TaskFailure<R::Error>>> {
        self.waits().wait_values_with_task()
    }

    /// Blocks until every task is done. Returns the values of the tasks that succeeded, in the
    /// order of spawning, and how the group ended.
    ///
    /// The first part of the result holds these values even if the group failed, was cancelled, or
    /// reached its deadline. The second part is `Ok`, or the error of [`wait`](Self::wait). The
    /// values do not say which tasks they come from; [`wait_all`](Self::wait_all) returns each
    /// outcome in the place of its task.
    ///
    /// Like `wait`, this returns only when the running tasks have ended. If a task is running when
    /// the group is cancelled, and then returns `Ok`, its value is included.
    ///
    /// # Examples
    ///
    /// Returns the pages that have arrived when the time is over:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use workcrew::{CancelReason, GroupError, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let crawl = pool.group().limit(1).deadline(Instant::now() + Duration::from_millis(50));
    /// let token = crawl.token().clone();
    /// crawl.spawn(|| Ok::<_, String>("page 1"));
    /// crawl.spawn(move || {
    ///     let _ = token.wait_timeout(Duration::from_secs(60)); // a slow server
    ///     Ok("page 2")
    /// });
    /// crawl.spawn(|| Ok("page 3")); // not reached
    /// let (pages, end) = crawl.wait_partial();
    /// assert!(pages.len() < 3); // the first two, unless this machine is very slow
    /// assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Expired))));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "the values, and the result of `wait` without them")]
    #[must_use = "the second part says whether the values are all"]
    pub fn wait_partial(mut self) -> (Vec<R::Value>, Result<(), GroupError<R::Error>>) {
        self.waits().wait_partial()
    }
}
