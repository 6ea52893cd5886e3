//! Launches futures, so many at a time.
//!
//! | who launches when no place is free | plain form | `_timeout` form | `try_` form |
//! |---|---|---|---|
//! | an outside thread | waits for a place | waits at most so long | refused |
//! | a worker of the pool, or the I/O thread | launched; the future waits for its slot without the thread | refused | refused |
//!
//! Places and slots are explained in `flight`. A worker does not wait for a place since the place may be waiting for the
//! worker. What is launched without a place is bounded by what running tasks launch.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::future_task::{Fate, FutureTask, Place};
use super::parker;
use super::thread::IoThread;
use crate::error::{Refusal, SubmitError, SubmitTimeoutError, TrySubmitError};
use crate::observe::observer::TaskOutcome;
use crate::pool::inner::PoolInner;
use crate::pool::submit::WaitMode;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::context;
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;

/// The most futures that one driver may have in flight.
const MAX_IN_FLIGHT: usize = 1 << 20;

/// Drives futures for a pool, so many at a time, on one thread: what waits for the network holds no worker.
///
/// All drivers of a pool share that thread; the first one starts it, and it ends with the last driver and the last
/// future. It is a [tokio](https://docs.rs/tokio) runtime, so libraries built on tokio work inside. The futures must not
/// block: they hold up one another. Work for the CPU goes to the pool.
///
/// A future is a task of the pool with one fate: the pool's shutdown waits for it, `shutdown_now` cancels it, metrics and
/// observer know it. While it is in flight it counts as queued. Dropping the driver leaves what is in flight alone.
/// The pool's observer and its panic hook are told of an output on the thread where it lands, which is the I/O thread unless it
/// goes on to a worker: they must not block either.
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
    engine: Arc<PoolInner>,
    io: Arc<IoThread>,
    /// One permit for each future that is driven. Never closed.
    slots: Arc<Semaphore>,
    /// One permit for each flight of an outside thread that nobody has dealt with. Never closed.
    places: Arc<Semaphore>,
    limit: usize,
    /// Observers see it.
    label: Option<Arc<str>>,
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// A driver needs room for one future at least.
    #[error("at most zero in flight: there must be room for one at least")]
    ZeroInFlight,
    /// More futures in flight than a driver may have.
    #[error("a driver may have at most {limit} futures in flight, {requested} were requested")]
    #[non_exhaustive]
    TooManyInFlight {
        /// The number asked for.
        requested: usize,
        /// The largest number allowed.
        limit: usize,
    },
    /// The operating system refused to start the I/O thread, or what it needs.
    #[error("the I/O thread could not be started")]
    Start(#[source] io::Error),
}

impl Driver {
    /// A driver with room for so many futures in flight, 1 to 1,048,576.
    ///
    /// # Errors
    ///
    /// [`DriverError`], if the number is out of range or the I/O thread could not be started.
    pub fn new(pool: &WorkerPool, max_in_flight: usize) -> Result<Self, DriverError> {
        match max_in_flight {
            0 => Err(DriverError::ZeroInFlight),
            1..=MAX_IN_FLIGHT => {
                let io = IoThread::of(pool).map_err(DriverError::Start)?;
                let [slots, places] = [(); 2].map(|()| Arc::new(Semaphore::new(max_in_flight)));
                Ok(Self { engine: Arc::clone(pool.inner()), io, slots, places, limit: max_in_flight, label: None })
            }
            requested => Err(DriverError::TooManyInFlight { requested, limit: MAX_IN_FLIGHT }),
        }
    }

    /// Gives the tasks a label, which observers see.
    #[must_use]
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Launches a future and returns the handle to wait for its output.
    ///
    /// Blocks while as many are in flight as may, until one has ended or the pool is closed. On a worker of the pool, and inside a future, it
    /// does not block: the future is launched and waits for its slot by itself. Where it may block, hold no
    /// [lock](crate#may-i-hold-a-lock-while-i-submit) that the futures take.
    ///
    /// [`JoinHandle::cancel`] drops the future, on the I/O thread, soon after it returns. Joining on a worker holds the
    /// worker. If the future awaits a handle of a task of that worker's pool, the worker runs that task meanwhile, see
    /// [`JoinHandle`](JoinHandle#waiting-on-a-worker); what the future hands to another runtime is not seen. Joining a
    /// future inside a future is [`JoinError::WouldDeadlock`](crate::JoinError): `.await` the handle there.
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
        self.launch(WaitMode::Policy, Location::caller(), future, plain).map_err(|(_, future)| SubmitError::new(future))
    }

    /// Like [`spawn`](Self::spawn), but never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the future, if as many are in flight as may or the pool is shut down.
    #[track_caller]
    pub fn try_spawn<Fut>(&self, future: Fut) -> Result<JoinHandle<Fut::Output>, TrySubmitError<Fut>>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        self.launch(WaitMode::Never, Location::caller(), future, plain)
            .map_err(|(refusal, future)| TrySubmitError::new(refusal, future))
    }

    /// Like [`spawn`](Self::spawn), but blocks at most `timeout`; `Duration::MAX` means for ever. On a worker of the pool,
    /// and inside a future, it refuses at once when as many are in flight as may.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the future, if none had ended in time or the pool is shut down.
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
        self.launch(WaitMode::Until(Deadline::after(timeout)), Location::caller(), future, plain)
            .map_err(|(refusal, future)| SubmitTimeoutError::new(refusal, future))
    }

    /// Like [`spawn`](Self::spawn), and hands the output to `f`, which runs on a worker. Its value is the task's. An output
    /// that waits for a worker counts towards the limit of other threads that launch. A worker that joins the task, or polls
    /// its handle, runs `f` itself if the output has come and no other worker has taken it.
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
            |(future, f)| (future, Fate { f, on_worker: Some(|_| true), outcome_of: |_| TaskOutcome::Succeeded });
        self.launch(WaitMode::Policy, Location::caller(), (future, f), make).map_err(|(_, both)| SubmitError::new(both))
    }

    /// How many futures may be in flight.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.limit
    }

    /// How many futures are in flight: have their slot, and have not ended. Out of date when it arrives. An output that waits
    /// for a worker is not counted, though it may still hold up other threads that launch.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.limit - self.slots.available_permits()
    }
}

/// The seam for what is built on it.
impl Driver {
    /// Launches what `make` makes of `what`, or gives `what` back.
    pub(crate) fn launch<W, Fut, F, T>(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        what: W,
        make: impl FnOnce(W) -> (Fut, Fate<F, Fut::Output, T>),
    ) -> Result<JoinHandle<T>, (Refusal, W)>
    where
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
        F: FnOnce(Fut::Output) -> T + Send + 'static,
        T: Send + 'static,
    {
        let place = match self.place(wait_mode) {
            Ok(place) => place,
            Err(refusal) => {
                self.engine.executor.tracker.count_refused();
                return Err((refusal, what));
            }
        };
        let executor = &self.engine.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, self.label.as_ref()) else { return Err((Refusal::ShutDown, what)) };
        let (future, fate) = make(what);
        let flight = FutureTask::new(fate, Arc::clone(&self.io), self.label.clone(), (id, location, queued_at));
        flight.launch(future, place, &self.slots, &self.engine);
        Ok(JoinHandle::new(flight, Arc::clone(executor)))
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn engine(&self) -> &Arc<PoolInner> {
        &self.engine
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn io(&self) -> &IoThread {
        &self.io
    }

    /// A place, or leave to go without one; see the table above.
    fn place(&self, wait_mode: WaitMode) -> Result<Option<Place>, Refusal> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Some(place));
        }
        let may_wait = !self.io.is_here() && !context::is_worker_of(self.engine.id());
        match wait_mode {
            WaitMode::Never => Err(Refusal::Full),
            WaitMode::Policy if !may_wait => Ok(None),
            WaitMode::Until(_) if !may_wait => Err(Refusal::Timeout),
            WaitMode::Policy => self.wait_for_place(Deadline::NEVER).map(Some),
            WaitMode::Until(deadline) => self.wait_for_place(deadline).map(Some),
        }
    }

    fn wait_for_place(&self, deadline: Deadline) -> Result<Place, Refusal> {
        let mut acquire = pin!(Arc::clone(&self.places).acquire_owned());
        let mut closing = pin!(self.engine.shutdown_token.cancelled());
        let place_or_closing = poll_fn(|context| match acquire.as_mut().poll(context) {
            Poll::Ready(place) => Poll::Ready(place.ok()),
            Poll::Pending => closing.as_mut().poll(context).map(|_| None),
        });
        match parker::wait_for(place_or_closing, deadline) {
            Some(place) => place.ok_or(Refusal::ShutDown),
            None => Err(Refusal::Timeout),
        }
    }
}

/// The fate of an output that is the task's value as it is.
type Unchanged<O> = Fate<fn(O) -> O, O, O>;

/// The output is the task's value, and lands where it arises.
fn plain<Fut: Future>(future: Fut) -> (Fut, Unchanged<Fut::Output>) {
    (future, Fate { f: |output| output, on_worker: None, outcome_of: |_| TaskOutcome::Succeeded })
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl UnwindSafe for Driver {}
impl RefUnwindSafe for Driver {}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("label", &self.label)
            .field("in_flight", &self.in_flight())
            .field("max_in_flight", &self.limit)
            .finish_non_exhaustive()
    }
}
