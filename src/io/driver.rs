//! A driver: spawns futures, with a limit on how many are in flight.
//!
//! | submitter, if no submit permit is free | `spawn` | `try_spawn_for` | `try_spawn` |
//! |---|---|---|---|
//! | an external thread | waits for a permit | waits at most the timeout | refused |
//! | a worker of the pool, the I/O thread of any pool, or a thread that has nested too many waits in callbacks | spawned without a permit; the future waits for its run permit on the I/O thread | refused | refused |
//!
//! The two kinds of permits are explained in `future_task`. A worker does not wait for a submit
//! permit, because the permit may be held by an output that waits for the worker. The number of
//! futures without a permit is bounded by what running tasks spawn. The wait of an external thread
//! with tasks on its stack is in the registry of waits; see `permits`.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::time::Duration;

use super::future_task::{FutureTask, OnOutput};
use super::permits::{Permits, SubmitPermit};
use super::thread::IoThread;
use crate::error::{Refusal, Refuser, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::observe::task_info::TaskOutcome;
use crate::pool::inner::PoolInner;
use crate::pool::submit::WaitMode;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::task::context;
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;
use crate::unwind;

/// How many futures one driver may have in flight.
const MAX_IN_FLIGHT: usize = 1 << 20;

/// A driver that runs futures for a pool on one thread, with a limit on how many are in flight. A
/// future that waits for the network holds no worker.
///
/// All drivers of a pool share that thread. The first driver starts it, and it ends with the last
/// driver and the last future. It is a [tokio](https://docs.rs/tokio) runtime, so libraries built
/// on tokio work inside. The futures must not block, because they would delay each other. CPU-bound
/// work belongs on the pool.
///
/// A future is a task of the pool: the pool's shutdown waits for it, `shutdown_now` cancels it, and
/// metrics and observer count it. While it is in flight, it counts as queued. Dropping the driver
/// does not affect futures in flight.
///
/// The pool's observer and panic hook are called on the thread where the task completes. This is
/// the I/O thread, unless the output goes on to a worker, so they must not block either.
///
/// # Examples
///
/// ```
/// use workcrew::WorkerPool;
/// use workcrew::driver::Driver;
///
/// let pool = WorkerPool::builder().workers(1).build()?;
/// let driver = Driver::new(&pool, 100)?;
/// let answer = driver.spawn(async { 6 * 7 })?;
/// assert_eq!(answer.join()?, 42);
/// // The output may go on to a worker:
/// let parsed = driver.spawn_then(async { "a large document" }, |text| text.split(' ').count())?;
/// assert_eq!(parsed.join()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver {
    pool: Arc<PoolInner>,
    io: Arc<IoThread>,
    /// What limits the futures.
    permits: Arc<Permits>,
    /// What observers see of the tasks.
    label: Option<Arc<str>>,
    /// The class in which outputs wait for a worker.
    class: Priority,
}

/// The error of a driver that could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The limit is zero: a driver needs room for at least one future.
    #[error("a driver needs room for at least one future in flight")]
    ZeroInFlight,
    /// The limit is too high.
    #[error("a driver may have at most {limit} futures in flight, {requested} were requested")]
    #[non_exhaustive]
    TooManyInFlight {
        /// The number asked for.
        requested: usize,
        /// The largest number allowed.
        limit: usize,
    },
    /// The operating system refused to start the I/O thread, or a resource that the thread needs.
    #[error("the I/O thread could not be started")]
    Start(#[source] io::Error),
}

impl Driver {
    /// Creates a driver that has at most `max_in_flight` futures in flight, 1 to 1,048,576.
    ///
    /// # Errors
    ///
    /// [`DriverError`], if the number is out of range or the I/O thread could not be started.
    pub fn new(pool: &WorkerPool, max_in_flight: usize) -> Result<Self, DriverError> {
        match max_in_flight {
            0 => Err(DriverError::ZeroInFlight),
            1..=MAX_IN_FLIGHT => {
                let io = IoThread::of(pool).map_err(DriverError::Start)?;
                let (pool, permits) = (Arc::clone(pool.inner()), Permits::new(max_in_flight));
                Ok(Self { pool, io, permits, label: None, class: Priority::Normal })
            }
            requested => Err(DriverError::TooManyInFlight { requested, limit: MAX_IN_FLIGHT }),
        }
    }

    /// Sets the label of the tasks, which observers see.
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the class in which an output waits for a worker; see [`spawn_then`](Self::spawn_then).
    /// The futures themselves have none: the I/O thread drives them all. *Default:
    /// [`Priority::Normal`].*
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.class = priority;
        self
    }

    /// Spawns a future and returns a handle to wait for its output.
    ///
    /// If the limit of futures in flight is reached, blocks until one has ended or the pool is
    /// closed. On a worker of the pool, and inside a future of any pool, it does not block: the
    /// future is spawned, and starts when another has ended. Where this may block, hold no
    /// [lock](crate#locks-and-submissions) that the futures take.
    ///
    /// If a task of another pool blocks here, and a worker of the pool waits for that task, the
    /// worker makes the progress that the futures in flight need.
    ///
    /// The limit works as a semaphore. If futures in flight await tasks that spawn on the same
    /// driver and wait for that, they may all wait forever. Use another driver for the inner
    /// futures.
    ///
    /// [`JoinHandle::cancel`] drops the future on the I/O thread, soon after it returns.
    ///
    /// Joining on a worker holds the worker. If the future awaits a handle of a task of that
    /// worker's pool, the worker runs that task meanwhile; see
    /// [`JoinHandle`](JoinHandle#waiting-on-a-worker). The same holds if the future waits for its
    /// start behind such a future. Work that the future gives to another runtime is not seen.
    /// Joining a future inside a future returns [`JoinError::WouldDeadlock`](crate::JoinError):
    /// `.await` the handle there.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the future, if the pool is shut down.
    #[track_caller]
    pub fn spawn<Fut>(&self, future: Fut) -> Result<JoinHandle<Fut::Output>, SubmitError<Fut>>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        self.spawn_with(WaitMode::Policy, Location::caller(), future, unchanged)
            .map_err(SubmitError::by(Refuser::Driver))
    }

    /// Spawns a future as [`spawn`](Self::spawn) does, but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the future, if the limit of futures in flight is reached or the pool
    /// is shut down.
    #[track_caller]
    pub fn try_spawn<Fut>(&self, future: Fut) -> Result<JoinHandle<Fut::Output>, TrySubmitError<Fut>>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        self.spawn_with(WaitMode::Never, Location::caller(), future, unchanged)
            .map_err(TrySubmitError::by(Refuser::Driver))
    }

    /// Spawns a future as [`spawn`](Self::spawn) does, but blocks for at most `timeout`.
    /// `Duration::MAX` means forever. On a worker of the pool, and inside a future, it does not
    /// block: if the limit is reached, it returns the error at once.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the future, if no future ended in time or the pool is shut down.
    #[track_caller]
    pub fn try_spawn_for<Fut>(
        &self,
        timeout: Duration,
        future: Fut,
    ) -> Result<JoinHandle<Fut::Output>, SubmitTimeoutError<Fut>>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        self.spawn_with(WaitMode::Until(Deadline::after(timeout)), Location::caller(), future, unchanged)
            .map_err(SubmitTimeoutError::by(Refuser::Driver))
    }

    /// Spawns a future as [`spawn`](Self::spawn) does, and then calls `f` with its output on a
    /// worker. The value of `f` is that of the task.
    ///
    /// An output that waits for a worker counts towards the limit for external threads. A worker
    /// that joins the task, or polls its handle, runs `f` itself if the output is ready and no
    /// other worker has taken it.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with future and closure, if the pool is shut down.
    #[track_caller]
    pub fn spawn_then<Fut, F, T>(&self, future: Fut, f: F) -> Result<JoinHandle<T>, SubmitError<(Fut, F)>>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
        F: FnOnce(Fut::Output) -> T + Send + 'static,
        T: Send + 'static,
    {
        let make =
            |(future, f)| (future, OnOutput { f, on_worker: Some(|_| true), outcome_of: |_| TaskOutcome::Succeeded });
        self.spawn_with(WaitMode::Policy, Location::caller(), (future, f), make)
            .map_err(SubmitError::by(Refuser::Driver))
    }

    /// Returns how many futures may be in flight.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.permits.limit()
    }

    /// Returns how many futures are in flight: started, and not ended. May be stale when it
    /// returns.
    ///
    /// An output that waits for a worker is not counted, though it may still block external threads
    /// that spawn.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.permits.taken()
    }
}

/// The internal API for features that are built on a driver.
impl Driver {
    /// Spawns the future that `make` makes of `input`. Returns `input` if it is refused.
    pub(crate) fn spawn_with<I, Fut, F, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        input: I,
        make: impl FnOnce(I) -> (Fut, OnOutput<F, Fut::Output, T>),
    ) -> Result<JoinHandle<T>, (Refusal, I)>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
        F: FnOnce(Fut::Output) -> T + Send + 'static,
        T: Send + 'static,
    {
        let submit_permit = match self.acquire_submit_permit(wait_mode) {
            Ok(submit_permit) => submit_permit,
            Err(refusal) => {
                self.pool.executor.tracker.count_refused();
                return Err((refusal, input));
            }
        };
        let executor = &self.pool.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.label.as_ref()) else { return Err((Refusal::ShutDown, input)) };
        let (future, on_output) = make(input);
        let permits = Arc::clone(&self.permits);
        let face = (self.label.clone(), self.class);
        let task = FutureTask::new(on_output, (&self.io, permits), face, (id, location, queued_at));
        task.spawn(future, submit_permit, &self.pool, &self.io);
        Ok(JoinHandle::new(task, Arc::clone(executor)))
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn pool(&self) -> &Arc<PoolInner> {
        &self.pool
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn io(&self) -> &IoThread {
        &self.io
    }

    /// Returns a submit permit, or `None` if the caller may spawn without one; see the table above.
    fn acquire_submit_permit(&self, wait_mode: WaitMode) -> Result<Option<SubmitPermit>, Refusal> {
        if let Some(permit) = self.permits.try_submit() {
            return Ok(Some(permit));
        }
        let may_wait = !context::is_io_thread() && !context::is_worker_of(self.pool.id());
        let deadline = match wait_mode {
            WaitMode::Never => return Err(Refusal::Full),
            WaitMode::Policy if !may_wait => return Ok(None),
            WaitMode::Until(_) if !may_wait => return Err(Refusal::Timeout),
            WaitMode::Policy => Deadline::NEVER,
            WaitMode::Until(deadline) => deadline,
        };
        match self.permits.wait_for_submit(&self.pool.executor, &self.pool.shutdown_token, deadline) {
            // Waits are nested too deep in callbacks.
            Err(Refusal::Timeout) if matches!(wait_mode, WaitMode::Policy) => Ok(None),
            waited => waited.map(Some),
        }
    }
}

/// An output that is the task's value as it is.
type Unchanged<O> = OnOutput<fn(O) -> O, O, O>;

/// Makes the output the task's value, on the I/O thread.
fn unchanged<Fut: Future>(future: Fut) -> (Fut, Unchanged<Fut::Output>) {
    (future, OnOutput { f: |output| output, on_worker: None, outcome_of: |_| TaskOutcome::Succeeded })
}

unwind::safe!(Driver);

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("label", &self.label)
            .field("priority", &self.class)
            .field("in_flight", &self.in_flight())
            .field("max_in_flight", &self.max_in_flight())
            .finish_non_exhaustive()
    }
}
