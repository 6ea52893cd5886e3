//! An iterator over the outcomes of a group, in the order in which tasks end.

use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use super::body::Outcome;
use super::poll::GroupWait;
use super::result::TaskResult;
use super::state::GroupInner;
use super::task_group::TaskGroup;
use super::wait::NoCompletion;
use crate::error::TimedOut;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// # Outcomes one by one
impl<R: TaskResult> TaskGroup<R> {
    /// Returns an iterator over the outcomes in the order in which tasks end, each with the index
    /// of its task in spawn order.
    ///
    /// An outcome that was yielded takes no more memory, and a later wait does not return it.
    /// Outcomes that were not yielded take memory, however many they are: the
    /// [capacity](Self::capacity) limits only unstarted tasks. To apply back-pressure to the source
    /// until results are consumed, use [`map`](crate::WorkerPool::map).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let mut group = pool.group();
    /// group.spawn_all((0..10).map(|n| move || Ok::<_, String>(n * n)));
    /// for (index, outcome) in group.completions() {
    ///     assert_eq!(outcome.unwrap(), index * index);
    /// }
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn completions(&mut self) -> Completions<'_, R> {
        Completions::new(self.waits())
    }
}

/// An iterator over the outcomes of a group, each with the index of its task in spawn order.
/// Returned by [`TaskGroup::completions`](crate::TaskGroup::completions).
///
/// `next` blocks until a task has ended, and returns `None` when every task that was spawned has
/// been yielded. On a worker of the pool it runs tasks of the group meanwhile.
///
/// # Panics
///
/// `next` panics if a wait would return
/// [`GroupError::WouldDeadlock`](crate::GroupError::WouldDeadlock): in a task of the group itself,
/// if it would have to run tasks nested more than 64 deep, and in a circle of waits. The latter
/// means that every task that could end next waits for the task that calls `next`. A
/// [`Spawner`](crate::Spawner) of the group could add another task, so `next` does not panic while
/// there is one.
#[must_use = "iterators are lazy"]
pub struct Completions<'a, R: TaskResult> {
    /// The group.
    pub(super) inner: &'a Arc<GroupInner<R>>,
    /// Whether every task has been yielded. A spawner may add more later, which another iterator
    /// yields.
    pub(super) is_over: bool,
    /// The wait of `poll_next`; `None` if it was never polled.
    pub(super) wait: Option<GroupWait<R>>,
}

impl<'a, R: TaskResult> Completions<'a, R> {
    pub(super) fn new(inner: &'a Arc<GroupInner<R>>) -> Self {
        Self { inner, is_over: false, wait: None }
    }
}

impl<R: TaskResult> Completions<'_, R> {
    /// Like `next`, but blocks for at most `timeout`. `Duration::ZERO` never blocks, and
    /// `Duration::MAX` waits forever.
    ///
    /// A worker of the pool runs no tasks of the group meanwhile, because one of them could take
    /// longer than the timeout. With `Duration::MAX` it does.
    ///
    /// # Errors
    ///
    /// [`TimedOut`], if no task ended in time. The iterator can be used as before. If `next` would
    /// panic, because the wait can never end, this error is returned at once.
    ///
    /// # Examples
    ///
    /// Prints the progress in each second in which no page arrives:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let mut group = pool.group();
    /// group.spawn_all((0..10).map(|page| move || Ok::<_, String>(page)));
    /// let progress = group.spawner();
    /// let mut completions = group.completions();
    /// let mut pages = 0;
    /// loop {
    ///     match completions.next_timeout(Duration::from_secs(1)) {
    ///         Ok(Some((_, outcome))) => pages += usize::from(outcome.is_ok()),
    ///         Ok(None) => break, // that was the last page
    ///         Err(_) => println!("{}", progress.progress()),
    ///     }
    /// }
    /// assert_eq!(pages, 10);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<(usize, Outcome<R>)>, TimedOut> {
        self.next_until(Deadline::after(timeout)).map_err(|_| TimedOut)
    }

    fn next_until(&mut self, deadline: Deadline) -> Result<Option<(usize, Outcome<R>)>, NoCompletion> {
        if self.is_over {
            return Ok(None);
        }
        let next = self.inner.next_completion(deadline)?;
        self.is_over = next.is_none();
        Ok(next)
    }
}

impl<R: TaskResult> Iterator for Completions<'_, R> {
    type Item = (usize, Outcome<R>);

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        // Without a deadline, the only error is a wait that would never end.
        self.next_until(Deadline::NEVER).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<R: TaskResult> FusedIterator for Completions<'_, R> {}

impl<R: TaskResult> fmt::Debug for Completions<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").field("progress", &self.inner.progress()).finish()
    }
}
