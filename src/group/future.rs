//! The future that waits for a group.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::group_future::{GroupFuture, refused};
use super::poll::GroupWait;
use super::result::TaskResult;
use super::state::GroupInner;
use super::task_group::TaskGroup;
use super::wait::WaitResult;
use crate::unwind;

/// A future that waits for a group. Made by `.await` of a [`TaskGroup`], in any runtime.
///
/// Its output is the result of [`TaskGroup::wait`]. It waits without a thread.
///
/// - Dropping the future drops the group. So it cancels the group, and does not block. If a
///   `select!` takes another branch, the group is cancelled.
/// - A future that is polled again after it was ready stays pending.
/// - A [deadline](TaskGroup::deadline) of the group wakes the future.
/// - Polling the future on a worker of the pool runs tasks of the group, as `wait` does. A task
///   that polls its own group gets [`WouldDeadlock`](crate::GroupError::WouldDeadlock). Other waits
///   of a future are never refused; see [`JoinHandle`](crate::JoinHandle#waiting-on-a-worker).
///
/// The other waits have futures with the same properties:
/// [`wait_any_async`](TaskGroup::wait_any_async), [`wait_all_async`](TaskGroup::wait_all_async),
/// [`wait_partial_async`](TaskGroup::wait_partial_async) and more. For outcomes as they come, see
/// [`Completions::next_async`](crate::Completions::next_async).
///
/// Async code that adds tasks to a group with a [capacity](TaskGroup::capacity) uses
/// [`spawn_async`](TaskGroup::spawn_async), because `spawn` blocks.
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
pub struct WaitForGroup<R: TaskResult>(GroupFuture<R, PollGroup<R>>);

/// Polls the wait of a [`WaitForGroup`].
type PollGroup<R> = fn(&mut GroupWait<R>, &Context<'_>) -> Poll<WaitResult<R>>;

impl<R: TaskResult> IntoFuture for TaskGroup<R> {
    type Output = WaitResult<R>;
    type IntoFuture = WaitForGroup<R>;

    /// Returns a future that waits like [`wait`](TaskGroup::wait).
    fn into_future(self) -> WaitForGroup<R> {
        let poll: PollGroup<R> =
            |wait, context| wait.poll_done(context, GroupInner::take_values).map(|taken| taken.unwrap_or_else(refused));
        WaitForGroup(GroupFuture::new(self, poll))
    }
}

impl<R: TaskResult> Future for WaitForGroup<R> {
    type Output = WaitResult<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_group(context)
    }
}

// No field is ever pinned.
impl<R: TaskResult> Unpin for WaitForGroup<R> {}

unwind::safe!(WaitForGroup<R>, R: TaskResult);

impl<R: TaskResult> fmt::Debug for WaitForGroup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForGroup").field("group", &self.0.group).finish_non_exhaustive()
    }
}
