//! The executor as users see it.

use std::fmt;
use std::hash::Hash;
use std::panic::Location;
use std::time::Duration;

use super::body::{KeyedBody, Once};
use super::pending::Body;
use super::state::{KeyedInner, KeyedSettings, LabelOf};
use super::task::KeyedTask;
use crate::cancel::token::CancellationToken;
use crate::error::{Refusal, Refuser, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::pool::inner::PoolInner;
use crate::pool::submit::WaitMode;
use crate::sync::Arc;
use crate::task::closure::Closure;
use crate::task::handle::JoinHandle;
use crate::task::waits::Refused;
use crate::time::deadline::Deadline;
use crate::unwind;

/// An executor that runs the tasks of one key one at a time, in the order of submission. Tasks of
/// different keys run in parallel on the workers of the pool.
///
/// Use it where order matters within one customer, file or connection, but not between them.
///
/// Keys *take turns*: when a task has ended, its key goes behind all other keys that have tasks. So
/// a key with 100,000 tasks delays a task of another key by at most one of its own. A worker that
/// [joins](Self#joining) a task is an exception: it runs the earlier tasks of that key first.
///
/// A panic of a task, or an error that it returns, does not stop its key: the next task runs. A
/// task that never ends stops its key, and occupies one worker. With the feature `retry`, a task
/// that is [retried](crate::retry) holds its key until its last attempt has ended.
///
/// A `KeyedExecutor` is a handle, and its clones are handles to the same executor. Queued tasks
/// still run after the last handle is dropped. A handle does not keep the pool open.
///
/// # Memory
///
/// A key takes memory only while it has a task that is queued or running. So keys are neither
/// registered nor removed. The memory of the executor is that of its queued tasks, up to its
/// [capacity](crate::KeyedExecutorBuilder::capacity), and of the keys that they have.
///
/// # Keys
///
/// Tasks with equal keys share one queue. Keys are hashed and compared as in a `HashMap`. This
/// happens, like the drop of keys, on submitting threads and on workers, with no lock of the
/// executor held. A key is dropped when it has no more tasks and no handle of its tasks is left.
///
/// # A full executor
///
/// The executor bounds the number of tasks that have not started, in total and [for each
/// key](crate::KeyedExecutorBuilder::capacity_per_key). A full key does not hold up other keys. The
/// tasks do not count in the queue of the pool, and the pool's [`Overflow`](crate::Overflow) policy
/// does not apply.
///
/// | submitter | plain form | form with a timeout | `try_` form |
/// |---|---|---|---|
/// | a thread outside the pool | waits for room | waits for at most the timeout | refused |
/// | a worker of the pool | makes room, or exceeds the bound | refused | refused |
///
/// A worker makes room by running a task inline. If the key is full, it runs the oldest task of
/// that key. If the executor is full, it runs the oldest task of the key whose turn is next.
///
/// A worker cannot make room with a key that is running already, such as its own. Nor does it run a
/// task inline if 16 or more tasks are nested on its stack. In both cases the task is queued beyond
/// the bound. So a task may submit to any key, its own included, without deadlock. A task that
/// submits without end should use [`try_execute`](Self::try_execute), which keeps the bounds.
///
/// # Joining
///
/// A worker that joins a task runs the earlier tasks of that key first, and nothing else of the
/// executor. If a task of the key is running, the worker sleeps until that task has ended. A task
/// that joins a later task of its own key gets
/// [`JoinError::WouldDeadlock`](crate::JoinError::WouldDeadlock), because the later task cannot
/// start before the earlier one ends.
///
/// # Shutdown
///
/// The tasks are tasks of the pool, and a [shutdown](crate::WorkerPool#what-a-shutdown-cancels)
/// treats them as such. `shutdown` runs them. `shutdown_now`, and `shutdown_timeout` when its limit
/// has passed, cancel those that have not started. A closed pool accepts no more tasks.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// let pool = workcrew::WorkerPool::builder().workers(4).build()?;
/// let accounts = pool.keyed();
/// let booked: Arc<Mutex<Vec<i32>>> = Arc::default();
/// for amount in [5, -3, 4] {
///     let booked = Arc::clone(&booked);
///     accounts.execute("alice", move || booked.lock().unwrap().push(amount))?;
///     accounts.execute("bob", || println!("at the same time"))?;
/// }
/// let kept = Arc::clone(&booked);
/// // Runs after the other tasks of this key.
/// let balance = accounts.spawn("alice", move || kept.lock().unwrap().iter().sum::<i32>())?;
/// assert_eq!(balance.join()?, 6);
/// assert_eq!(*booked.lock().unwrap(), [5, -3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyedExecutor<K> {
    pub(super) inner: Arc<KeyedInner<K>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutor<K> {
    /// Makes an executor with the settings of a builder.
    pub(super) fn with_settings(
        pool: &Arc<PoolInner>,
        settings: KeyedSettings,
        label_of: Option<Arc<LabelOf<K>>>,
    ) -> Self {
        Self { inner: KeyedInner::new(pool, settings, label_of) }
    }
}

/// # Submitting
///
/// Each method behaves like that of the pool with the same name, except that a [full
/// executor](Self#a-full-executor) has rules of its own. A task that runs inline runs under the
/// locks that the submitting task holds, so [hold none that tasks
/// take](crate#locks-and-submissions).
///
/// Each method panics if hashing, comparing or [labelling](crate::KeyedExecutorBuilder::label_by)
/// the key panics. The task is then not submitted. Hashing and comparing may submit to keyed
/// executors in turn, at most 16 deep on one stack; a deeper submission panics.
impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutor<K> {
    /// Submits a task of `key` without a handle. Blocks while the executor or the key is full.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let files = pool.keyed();
    /// files.execute("a.txt", || println!("create it"))?;
    /// files.execute("a.txt", || println!("append to it"))?;
    /// files.wait_idle();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute<F>(&self, key: K, f: F) -> Result<(), SubmitError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit(key, f, WaitMode::Policy, Location::caller()).map_err(SubmitError::by(Refuser::Keyed))
    }

    /// Like [`execute`](Self::execute), but never blocks, never runs a task inline, and keeps the
    /// bounds on any thread.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the executor or the key is full or the pool is shut
    /// down.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use workcrew::KeyedExecutor;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let executor = KeyedExecutor::builder(&pool).capacity_per_key(1).build();
    /// let (open, gate) = channel::<()>();
    /// let busy = executor.spawn(1, move || gate.recv())?;
    /// executor.execute(1, || ())?; // waits until the first has started, and fills the key
    /// assert!(executor.try_execute(1, || ()).unwrap_err().is_full());
    /// executor.try_execute(2, || ())?; // another key has room
    /// open.send(())?;
    /// assert!(busy.join()?.is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_execute<F>(&self, key: K, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit(key, f, WaitMode::Never, Location::caller()).map_err(TrySubmitError::by(Refuser::Keyed))
    }

    /// Like [`execute`](Self::execute), but blocks at most for `timeout`, and never runs a task
    /// inline. On a worker of the pool it does not block. `Duration::MAX` means forever.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if there was no room in time or the pool is shut
    /// down.
    #[track_caller]
    pub fn try_execute_for<F>(&self, key: K, timeout: Duration, f: F) -> Result<(), SubmitTimeoutError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit(key, f, WaitMode::Until(Deadline::after(timeout)), Location::caller())
            .map_err(SubmitTimeoutError::by(Refuser::Keyed))
    }

    /// Submits a task of `key` and returns the handle for its result. Blocks while the executor or
    /// the key is full.
    ///
    /// If the handle cancels the task, the next task of the key runs instead. The place of the
    /// cancelled task becomes free when its turn comes.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let executor = pool.keyed();
    /// let fails = executor.spawn(7, || Err::<u32, _>("an error, or a panic"))?;
    /// let works = executor.spawn(7, || 8)?;
    /// assert_eq!((fails.join()?, works.join()?), (Err("an error, or a panic"), 8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&self, key: K, f: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_task(key, f, WaitMode::Policy, Location::caller()).map_err(SubmitError::by(Refuser::Keyed))
    }

    /// Like [`spawn`](Self::spawn), but never blocks, never runs a task inline, and keeps the
    /// bounds on any thread.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the executor or the key is full or the pool is shut
    /// down.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, key: K, f: F) -> Result<JoinHandle<T>, TrySubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_task(key, f, WaitMode::Never, Location::caller()).map_err(TrySubmitError::by(Refuser::Keyed))
    }

    /// Like [`spawn`](Self::spawn), but blocks at most for `timeout`, and never runs a task inline.
    /// On a worker of the pool it does not block. `Duration::MAX` means forever.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if there was no room in time or the pool is shut
    /// down.
    #[track_caller]
    pub fn try_spawn_for<F, T>(&self, key: K, timeout: Duration, f: F) -> Result<JoinHandle<T>, SubmitTimeoutError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_task(key, f, WaitMode::Until(Deadline::after(timeout)), Location::caller())
            .map_err(SubmitTimeoutError::by(Refuser::Keyed))
    }

    fn submit<F>(
        &self,
        key: K,
        f: F,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, F)>
    where
        F: FnOnce() + Send + 'static,
    {
        let mut f = Some(f);
        let make = |f: &mut Option<F>| Closure::new(f.take().expect("a body is made at most once"));
        let submitted = self.inner.submit(key, wait_mode, location, |_, _, _| Body::Closure(make(&mut f)));
        submitted.map_err(|refusal| (refusal, f.expect("a refused closure is still here")))
    }

    fn submit_task<F, T>(
        &self,
        key: K,
        f: F,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
    ) -> Result<JoinHandle<T>, (Refusal, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_body(key, (Once(f), None), wait_mode, location).map_err(|(refusal, Once(f))| (refusal, f))
    }

    /// Submits a body with the token of its task, if it needs one.
    pub(crate) fn submit_body<B, T>(
        &self,
        key: K,
        (body, token): (B, Option<CancellationToken>),
        wait_mode: WaitMode,
        location: &'static Location<'static>,
    ) -> Result<JoinHandle<T>, (Refusal, B)>
    where
        B: KeyedBody<T>,
        T: Send + 'static,
    {
        let (mut body, mut task) = (Some(body), None);
        let submitted = self.inner.submit(key, wait_mode, location, |inner, name, origin| {
            let body = body.take().expect("a task is made at most once");
            Body::Task(Arc::clone(task.insert(Arc::new(KeyedTask::new(body, token, origin, (name, inner))))) as _)
        });
        match (submitted, task) {
            (Ok(()), Some(task)) => Ok(JoinHandle::new(task, Arc::clone(&self.inner.pool.executor))),
            (Ok(()), None) => unreachable!("an accepted task was made"),
            (Err(refusal), _) => Err((refusal, body.expect("a refused body is still here"))),
        }
    }

    /// Returns the pool.
    #[cfg(feature = "retry")]
    pub(crate) fn pool(&self) -> &Arc<PoolInner> {
        &self.inner.pool
    }
}

/// # Observing
impl<K: Send + Sync + 'static> KeyedExecutor<K> {
    /// Blocks until no task of the executor is queued or running. A worker runs queued tasks
    /// meanwhile.
    ///
    /// If other threads submit tasks, the executor may be busy again when this returns. Like
    /// [`WorkerPool::wait_idle`](crate::WorkerPool::wait_idle), it also waits for tasks that a
    /// timed shutdown left behind.
    ///
    /// # Panics
    ///
    /// If a task of this executor calls it, because that task would wait for itself. The same holds
    /// for a task that a task of this executor waits for.
    #[track_caller]
    pub fn wait_idle(&self) {
        let waited = self.inner.wait_idle(Deadline::NEVER);
        if let Err(Refused(cycle)) = waited {
            panic!("a task cannot wait for its own executor to be idle{}", cycle.suffix());
        }
    }

    /// Like [`wait_idle`](Self::wait_idle), but blocks at most for `timeout`. Returns `true` if the
    /// executor was idle. In a task of this executor it returns `false` at once.
    ///
    /// A worker runs queued tasks meanwhile only if `timeout` is `Duration::MAX`, which means
    /// forever.
    #[must_use]
    pub fn wait_idle_timeout(&self, timeout: Duration) -> bool {
        self.inner.wait_idle(Deadline::after(timeout)).unwrap_or(false)
    }
}

impl<K> KeyedExecutor<K> {
    /// Returns the number of tasks that have not started. May be stale when it returns. A task that
    /// its handle has cancelled counts until its turn comes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.state.lock().turns.queued()
    }

    /// Returns `true` if every task has started. May be stale when it returns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of keys that have a task that is queued or running. Only these keys take
    /// memory. May be stale when it returns.
    #[must_use]
    pub fn keys_active(&self) -> usize {
        self.inner.state.lock().turns.keys()
    }
}

impl<K> Clone for KeyedExecutor<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

unwind::safe!(KeyedExecutor<K>, K);

impl<K> fmt::Debug for KeyedExecutor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        let (keys, queued, running) = (state.turns.keys(), state.turns.queued(), state.running.len());
        drop(state); // the formatter is user code
        f.debug_struct("KeyedExecutor")
            .field("label", &self.inner.settings.label)
            .field("keys_active", &keys)
            .field("queued", &queued)
            .field("running", &running)
            .finish_non_exhaustive()
    }
}
