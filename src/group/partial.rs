//! The wait that keeps the values of a group that ends with an error.

use super::result::TaskResult;
use super::task_group::TaskGroup;
use crate::error::GroupError;

/// # Partial results
impl<R: TaskResult> TaskGroup<R> {
    /// Blocks until every task is done, and returns the values that there are, in the order of
    /// spawning, and how the group ended.
    ///
    /// The second part is the error of [`wait`](Self::wait), or `Ok`. The first part holds the
    /// values of all tasks that succeeded, whether the group failed, was cancelled, or reached its
    /// deadline. A value says nothing of its task; [`wait_all`](Self::wait_all) returns each outcome
    /// in the place of its task.
    ///
    /// Like `wait`, this returns only when the running tasks have ended. A task that runs when the
    /// group is cancelled is included if it returns `Ok`.
    ///
    /// # Examples
    ///
    /// The pages that are there when the time is over:
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
    ///     token.wait_timeout(Duration::from_secs(60)); // a slow server
    ///     Ok("page 2")
    /// });
    /// crawl.spawn(|| Ok("page 3")); // not reached
    /// let (pages, end) = crawl.wait_partial();
    /// assert!(pages.len() < 3); // unless this machine is very slow, the first two
    /// assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Expired))));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "the values, and the result of `wait` without them")]
    #[must_use = "the second part says whether the values are all"]
    pub fn wait_partial(mut self) -> (Vec<R::Value>, Result<(), GroupError<R::Error>>) {
        self.waits().wait_partial()
    }
}
