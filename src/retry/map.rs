//! Maps whose items are retried.
//!
//! `group::map_tasks` keeps the order and the window; this module makes a task of each item.

use std::fmt;
use std::iter::FusedIterator;
use std::panic::Location;

use super::attempts::Attempt;
use super::error::RetryError;
use super::policy::RetryPolicy;
use super::reserve::reserve_if_free;
use super::{group_task, no_limits, submit};
use crate::error::{GroupError, JoinError, Refusal};
use crate::group::{InProgress, MapTasks};
use crate::pool::submit::SubmitSettings;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;

/// # Maps whose items are retried
impl WorkerPool {
    /// Applies `f` to each item on the workers, retries items that fail, and yields the results in
    /// the order of the items.
    ///
    /// This is [`map`](Self::map) for a function that may fail for a while, such as a request. The
    /// returned [`RetryMap`] is a lazy iterator in bounded memory, with the same window and
    /// concurrency. `f` gets a reference to the item, because it may need the item again, and the
    /// [`Attempt`]. Each item is one task, which [`spawn_with_retry`](Self::spawn_with_retry) would
    /// retry in the same way: a panic of `f` is a failure like an `Err`.
    ///
    /// - While an item waits for its next attempt, it holds no worker. It keeps its place in the
    ///   order, in the window and in the concurrency. The items behind it in the window go on.
    /// - An item that is given up yields a [`RetryError`], with the last error and the number of
    ///   attempts. It does not affect other items.
    /// - Dropping the iterator ends all delays at once, drops their items, and cancels the
    ///   [token](Attempt::token) of each attempt that runs. So does the end of the pool, after
    ///   which the remaining items yield [`JoinError::Cancelled`].
    ///
    /// The inner `Result` is that of the item, as in the handle of a retried task. Items that borrow
    /// are added to a scope, by [`Scope::spawn_with_retry`](crate::Scope::spawn_with_retry). Like
    /// that of [`map`](Self::map), `next` may block and run tasks inline: hold no
    /// [lock](crate#locks-and-submissions) that tasks take.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    /// let fetch = |page: &u32, attempt: workcrew::retry::Attempt| match attempt.number() {
    ///     number if number < *page => Err(format!("page {page} is busy")),
    ///     _ => Ok(10 * page),
    /// };
    /// let mut pages = pool.map_with_retry([1, 3, 4], policy, fetch).concurrency(2);
    /// assert_eq!(pages.next().unwrap()?.unwrap(), 10);
    /// assert_eq!(pages.next().unwrap()?.unwrap(), 30); // by its third attempt
    /// let error = pages.next().unwrap()?.unwrap_err();
    /// assert_eq!(error.attempts(), 3);
    /// assert_eq!(error.last().to_string(), "page 4 is busy");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map_with_retry<I, F, T, E>(
        &self,
        items: I,
        policy: RetryPolicy<E>,
        f: F,
    ) -> RetryMap<'_, I::IntoIter, F, T, E>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(&I::Item, Attempt) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let tasks = MapTasks::new(self, items.into_iter(), Location::caller());
        RetryMap { tasks, policy, f: Arc::new(f) }
    }

    /// Applies `f` to each item on the workers, retries items that fail, and returns all values in
    /// the order of the items. The first item that is given up cancels the rest.
    ///
    /// This is [`try_map`](Self::try_map) with retries, as
    /// [`map_with_retry`](Self::map_with_retry) makes them. Once an item is given up, all delays
    /// end at once, and running attempts see the cancellation in their token.
    ///
    /// The calling thread takes the items, and none after the first error or a shutdown. At most a
    /// queue's capacity and one for each worker are in progress at once, those that wait for their
    /// next attempt included. A worker of the pool makes attempts itself and waits out the delays,
    /// so a pool of one worker is enough.
    ///
    /// # Errors
    ///
    /// [`GroupError::Failed`] with the [`RetryError`] of the item that was given up first, or
    /// [`GroupError::Cancelled`] if the pool was shut down, as in
    /// [`TaskGroup::wait`](crate::TaskGroup::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    /// let fetch = |page: &u32, attempt: workcrew::retry::Attempt| match attempt.number() {
    ///     number if number < *page => Err("busy"),
    ///     _ => Ok(10 * page),
    /// };
    /// assert_eq!(pool.try_map_with_retry(1..=3, policy.clone(), fetch)?, [10, 20, 30]);
    /// let error = pool.try_map_with_retry(1..=9, policy, fetch).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "given up after attempt 3, since the attempts are used up: busy",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[cfg_attr(workcrew_model, allow(clippy::result_large_err, reason = "a model's types are larger"))]
    #[allow(clippy::needless_pass_by_value, reason = "each method takes a policy by value")]
    pub fn try_map_with_retry<I, F, T, E>(
        &self,
        items: I,
        policy: RetryPolicy<E>,
        f: F,
    ) -> Result<Vec<T>, GroupError<RetryError<E>>>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(&I::Item, Attempt) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (f, location, group) = (Arc::new(f), Location::caller(), self.group());
        for item in items {
            if group.is_cancelled() {
                break;
            }
            group_task::spawn_in_any_case(&group, policy.clone(), make_closure(item, &f, None), location);
            group.inner().wait_for_fewer(self.queue_capacity() + self.workers())?;
        }
        group.wait()
    }
}

/// A lazy iterator over the results of one function for each item of a source, whose items are
/// retried. Returned by [`WorkerPool::map_with_retry`].
///
/// It reads ahead like a [`Map`](crate::Map#how-far-it-reads-ahead). The output of an item is
/// `Ok(Ok(value))`, or `Ok(Err(error))` if it was given up, or a [`JoinError`] if it was cancelled
/// before its first attempt. Dropping the iterator cancels its tasks.
#[must_use = "iterators are lazy: no item is taken and no task runs before `next` is called"]
pub struct RetryMap<'a, I: Iterator, F, T, E> {
    /// The tasks of the items that were taken.
    tasks: MapTasks<'a, I, ItemClosure<T, E>, Result<T, RetryError<E>>>,
    /// The policy of each item.
    policy: RetryPolicy<E>,
    /// The function.
    f: Arc<F>,
}

/// The handle of one item, or its closure, which was refused.
type Submitted<T, E> = Result<JoinHandle<Result<T, RetryError<E>>>, (Refusal, ItemClosure<T, E>)>;

/// The closure that makes the attempts of one item.
type ItemClosure<T, E> = Box<dyn FnMut(Attempt) -> Result<T, E> + Send>;

impl<I: Iterator, F, T, E> RetryMap<'_, I, F, T, E> {
    /// Sets how many items may be taken whose results were not yet returned, ready results and
    /// delayed items included. Zero counts as one. See [`Map::window`](crate::Map::window).
    ///
    /// *Default: four items for each worker, but at most the queue's capacity plus one, and only
    /// items that the source promises.*
    pub fn window(mut self, items: usize) -> Self {
        self.tasks.set_window(items);
        self
    }

    /// Sets how many tasks of this map may be in progress at once: queued, running, or waiting for
    /// their next attempt. Zero counts as one. See [`Map::concurrency`](crate::Map::concurrency).
    ///
    /// *Default: the window.*
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.tasks.set_concurrency(tasks);
        self
    }

    /// Sets the class of the tasks, over all attempts. *Default: [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.tasks.set_priority(priority);
        self
    }
}

/// Makes the closure of an item.
fn make_closure<X, F, T, E>(item: X, f: &Arc<F>, in_progress: Option<InProgress>) -> ItemClosure<T, E>
where
    X: Send + 'static,
    F: Fn(&X, Attempt) -> Result<T, E> + Send + Sync + 'static,
{
    let f = Arc::clone(f);
    Box::new(move |attempt| {
        let _in_progress = &in_progress; // until the last attempt, or until the closure is dropped
        f(&item, attempt)
    })
}

/// Submits the task of an item. A task without a place for a timer makes one attempt.
fn submit_item<T, E>(
    pool: &WorkerPool,
    policy: RetryPolicy<E>,
    closure: ItemClosure<T, E>,
    settings: SubmitSettings<'_>,
) -> Submitted<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let reservation = reserve_if_free(&pool.inner().timers);
    let task = submit(pool, (policy, reservation), closure, settings, no_limits())?;
    Ok(JoinHandle::new(task, Arc::clone(&pool.inner().executor)))
}

impl<I, F, T, E> Iterator for RetryMap<'_, I, F, T, E>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(&I::Item, Attempt) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Item = Result<Result<T, RetryError<E>>, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (policy, f) = (&self.policy, &self.f);
        let make = |item, in_progress| make_closure(item, f, in_progress);
        self.tasks.next(make, |pool, closure, settings| submit_item(pool, policy.clone(), closure, settings))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.tasks.size_hint()
    }
}

impl<I: Iterator, F, T, E> FusedIterator for RetryMap<'_, I, F, T, E> where Self: Iterator {}

impl<I: Iterator, F, T, E> fmt::Debug for RetryMap<'_, I, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tasks.fmt("RetryMap", f)
    }
}
