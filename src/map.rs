//! A function over an iterator, on the workers.

use std::collections::VecDeque;
use std::iter::Fuse;
use std::panic::Location;

use crate::engine::Patience;
use crate::error::{CancelReason, GroupError, JoinError, Refusal};
use crate::handle::JoinHandle;
use crate::pool::WorkerPool;
use crate::sync::Arc;

/// # Maps
impl WorkerPool {
    /// Applies `f` to each item on the workers and yields the results in the order of the items.
    ///
    /// It is lazy: items are taken from `items` only by `next`, on the calling thread, and at most a queue's capacity
    /// of results is under way or waiting to be yielded. So it works on an endless iterator, in bounded memory.
    /// Dropping the iterator cancels what has not started.
    ///
    /// Each item ends in its own result: a panic is an `Err` in its place, and the others go on. If the pool is shut
    /// down, the items left are [`JoinError::Cancelled`]; an endless iterator then yields errors without end, so stop at the
    /// first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let squares: Result<Vec<_>, _> = pool.map(1..=5, |n| n * n).collect();
    /// assert_eq!(squares?, [1, 4, 9, 16, 25]);
    ///
    /// let first = pool.map(1.., |n| n * n).map(Result::unwrap).find(|square| *square > 1_000);
    /// assert_eq!(first, Some(1_024));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map<I, F, T>(&self, items: I, f: F) -> impl Iterator<Item = Result<T, JoinError>> + use<'_, I, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        Map {
            pool: self,
            items: items.into_iter().fuse(),
            f: Arc::new(f),
            window: VecDeque::new(),
            held_back: None,
            location: Location::caller(),
        }
    }

    /// Applies `f` to each item on the workers and returns all values in the order of the items; the first error
    /// cancels the rest. Takes items only as fast as the workers take them. An `f` that cannot fail names its error,
    /// `Ok::<_, Infallible>(value)`, or [`map`](Self::map) does.
    ///
    /// # Errors
    ///
    /// The first failure or panic by time, or that the pool was shut down, as in
    /// [`TaskGroup::wait`](crate::TaskGroup::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let sizes = pool.try_map(["Cargo.toml", "src"], |path| std::fs::metadata(path).map(|data| data.len()))?;
    /// assert_eq!(sizes.len(), 2);
    /// assert!(pool.try_map(["no such file"], std::fs::metadata).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_map<I, F, T, E>(&self, items: I, f: F) -> Result<Vec<T>, GroupError<E>>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let f = Arc::new(f);
        let group = self.group();
        group.spawn_all(items.into_iter().map(|item| {
            let f = Arc::clone(&f);
            move || f(item)
        }));
        group.wait()
    }
}

/// The iterator of [`WorkerPool::map`].
struct Map<'a, I: Iterator, F, T> {
    pool: &'a WorkerPool,
    items: Fuse<I>,
    f: Arc<F>,
    /// Results that are under way, in the order of their items; at most the capacity of the queue.
    window: VecDeque<Result<JoinHandle<T>, JoinError>>,
    /// The task of an item that was taken and found no room.
    held_back: Option<Box<dyn FnOnce() -> T + Send>>,
    /// Where `map` was called.
    location: &'static Location<'static>,
}

impl<I, F, T> Map<'_, I, F, T>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    /// Takes items and submits their tasks, as long as there is room without waiting.
    fn fill(&mut self) {
        while self.window.len() < self.pool.queue_capacity() {
            let task = match self.held_back.take() {
                Some(task) => task,
                None => {
                    let Some(item) = self.items.next() else { return };
                    let f = Arc::clone(&self.f);
                    Box::new(move || f(item))
                }
            };
            // With nothing under way there is nothing else to wait for than room.
            let patience = if self.window.is_empty() { Patience::Policy } else { Patience::Try };
            match self.pool.submit_task(task, patience, self.location) {
                Ok(handle) => self.window.push_back(Ok(handle)),
                Err((Refusal::ShutDown, _)) => {
                    self.window.push_back(Err(JoinError::Cancelled(CancelReason::ShutDown)));
                }
                Err((Refusal::Full | Refusal::Timeout, task)) => {
                    self.held_back = Some(task);
                    return;
                }
            }
        }
    }
}

impl<I, F, T> Iterator for Map<'_, I, F, T>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = Result<T, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        match self.window.pop_front()? {
            Ok(handle) => Some(handle.join()),
            Err(error) => Some(Err(error)),
        }
    }
}

impl<I: Iterator, F, T> Drop for Map<'_, I, F, T> {
    fn drop(&mut self) {
        for handle in self.window.iter().flatten() {
            handle.cancel();
        }
    }
}
