//! The waits for a group from async code, besides `.await` of the group.

use std::future::Future;

use super::any;
use super::body::Outcome;
use super::group_future::{GroupFuture, refused};
use super::result::TaskResult;
use super::state::{GroupInner, WouldDeadlock};
use super::task_group::TaskGroup;
use crate::error::{GroupError, NoSuccess, TaskFailure};

/// # From async code
///
/// To [`wait`](Self::wait) from async code, await the group itself. For the other waits, call the
/// methods below. Their futures behave like [`WaitForGroup`](crate::WaitForGroup): they wait
/// without a thread, in any runtime. Dropping one cancels the group, and does not block.
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
/// use workcrew::{GroupPolicy, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// block_on(async {
///     let mirrors = pool.group().policy(GroupPolicy::FirstSuccess);
///     mirrors.spawn(|| Err("unreachable"));
///     mirrors.spawn(|| Ok("the page"));
///     assert_eq!(mirrors.wait_any_async().await.unwrap(), "the page");
///
///     let texts = pool.group().policy(GroupPolicy::CollectAll);
///     texts.spawn_all(["1", "two"].map(|text| move || text.parse::<u32>()));
///     let outcomes = texts.wait_all_async().await;
///     assert!(outcomes[0].is_ok() && outcomes[1].is_err());
/// });
/// # Ok::<(), workcrew::BuildError>(())
/// ```
impl<R: TaskResult> TaskGroup<R> {
    /// Like [`wait_any`](Self::wait_any), for async code. From this call on, errors cancel nothing,
    /// even before the first poll.
    ///
    /// # Errors
    ///
    /// Those of `wait_any`.
    pub fn wait_any_async(self) -> impl Future<Output = Result<R::Value, GroupError<R::Error>>> + Send + 'static {
        self.inner().begin_first();
        GroupFuture::new(self, |wait, context| {
            wait.poll_first(context, any::first_error).map(|first| first.unwrap_or_else(refused))
        })
    }

    /// Like [`wait_any_or_errors`](Self::wait_any_or_errors), for async code.
    ///
    /// # Errors
    ///
    /// Those of `wait_any_or_errors`.
    pub fn wait_any_or_errors_async(
        self,
    ) -> impl Future<Output = Result<R::Value, NoSuccess<R::Error>>> + Send + 'static {
        self.inner().begin_first();
        GroupFuture::new(self, |wait, context| {
            let refused = |WouldDeadlock(cycle)| Err(NoSuccess::would_deadlock(Vec::new(), cycle));
            wait.poll_first(context, any::all_errors).map(|first| first.unwrap_or_else(refused))
        })
    }

    /// Like [`wait_all`](Self::wait_all), for async code.
    ///
    /// # Panics
    ///
    /// A poll panics where `wait_all` does.
    pub fn wait_all_async(self) -> impl Future<Output = Vec<Outcome<R>>> + Send + 'static {
        GroupFuture::new(self, |wait, context| {
            wait.poll_done(context, GroupInner::take_outcomes)
                .map(|taken| taken.unwrap_or_else(|error| panic!("{error}")))
        })
    }

    /// Like [`wait_partial`](Self::wait_partial), for async code. The
    /// [deadline](Self::deadline) of the group wakes the future.
    #[allow(clippy::type_complexity, reason = "as of `wait_partial`")]
    pub fn wait_partial_async(
        self,
    ) -> impl Future<Output = (Vec<R::Value>, Result<(), GroupError<R::Error>>)> + Send + 'static {
        GroupFuture::new(self, |wait, context| {
            let refused = |error| (Vec::new(), refused(error));
            wait.poll_done(context, GroupInner::take_partial).map(|taken| taken.unwrap_or_else(refused))
        })
    }

    /// Like [`wait_with_task`](Self::wait_with_task), for async code.
    ///
    /// # Errors
    ///
    /// Those of `wait_with_task`.
    pub fn wait_with_task_async(
        self,
    ) -> impl Future<Output = Result<Vec<R::Value>, GroupError<TaskFailure<R::Error>>>> + Send + 'static {
        GroupFuture::new(self, |wait, context| {
            wait.poll_done(context, GroupInner::take_values_with_task).map(|taken| taken.unwrap_or_else(refused))
        })
    }
}
