//! The outcomes of a group from async code, in the order in which tasks end.

use std::future::{self, Future};
#[cfg(feature = "stream")]
use std::pin::Pin;
use std::task::{Context, Poll};

use super::body::Outcome;
use super::completions::Completions;
use super::poll::GroupWait;
use super::result::TaskResult;

/// # In async code
///
/// With the feature `stream`, `Completions` is also a `Stream` of the crate `futures-core`.
impl<R: TaskResult> Completions<'_, R> {
    /// Returns the next outcome if a task has ended. Otherwise registers the waker, which is woken
    /// when a task ends. Returns `None` when every task that was spawned has been yielded.
    ///
    /// A poll on a worker of the pool runs tasks of the group, like `next`.
    ///
    /// # Panics
    ///
    /// If `next` would panic.
    #[track_caller]
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Outcome<R>)>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.wait.get_or_insert_with(|| GroupWait::new(self.inner)).poll_completion(context) {
            Poll::Ready(Ok(next)) => {
                self.is_over = next.is_none();
                Poll::Ready(next)
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Like `next`, for async code: the returned future does not block. Dropping it loses no
    /// outcome.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let mut group = pool.group();
    /// group.spawn_all((0..10).map(|n| move || Ok::<_, String>(n * n)));
    /// block_on(async {
    ///     let mut completions = group.completions();
    ///     while let Some((index, outcome)) = completions.next_async().await {
    ///         assert_eq!(outcome.unwrap(), index * index);
    ///     }
    /// });
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn next_async(&mut self) -> impl Future<Output = Option<(usize, Outcome<R>)>> + Send {
        future::poll_fn(|context| self.poll_next(context))
    }
}

#[cfg(feature = "stream")]
impl<R: TaskResult> futures_core::Stream for Completions<'_, R> {
    type Item = (usize, Outcome<R>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Completions::poll_next(&mut self, context)
    }
}
