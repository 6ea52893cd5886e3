//! Maps a function over an iterator on the workers.
//!
//! `map_tasks` has the tasks, and `read_ahead` the rules for taking items.

use std::fmt;
use std::iter::FusedIterator;
use std::panic::Location;

use super::in_progress::InProgress;
use super::map_tasks::MapTasks;
use super::result::MayFail;
use crate::error::{GroupError, JoinError};
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::Arc;

/// # Maps
impl WorkerPool {
    /// Applies `f` to each item on the workers, and yields the results in the order of the items.
    ///
    /// The returned [`Map`] is a lazy iterator: `next` takes items from `items` on the calling
    /// thread, and blocks until the first result is ready. An endless iterator takes bounded
    /// memory. [`Map`](Map#how-far-it-reads-ahead) says how far it reads ahead, and how to change
    /// that.
    ///
    /// Each item has its own result: a panic of `f` is an `Err` in its place, and the other items
    /// are not affected. If the pool is shut down, the remaining items yield
    /// [`JoinError::Cancelled`]. For an endless iterator these errors do not end, so stop at the
    /// first.
    ///
    /// Items and `f` own what they use. For items that borrow, use [`Scope::map`](crate::Scope::map).
    /// `f` is synchronous: the future of an async closure would not run. To retry items that fail, use
    /// [`map_with_retry`](Self::map_with_retry).
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
    #[doc(alias = "par_iter")]
    #[doc(alias = "invoke_all")]
    #[track_caller]
    pub fn map<I, F, T>(&self, items: I, f: F) -> Map<'_, I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        Map { tasks: MapTasks::new(self, items.into_iter(), Location::caller()), f: Arc::new(f) }
    }

    /// Applies `f` to each item on the workers, and returns all values in the order of the items.
    /// The first error cancels the rest.
    ///
    /// `f` returns a `Result`. For a function that returns plain values use [`map`](Self::map). If
    /// the compiler cannot infer the error type, name it: `Ok::<_, io::Error>(value)`. To retry items
    /// that fail, use [`try_map_with_retry`](Self::try_map_with_retry).
    ///
    /// This method takes items on the calling thread, as [`spawn_all`](crate::TaskGroup::spawn_all)
    /// does: at most a queue's capacity ahead of the workers, and none after the first error or a
    /// shutdown. A source that blocks in `next` cannot be interrupted: this call sees an error or a
    /// shutdown when `next` has returned.
    ///
    /// # Errors
    ///
    /// The first failure or panic by time, or [`GroupError::Cancelled`] if the pool was shut down,
    /// as in [`TaskGroup::wait`](crate::TaskGroup::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let size = |path| std::fs::metadata(path).map(|data| data.len());
    /// let sizes = pool.try_map(["Cargo.toml", "src"], size)?;
    /// assert_eq!(sizes.len(), 2);
    /// assert!(pool.try_map(["no such file"], std::fs::metadata).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_map<I, F, R, T, E>(&self, items: I, f: F) -> Result<Vec<T>, GroupError<E>>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: MayFail<T, E>,
        T: Send + 'static,
        E: Send + 'static,
    {
        let f = Arc::new(f);
        let group = self.group();
        group.spawn_all(items.into_iter().map(|item| {
            let f = Arc::clone(&f);
            move || f(item).into_result()
        }));
        group.wait()
    }
}

/// A lazy iterator over the results of one function for each item of a source. Returned by
/// [`WorkerPool::map`].
///
/// Dropping it cancels the tasks that have not started.
///
/// # How far it reads ahead
///
/// Creating the iterator takes no item. `next` blocks and may run tasks inline: hold no
/// [lock](crate#locks-and-submissions) that tasks take. Each call of `next` follows
/// these rules:
///
/// - If the first result is ready, `next` returns it and takes no item.
/// - Otherwise `next` takes items until the first result is ready or the [window](Self::window) is
///   full. *Default window: four items for each worker, but at most the queue's capacity plus one.*
/// - While a task is in progress, `next` by default takes only items that the source promises by
///   the lower bound of its [`size_hint`](Iterator::size_hint). Ranges and collections promise all
///   their items, and so do `map` and `enumerate` over them.
///
/// A channel, the lines of a reader and a [`filter`](Iterator::filter) promise nothing: such a
/// source may wait for the very result that it would delay. From it, `next` by default takes an
/// item only when all results were returned, so **one task runs at a time**. If the source does not
/// wait for results, set a [window](Self::window) or a [concurrency](Self::concurrency), and the
/// tasks run in parallel:
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
/// let words = "to be or not to be".split(' ').filter(|word| word.len() == 2);
/// let lengths = pool.map(words, str::len).window(16);
/// assert_eq!(lengths.filter(|length| matches!(length, Ok(2))).count(), 5);
/// # Ok::<(), workcrew::BuildError>(())
/// ```
///
/// A source that is fed by the results never hangs, at any pool size, unless it promises items that
/// it does not have. [`repeat_with`](std::iter::repeat_with) promises items without end: with
/// `recv` inside, set a window of one.
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let (todo, source) = std::sync::mpsc::channel();
/// todo.send(1)?;
/// for doubled in pool.map(source, |n: u32| 2 * n) {
///     let doubled = doubled?;
///     if doubled > 100 {
///         assert_eq!(doubled, 128);
///         break;
///     }
///     todo.send(doubled)?; // the next item is there only now
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "iterators are lazy: no item is taken and no task runs before `next` is called"]
pub struct Map<'a, I: Iterator, F, T> {
    /// The tasks of the items that were taken.
    tasks: MapTasks<'a, I, ItemClosure<T>, T>,
    /// The function.
    f: Arc<F>,
}

/// The closure of the task of one item.
type ItemClosure<T> = Box<dyn FnOnce() -> T + Send>;

impl<I: Iterator, F, T> Map<'_, I, F, T> {
    /// Sets how many items may be taken whose results were not yet returned, ready results
    /// included. Zero counts as one.
    ///
    /// A window also states that the source has that many items without waiting for a result. Then
    /// `next` takes them even if the source does not [promise](Self#how-far-it-reads-ahead) them. A
    /// window of one works on any source: an item is taken when the previous result was returned.
    ///
    /// *Default: four items for each worker, but at most the queue's capacity plus one, and only
    /// items that the source promises.*
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let taken = Cell::new(0);
    /// let mut results = pool.map((0..100).inspect(|_| taken.set(taken.get() + 1)), |n| n).window(3);
    /// assert_eq!(taken.get(), 0);
    /// assert_eq!(results.next().unwrap()?, 0);
    /// assert!(taken.get() <= 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn window(mut self, items: usize) -> Self {
        self.tasks.set_window(items);
        self
    }

    /// Sets how many tasks of this map may be in progress at once, queued or running. Zero counts
    /// as one.
    ///
    /// The [window](Self::window) limits ready results as well; this limits only tasks that have
    /// not ended. A number above one also states that the source has that many items without
    /// waiting for a result, as a window does.
    ///
    /// Only `next` submits tasks. While it waits for the first result, it fills the places of tasks
    /// that end, up to the window. Within a task it does not: there it may run the first task
    /// itself instead, and the next call fills the places. A place may be filled just before the
    /// first result is ready, so the result may have to wait for one item of the source.
    ///
    /// A map can be the source of another map. Then each stage has its own concurrency and window,
    /// and reads its own source only as far as its window. The cookbook has such a pipeline.
    ///
    /// *Default: the window.*
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
    /// let parsed = pool.map(["1", "2", "x"], str::parse::<i32>).concurrency(2).window(8);
    /// let doubled = pool.map(parsed, |n| n.map(|n| n.map(|n| 2 * n))).concurrency(3).window(8);
    /// let values: Vec<_> = doubled.map_while(|n| n.ok()?.ok()?.ok()).collect();
    /// assert_eq!(values, [2, 4]);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.tasks.set_concurrency(tasks);
        self
    }

    /// Sets the class of the tasks. *Default: [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.tasks.set_priority(priority);
        self
    }
}

/// Makes the closure of an item.
fn make_closure<X, F, T>(item: X, f: &Arc<F>, in_progress: Option<InProgress>) -> ItemClosure<T>
where
    X: Send + 'static,
    F: Fn(X) -> T + Send + Sync + 'static,
{
    let f = Arc::clone(f);
    let Some(in_progress) = in_progress else { return Box::new(move || f(item)) };
    Box::new(move || {
        let _in_progress = in_progress;
        f(item)
    })
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
        let f = &self.f;
        let make = |item, in_progress| make_closure(item, f, in_progress);
        self.tasks.next(make, WorkerPool::submit_task)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.tasks.size_hint()
    }
}

impl<I: Iterator, F, T> FusedIterator for Map<'_, I, F, T> where Self: Iterator {}

impl<I: Iterator, F, T> fmt::Debug for Map<'_, I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tasks.fmt("Map", f)
    }
}
