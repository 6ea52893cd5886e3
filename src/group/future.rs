//! The future that waits for a group.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::poll::GroupWait;
use super::result::TaskResult;
use super::state::WouldDeadlock;
use super::task_group::TaskGroup;
use super::wait::WaitResult;
use crate::error::GroupError;

/// A future that waits for a group. Made by `.await` of a [`TaskGroup`], in any runtime.
///
/// Its output is the result of [`TaskGroup::wait`]. It waits without a thread.
///
/// - Dropping the future drops the group. So it cancels the group, and does not block. If a
///   `select!` takes another branch, the group is cancelled.
/// - A future that is polled again after it was ready stays pending.
/// - A [deadline](TaskGroup::deadline) of the group wakes the future.
/// - Polling the future on a worker of the pool runs tasks of the group, as `wait` does. A task
///   that polls its own group gets [`GroupError::WouldDeadlock`]. Other waits of a future are never
///   refused; see [`JoinHandle`](crate::JoinHandle#waiting-on-a-worker).
///
/// Async code that adds tasks to a group with a [capacity](TaskGroup::capacity) uses
/// [`try_spawn`](TaskGroup::try_spawn), because `spawn` blocks. For outcomes as they come, see
/// [`Completions::next_async`](crate::Completions::next_async).
///
/// # Examples
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let sum = block_on(async {
///     let group = pool.group();
///     group.spawn_all(["1", "2"].map(|text| move || text.parse::<u32>()));
///     Ok::<u32, Box<dyn std::error::Error>>(group.await?.into_iter().sum())
/// })?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a future does nothing until it is polled, and dropping this one cancels the group"]
pub struct WaitForGroup<R: TaskResult> {
    /// The wait; `None` if it was never polled. Dropped before the group, which would wake it.
    wait: Option<GroupWait<R>>,
    /// The group; `None` once the future was ready.
    group: Option<TaskGroup<R>>,
}

impl<R: TaskResult> IntoFuture for TaskGroup<R> {
    type Output = WaitResult<R>;
    type IntoFuture = WaitForGroup<R>;

    /// Returns a future that waits like [`wait`](TaskGroup::wait).
    fn into_future(mut self) -> WaitForGroup<R> {
        self.waits();
        WaitForGroup { wait: None, group: Some(self) }
    }
}

impl<R: TaskResult> Future for WaitForGroup<R> {
    type Output = WaitResult<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { group, wait } = &mut *self;
        let Some(waited) = group else { return Poll::Pending };
        let polled = wait.get_or_insert_with(|| GroupWait::new(waited.inner())).poll_values(context);
        let Poll::Ready(result) = polled else { return Poll::Pending };
        *wait = None;
        *group = None;
        Poll::Ready(result.unwrap_or_else(|WouldDeadlock| Err(GroupError::WouldDeadlock)))
    }
}

// No field is ever pinned.
impl<R: TaskResult> Unpin for WaitForGroup<R> {}

// No lock of this crate is held while user code may panic, so a reference never shows a broken
// state.
impl<R: TaskResult> UnwindSafe for WaitForGroup<R> {}
impl<R: TaskResult> RefUnwindSafe for WaitForGroup<R> {}

impl<R: TaskResult> fmt::Debug for WaitForGroup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForGroup").field("group", &self.group).finish_non_exhaustive()
    }
}
