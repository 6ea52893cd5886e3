//! The waits that end at the first success.

use super::result::TaskResult;
use super::state::{State, WouldDeadlock};
use super::task_group::TaskGroup;
use crate::error::{Cycle, GroupError, NoSuccess};

/// # The first success
impl<R: TaskResult> TaskGroup<R> {
    /// Blocks until a task succeeds, and returns its value. The other tasks are cancelled at that
    /// moment. From this call on, errors cancel nothing, under any [policy](Self::policy).
    ///
    /// This method does not wait for tasks that are still running. The exception is a task that
    /// this thread itself, a worker of the pool, has started meanwhile.
    ///
    /// A group with the default policy, [`FailFast`](crate::GroupPolicy::FailFast), is cancelled by
    /// an error that comes **before** this call. Its running tasks may still succeed, and then this
    /// method returns the first value. But tasks that had not started before the error never start.
    /// To prevent that, set [`FirstSuccess`](crate::GroupPolicy::FirstSuccess) before the first
    /// task.
    ///
    /// # Errors
    ///
    /// If no task succeeds, the first failure or panic, or else the cancellation.
    /// [`wait_any_or_errors`](Self::wait_any_or_errors) returns all errors.
    ///
    /// [`GroupError::WouldDeadlock`] in the cases of [`wait`](Self::wait). In a circle of waits,
    /// this error is returned only if every task of the group that could still succeed is in the
    /// circle. A [`Spawner`](crate::Spawner) could add another task, so while there is one, the
    /// wait goes on. Also for a group without tasks, in which no task can succeed.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{GroupPolicy, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let mirrors = pool.group().policy(GroupPolicy::FirstSuccess);
    /// mirrors.spawn(|| Err("unreachable"));
    /// mirrors.spawn(|| Ok("the page"));
    /// assert_eq!(mirrors.wait_any().unwrap(), "the page");
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn wait_any(mut self) -> Result<R::Value, GroupError<R::Error>> {
        self.waits().wait_first(first_error).unwrap_or_else(|error| Err(error.into()))
    }

    /// Like [`wait_any`](Self::wait_any), but returns every error if no task succeeds.
    ///
    /// # Errors
    ///
    /// [`NoSuccess`] with the errors of all tasks in spawn order, each with its task.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{GroupPolicy, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).build()?;
    /// let mirrors = pool.group::<Result<(), _>>().policy(GroupPolicy::FirstSuccess);
    /// mirrors.spawn_all(["unreachable", "not found"].map(|error| move || Err(error)));
    /// let none = mirrors.wait_any_or_errors().unwrap_err();
    /// assert_eq!(none.errors().len(), 2);
    /// assert!(none.to_string().ends_with(": not found"));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn wait_any_or_errors(mut self) -> Result<R::Value, NoSuccess<R::Error>> {
        match self.waits().wait_first(all_errors) {
            Ok(first) => first,
            Err(WouldDeadlock(cycle)) => Err(NoSuccess::would_deadlock(Vec::new(), cycle)),
        }
    }
}

/// Takes the first error of a group without a success.
pub(super) fn first_error<R: TaskResult>(state: &mut State<R>) -> GroupError<R::Error> {
    // Without tasks there is no success to wait for.
    state.take_error().unwrap_or_else(|| GroupError::WouldDeadlock(Cycle::default()))
}

/// Takes every error of a group without a success.
pub(super) fn all_errors<R: TaskResult>(state: &mut State<R>) -> NoSuccess<R::Error> {
    let errors: Vec<_> = state.take_outcomes().into_iter().filter_map(Result::err).collect();
    // Without tasks there is no success to wait for.
    let no_tasks = errors.is_empty() && state.cut_short.is_none();
    if no_tasks { NoSuccess::would_deadlock(errors, Cycle::default()) } else { NoSuccess::new(errors) }
}
