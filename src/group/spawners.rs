//! The spawners of a group, and a group that no thread will wait for.
//!
//! Such a group is owned by its spawners. It keeps no outcomes, like a group whose owner was
//! dropped.

use super::result::TaskResult;
use super::spawner::Spawner;
use super::task_group::TaskGroup;
use crate::sync::{Arc, OnceLock};

/// # Spawners
impl<R: TaskResult> TaskGroup<R> {
    /// Returns a handle that adds tasks from elsewhere, such as from the group's own tasks.
    #[must_use]
    pub fn spawner(&self) -> Spawner<R> {
        Spawner::new(Arc::clone(self.inner()))
    }

    /// Turns the group into a spawner that owns it. No thread can wait for the group any more.
    ///
    /// This is for long-lived groups, such as one with a limit of one, whose tasks run one after
    /// the other. For such a queue for each of many keys, use
    /// [`WorkerPool::keyed`](crate::WorkerPool::keyed). Each outcome is dropped when its task ends,
    /// so the group takes no memory for tasks that have ended.
    ///
    /// The [policy](Self::policy) still counts: unless it is
    /// [`CollectAll`](crate::GroupPolicy::CollectAll), an outcome may cancel the group. Dropping
    /// the last clone of the spawner cancels the group, and does not block. A clone that a task
    /// owns keeps the group open, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{GroupPolicy, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let lane = pool.group().limit(1).policy(GroupPolicy::CollectAll).into_spawner();
    /// for number in ["1", "two", "3"] {
    ///     lane.spawn(move || number.parse::<u32>()); // one after the other
    /// }
    /// pool.wait_idle();
    /// assert_eq!((pool.metrics().tasks_succeeded, pool.metrics().tasks_failed), (2, 1));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[must_use = "dropping the last spawner cancels the group"]
    pub fn into_spawner(mut self) -> Spawner<R> {
        let inner = Arc::clone(self.waits());
        self.inner = OnceLock::new(); // so the drop of `self` cancels nothing
        inner.keep_nothing();
        Spawner::owning(inner)
    }
}
