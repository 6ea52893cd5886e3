//! Maps a function over items that tasks may borrow.
//!
//! `read_ahead` has the rules for taking items. The queue which may be full is that of the scope's
//! group.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::panic::Location;

use super::in_progress::Concurrency;
use super::read_ahead::Source;
use super::result::ScopeResult;
use super::scope::{Room, Scope};
use super::scoped_handle::{self, ScopedHandle};
use crate::error::{JoinError, Refusal};
use crate::sync::Arc;
use crate::unwind;

impl<'scope, 'env> Scope<'scope, 'env, ()> {
    /// Applies `f` to each item on the workers, and yields the results in the order of the items.
    /// The items, `f` and the results may borrow data that outlives the scope.
    ///
    /// This is [`WorkerPool::map`](crate::WorkerPool::map) for borrowed data. It returns a lazy
    /// iterator, whose `next` takes items on the calling thread and blocks until the first result
    /// is ready. The iterator reads ahead [by the same rules](crate::Map#how-far-it-reads-ahead),
    /// so an endless source takes bounded memory. Each item has its own result: a panic of `f` is
    /// an `Err` in its place, and affects neither the other items nor the scope.
    ///
    /// Dropping the iterator cancels those of its tasks that have not started. To stop at the first
    /// error, return the error from the body.
    ///
    /// There is no map with retries in a scope: a delay must not hold a worker, and a retried task
    /// of a scope returns no value. Items that need not be borrowed go to
    /// [`WorkerPool::map_with_retry`](crate::WorkerPool::map_with_retry). Others are added by
    /// [`spawn_with_retry`](Self::spawn_with_retry), whose closures borrow a place for their value.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let words = [String::from("red"), String::from("wheel"), String::from("barrow")];
    /// let lengths: Result<Vec<_>, _> =
    ///     pool.scope(|scope| scope.map(&words, |word| word.len()).collect())?;
    /// assert_eq!(lengths?, [3, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Results that may fail, printed in order as they become ready, up to the first error:
    ///
    /// ```
    /// use std::{fs, io};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let paths = ["Cargo.toml", "README.md", "no such file", "CHANGELOG.md"];
    /// let mut read = Vec::new();
    /// let ended = pool.scope(|scope| {
    ///     for (path, text) in paths.iter().zip(scope.map(&paths, fs::read_to_string)) {
    ///         read.push((*path, text??.len()));
    ///     }
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// assert_eq!(read.len(), 2);
    /// assert_eq!(ended.unwrap_err().downcast::<io::Error>()?.kind(), io::ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn map<I, F, T>(&'scope self, items: I, f: F) -> ScopeMap<'scope, 'env, I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'scope,
        F: Fn(I::Item) -> T + Send + Sync + 'scope,
        T: Send + 'scope,
    {
        ScopeMap::new(self, items.into_iter(), f, Location::caller())
    }
}

impl<'scope, 'env, E: Send + 'static> Scope<'scope, 'env, Result<(), E>> {
    /// Maps a function over items in a scope whose other tasks return a `Result`. Otherwise behaves
    /// like [`map`](#method.map) of a scope whose tasks return `()`.
    ///
    /// An `Err` of `f` is a result like any other, and does not cancel the scope. If another task
    /// of the scope fails, the items whose tasks have not started yield [`JoinError::Cancelled`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let words = ["red", "wheel", "barrow"];
    /// let lengths: Result<Vec<_>, _> = pool.scope(|scope| {
    ///     scope.spawn(|| std::fs::metadata("Cargo.toml").map(drop)); // an error cancels the rest
    ///     scope.map(&words, |word| word.len()).collect()
    /// })?;
    /// assert_eq!(lengths?, [3, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // The receiver differs from that of the method above on purpose; see `scope`.
    #[track_caller]
    pub fn map<I, F, T>(self: &&'scope Self, items: I, f: F) -> ScopeMap<'scope, 'env, I::IntoIter, F, T, Result<(), E>>
    where
        I: IntoIterator,
        I::Item: Send + 'scope,
        F: Fn(I::Item) -> T + Send + Sync + 'scope,
        T: Send + 'scope,
    {
        ScopeMap::new(self, items.into_iter(), f, Location::caller())
    }
}

/// A lazy iterator over the results of one function for each item of a source, within a scope.
/// Returned by [`Scope::map`].
///
/// Dropping it cancels those of its tasks that have not started.
#[must_use = "iterators are lazy: no item is taken and no task runs before `next` is called"]
pub struct ScopeMap<'scope, 'env, I: Iterator, F, T, R: ScopeResult + 'env = ()> {
    /// The scope of the tasks.
    scope: &'scope Scope<'scope, 'env, R>,
    /// The source. What is held back is an item for which the scope had no room.
    source: Source<I, I::Item>,
    /// The function.
    f: Arc<F>,
    /// The results of the items that were taken, in the order of the items.
    results: VecDeque<ScopedHandle<'scope, T>>,
    /// The limit of tasks in progress, if the user has set it.
    concurrency: Option<Concurrency>,
    /// Where `map` was called.
    location: &'static Location<'static>,
}

impl<'scope, 'env, I: Iterator, F, T, R: ScopeResult> ScopeMap<'scope, 'env, I, F, T, R> {
    fn new(scope: &'scope Scope<'scope, 'env, R>, items: I, f: F, location: &'static Location<'static>) -> Self {
        let (source, f, results) = (Source::new(items), Arc::new(f), VecDeque::new());
        Self { scope, source, f, results, concurrency: None, location }
    }

    /// Sets how many items may be taken whose results were not yet returned, ready results
    /// included. Zero counts as one. See [`Map::window`](crate::Map::window).
    ///
    /// *Default: four items for each worker, but at most the queue's capacity plus one, and only
    /// items that the source promises.*
    pub fn window(mut self, items: usize) -> Self {
        self.source.set_window(items);
        self
    }

    /// Sets how many tasks of this map may be in progress at once, queued or running. Zero counts
    /// as one. See [`Map::concurrency`](crate::Map::concurrency).
    ///
    /// *Default: the window.*
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let words = ["red", "wheel", "barrow"];
    /// let lengths: Vec<usize> = pool.scope(|scope| {
    ///     let trimmed = scope.map(&words, |word| word.trim()).concurrency(2).window(8);
    ///     let lengths = scope.map(trimmed, |word| word.map(str::len)).concurrency(1);
    ///     lengths.map(|length| length?).collect::<Result<_, _>>()
    /// })??;
    /// assert_eq!(lengths, [3, 5, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = Some(Concurrency::new(tasks));
        self
    }

    /// Returns `true` if the next result can be returned without waiting.
    fn is_first_ready(&self) -> bool {
        self.results.front().is_some_and(ScopedHandle::is_finished)
    }

    /// Returns `true` if another item may be taken, by the rules of `read_ahead`.
    fn may_take(&self) -> bool {
        let group = self.scope.group();
        let pool = (&*group.pool, group.settings.priority);
        self.source.may_take(self.results.len(), pool, self.concurrency.as_ref())
    }
}

impl<'scope, I, F, T, R: ScopeResult> ScopeMap<'scope, '_, I, F, T, R>
where
    I: Iterator,
    I::Item: Send + 'scope,
    F: Fn(I::Item) -> T + Send + Sync + 'scope,
    T: Send + 'scope,
{
    /// Adds the task of the next item. Returns `true` if that succeeded.
    fn take_item(&mut self) -> bool {
        let Some(item) = self.source.next(|item| item) else { return false };
        // Without a task in progress, there is only room to wait for.
        let room = if self.results.is_empty() { Room::Await } else { Room::Require };
        match self.add(item, room) {
            Ok(()) => true,
            Err((Refusal::Full | Refusal::Timeout, item)) => {
                self.source.held_back = Some(item);
                false
            }
            // A task that is not refused is dropped unrun, and its handle says why.
            Err((Refusal::ShutDown, item)) => self.add(item, Room::Await).is_ok(),
        }
    }

    fn add(&mut self, item: I::Item, room: Room) -> Result<(), (Refusal, I::Item)> {
        let (f, in_progress) = (Arc::clone(&self.f), self.concurrency.as_ref().map(Concurrency::count));
        let make = |item| {
            move || {
                let _in_progress = in_progress;
                f(item)
            }
        };
        let handle = scoped_handle::spawn(self.scope, (item, room), make, self.location)?;
        self.results.push_back(handle);
        Ok(())
    }
}

impl<'scope, I, F, T, R: ScopeResult> Iterator for ScopeMap<'scope, '_, I, F, T, R>
where
    I: Iterator,
    I::Item: Send + 'scope,
    F: Fn(I::Item) -> T + Send + Sync + 'scope,
    T: Send + 'scope,
{
    type Item = Result<T, JoinError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while !self.is_first_ready() && self.may_take() && self.take_item() {}
            let (results, pool) = (self.results.len(), &self.scope.group().pool);
            if self.is_first_ready()
                || !self.source.wait_for_room(
                    results,
                    (pool, self.scope.group().settings.priority),
                    self.concurrency.as_ref(),
                )
            {
                break;
            }
        }
        Some(self.results.pop_front()?.join())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.source.size_hint(self.results.len())
    }
}

impl<'scope, I, F, T, R: ScopeResult> FusedIterator for ScopeMap<'scope, '_, I, F, T, R>
where
    I: Iterator,
    I::Item: Send + 'scope,
    F: Fn(I::Item) -> T + Send + Sync + 'scope,
    T: Send + 'scope,
{
}

impl<I: Iterator, F, T, R: ScopeResult> Drop for ScopeMap<'_, '_, I, F, T, R> {
    fn drop(&mut self) {
        // From the back, so that no worker starts a task that is about to be cancelled.
        for handle in self.results.iter().rev() {
            handle.cancel();
        }
        unwind::discard(self.source.held_back.take());
    }
}

impl<I: Iterator, F, T, R: ScopeResult> fmt::Debug for ScopeMap<'_, '_, I, F, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeMap")
            .field("results", &self.results.len())
            .field("window", &self.source.window())
            .field("concurrency", &self.concurrency.as_ref().map(Concurrency::limit))
            .finish_non_exhaustive()
    }
}
