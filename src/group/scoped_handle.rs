//! Tasks of a scope that have a value, and their handles.
//!
//! The value goes from the task to the handle through a cell that both share. Everything else about
//! the task is in `scoped_task`. Nothing here is unsafe: the closure of the task is a closure of
//! the scope like any other, and owns its reference to the cell.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Duration;

use super::result::{ScopeResult, TaskResult};
use super::scope::{Room, Scope};
use super::scoped_task::{Ending, ScopedTarget, ScopedTask};
use crate::error::panic::resume_to;
use crate::error::{JoinError, Refusal};
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;
use crate::unwind;

/// An owned permission to join one task of a scope. Returned by
/// [`Scope::spawn_value`](crate::Scope::spawn_value).
///
/// The outcome of the task belongs to the handle:
/// - [`join`](Self::join) returns the value, the panic or the cancellation. None of them is an
///   error of the scope, and a panic cancels no other task.
/// - Dropping the handle detaches the task. The scope still waits for it. Its value is then
///   dropped, and its panic is an error of the scope, like that of a task without a handle.
///
/// A handle cannot leave its scope. If a handle is leaked, its value or its panic is lost, but the
/// task still ends before the scope.
///
/// # Examples
///
/// ```
/// use workcrew::{JoinError, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let words = [String::from("red"), String::from("wheel")];
/// let longest = pool.scope(|scope| {
///     let first = scope.spawn_value(|| words[0].as_str()); // the value may borrow
///     let second = scope.spawn_value(|| words[1].as_str());
///     let (first, second) = (first.join()?, second.join()?);
///     Ok::<_, JoinError>(if first.len() > second.len() { first } else { second })
/// })??;
/// assert_eq!(longest, "wheel");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the handle drops the value; use `spawn` for a task without a value"]
pub struct ScopedHandle<'scope, T> {
    task: Arc<dyn ScopedTarget + 'scope>,
    cell: Arc<ValueCell<T>>,
    /// Keeps the handle within its scope, even if `T` borrows nothing.
    scope: PhantomData<&'scope ()>,
}

/// The value of a task, from its end until the handle takes it.
type ValueCell<T> = Mutex<Option<T>>;

impl<'scope> Scope<'scope, '_, ()> {
    /// Adds a task with a value, and returns the handle for it. The task and its value may borrow
    /// data that outlives the scope.
    ///
    /// A `Result` is a value like any other: an `Err` does not cancel the scope. A panic belongs to
    /// the [handle](ScopedHandle).
    ///
    /// This method may block or run tasks inline as [`spawn`](Self::spawn) does: hold no
    /// [lock](crate#locks-and-submissions) that tasks take. After a cancellation the
    /// closure is dropped unrun, and the handle returns [`JoinError::Cancelled`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let numbers = [1, 2, 3, 4];
    /// let sum = pool.scope(|scope| {
    ///     let (left, right) = numbers.split_at(2);
    ///     let left = scope.spawn_value(move || left.iter().sum::<i32>());
    ///     let right: i32 = right.iter().sum(); // meanwhile, here
    ///     left.join().map(|left| left + right)
    /// })??;
    /// assert_eq!(sum, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_value<F, T>(&'scope self, f: F) -> ScopedHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        spawn_waiting(self, f, Location::caller())
    }
}

impl<'scope, E: Send + 'static> Scope<'scope, '_, Result<(), E>> {
    /// Adds a task with a value to a scope whose other tasks return a `Result`. Otherwise behaves
    /// like [`spawn_value`](#method.spawn_value) of a scope whose tasks return `()`.
    ///
    /// If another task of the scope fails before this task starts, the handle returns
    /// [`JoinError::Cancelled`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let numbers = ["1", "2", "3"];
    /// let sum = pool.scope(|scope| {
    ///     scope.spawn(|| numbers[0].parse::<i32>().map(drop)); // an error cancels the rest
    ///     let rest = || numbers[1..].iter().flat_map(|text| text.parse::<i32>()).sum::<i32>();
    ///     scope.spawn_value(rest).join()
    /// })??;
    /// assert_eq!(sum, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // The receiver differs from that of the method above on purpose; see `scope`.
    #[track_caller]
    pub fn spawn_value<F, T>(self: &&'scope Self, f: F) -> ScopedHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        spawn_waiting(self, f, Location::caller())
    }
}

/// Adds a task with a value, and waits for room.
fn spawn_waiting<'scope, F, T, R: ScopeResult>(
    scope: &'scope Scope<'scope, '_, R>,
    f: F,
    location: &'static Location<'static>,
) -> ScopedHandle<'scope, T>
where
    F: FnOnce() -> T + Send + 'scope,
    T: Send + 'scope,
{
    match spawn(scope, (f, Room::Await), |f| f, location) {
        Ok(handle) => handle,
        Err(_) => unreachable!("a scope refuses no task that waits for room"),
    }
}

/// Adds the task whose closure `make` returns for `source`. Calls `make` once, unless the task is
/// refused.
pub(super) fn spawn<'scope, S, F, T, R: ScopeResult>(
    scope: &'scope Scope<'scope, '_, R>,
    source: (S, Room),
    make: impl FnOnce(S) -> F,
    location: &'static Location<'static>,
) -> Result<ScopedHandle<'scope, T>, (Refusal, S)>
where
    F: FnOnce() -> T + Send + 'scope,
    T: Send + 'scope,
{
    let mut handle = None;
    let make_task = |source, index| {
        let task = Arc::new(ScopedTask::new(Arc::clone(scope.group()), index));
        let cell = Arc::new(ValueCell::default());
        handle = Some(ScopedHandle { task: Arc::clone(&task) as _, cell: Arc::clone(&cell), scope: PhantomData });
        let value_task = ValueTask { f: make(source), cell, unstarted: Unstarted(task) };
        move || {
            value_task.run();
            R::success()
        }
    };
    scope.add(source, make_task, location)?;
    Ok(handle.expect("a task that was added was made"))
}

/// The closure of a task with a value. Its fields are dropped in this order, so nothing is left of
/// the closure when a waiter finds the task cancelled.
struct ValueTask<F, T, R: TaskResult> {
    f: F,
    cell: Arc<ValueCell<T>>,
    unstarted: Unstarted<R>,
}

/// Notes the end of a task that is dropped unrun.
struct Unstarted<R: TaskResult>(Arc<ScopedTask<R>>);

impl<R: TaskResult> Drop for Unstarted<R> {
    fn drop(&mut self) {
        self.0.end_unstarted();
    }
}

impl<F: FnOnce() -> T, T, R: TaskResult> ValueTask<F, T, R> {
    fn run(self) {
        let Self { f, cell, unstarted } = self;
        let task = &unstarted.0;
        task.start();
        match unwind::catch(f) {
            Ok(value) => {
                *cell.lock() = Some(value);
                if task.complete(Ending::Value).is_some() {
                    let unclaimed = cell.lock().take();
                    unwind::discard(unclaimed);
                }
            }
            Err(payload) => resume_to(Arc::clone(task) as _, payload),
        }
    }
}

impl<T> ScopedHandle<'_, T> {
    /// Blocks until the task has ended and takes its value.
    ///
    /// On a worker of the pool this runs the task if it has not started, and no other task of the
    /// scope.
    ///
    /// # Errors
    ///
    /// - [`JoinError::Panicked`] with the payload, if the task panicked.
    /// - [`JoinError::Cancelled`], if the task was cancelled before it started.
    /// - [`JoinError::WouldDeadlock`], if the task joins itself, if it waits for the task that
    ///   joins it, or if joins are nested more than 64 tasks deep. The handle is dropped, which
    ///   detaches the task.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{JoinError, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let unlucky = || if true { panic!("no luck") };
    /// let message = pool.scope(|scope| match scope.spawn_value(unlucky).join() {
    ///     Err(JoinError::Panicked(panic)) => panic.message().map(str::to_owned),
    ///     other => unreachable!("{other:?}"),
    /// })?; // the scope itself has not failed
    /// assert_eq!(message.as_deref(), Some("no luck"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        Arc::clone(&self.task).wait(Deadline::NEVER)?;
        self.task.take()?;
        let value = self.cell.lock().take();
        Ok(value.expect("a task that has ended with a value has left it in its cell"))
    }

    /// Blocks until the task has ended or `timeout` has passed. Returns `true` if the task has
    /// ended; [`join`](Self::join) then returns at once.
    ///
    /// A worker of the pool does not help here, because the task could take longer than the
    /// timeout. With `Duration::MAX`, which means forever, it does help. It then returns `false` at
    /// once where `join` would return [`JoinError::WouldDeadlock`].
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        Arc::clone(&self.task).wait(Deadline::after(timeout)).unwrap_or(false)
    }

    /// Returns `true` if the task has ended. `true` is final, and `join` then returns at once.
    /// `false` may be stale when it returns.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// Cancels the task if it has not started. Returns `true` if it cancelled the task.
    ///
    /// The closure is dropped before this returns, and `join` returns [`JoinError::Cancelled`].
    /// That is not an error of the scope. A running task is not affected.
    #[allow(clippy::must_use_candidate, reason = "the result is often not needed")]
    pub fn cancel(&self) -> bool {
        self.task.cancel()
    }
}

impl<T> Drop for ScopedHandle<'_, T> {
    fn drop(&mut self) {
        self.task.detach();
        let unclaimed = self.cell.lock().take();
        unwind::discard(unclaimed);
    }
}

unwind::safe!(ScopedHandle<'_, T>, T);

impl<T> fmt::Debug for ScopedHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedHandle").field("finished", &self.is_finished()).finish()
    }
}
