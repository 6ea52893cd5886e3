//! The handle of one task.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::context::{self, AwaitedId, PoolId};
use super::executor::Executor;
use super::waits::{self, Awaited, Kind, Needs, Next, Wait};
use super::{JoinStatus, JoinTarget, Watched};
use crate::error::{CancelReason, JoinError};
use crate::observe::observer::TaskId;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

/// Waits for one task and takes its result. From [`WorkerPool::spawn`](crate::WorkerPool::spawn) and its kin.
///
/// Dropping the handle detaches the task: it runs all the same, and its result is dropped where it arises.
///
/// # In async code
///
/// It is a [`Future`] as well, by the standard library alone, so async code can `.await` what the pool computes.
/// Dropping it detaches the task, as elsewhere, and does not cancel it. Polled again after it was ready it stays
/// pending. Polling on a worker of the pool runs a task that has not started; it may also run a task that this one
/// [needs](Self#waiting-on-a-worker). To submit from async code use
/// [`spawn_async`](crate::WorkerPool::spawn_async), which waits for room, or [`try_spawn`](crate::WorkerPool::try_spawn):
/// `spawn` blocks when the queue is full.
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let sum = block_on(async {
///     let (one, two) = (pool.try_spawn(|| 1)?, pool.try_spawn(|| 2)?);
///     Ok::<_, Box<dyn std::error::Error>>(one.await? + two.await?)
/// })?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Waiting on a worker
///
/// A task may wait for another task of its own pool. If that one has not started, the waiting worker runs it itself. So
/// a pool of one worker is enough for joins up to 64 tasks deep on one stack. A deeper join, and one of a task that joins
/// itself, gets [`JoinError::WouldDeadlock`].
///
/// The worker also helps with what its wait needs further away: with a task of its pool that the joined task waits for
/// on another pool, or that a future of a [`Driver`](crate::driver::Driver) awaits. It never runs an unrelated task. If tasks
/// of several pools wait for each other in a circle, one of the joins gets [`JoinError::WouldDeadlock`].
///
/// The crate knows the waits of its own types: handles, groups, scopes, receipts, `wait_idle` and `shutdown`. It
/// knows a handle that is polled inside a task or inside a future that a driver polls. It does not know a channel or a lock
/// of yours, nor a handle that another runtime polls: a task that waits for such a thing is not helped.
/// A future that awaits several things may have a task run early on the waiting worker, but no wait is refused for it.
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let handle = pool.spawn(|| 6 * 7)?;
/// assert_eq!(handle.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the handle detaches the task; use `execute` if nobody waits for it"]
pub struct JoinHandle<T> {
    /// The cell the outcome lands in.
    task: Arc<dyn JoinTarget<T>>,
    /// Of the pool the task belongs to.
    executor: Arc<Executor>,
    /// What the registry knows of the last poll, if that was within a task or a driven future.
    waiting: Option<Wait>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn JoinTarget<T>>, executor: Arc<Executor>) -> Self {
        Self { task, executor, waiting: None }
    }

    /// Blocks until the task has ended and takes its result.
    ///
    /// On a worker this helps while it waits, see [above](Self#waiting-on-a-worker).
    ///
    /// # Errors
    ///
    /// [`JoinError::Panicked`] with the payload if the task panicked, [`JoinError::Cancelled`] if it never ran,
    /// [`JoinError::WouldDeadlock`] if the task joins itself, if it waits for the task that joins it, or if joins are nested
    /// too deeply; the task is detached then.
    ///
    /// # Panics
    ///
    /// If the result has been taken before, by polling the handle.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.help()?;
        if !self.wait() {
            return Err(JoinError::WouldDeadlock);
        }
        self.task.take().expect("the result was taken before, by polling the handle")
    }

    /// Blocks until the task has ended or `timeout` has passed, and returns whether it has ended. If so,
    /// [`join`](Self::join) returns at once.
    ///
    /// On a worker of the same pool it does not help, since a task run on the way could take longer than the timeout. A
    /// wait for ever, `Duration::MAX`, does help; and where `join` would answer [`JoinError::WouldDeadlock`] it
    /// returns `false` at once.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        match Deadline::after(timeout) {
            Deadline::NEVER => self.help().is_ok() && self.wait(),
            deadline => self.task.wait(deadline),
        }
    }

    /// Whether the task has ended. `true` is final and `join` then returns at once; `false` may be out of date.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// Cancels the task if it has not started: its closure is dropped before this returns, and `join` answers
    /// [`JoinError::Cancelled`]. Returns `true` if the task will never run. A running task is not touched.
    ///
    /// Of a future that is driven for the pool, a remote call for one, it drops what is on its way: the other side may have acted.
    /// A task that is [tried again](crate::WorkerPool::spawn_with_retry) says there what this does between and during attempts.
    ///
    /// The place in the queue is given back when a worker comes to it.
    ///
    /// The destructor of the closure may cancel further tasks. Where such destructors are nested 16 deep on
    /// one stack, the closure is dropped later: on this thread, when the innermost of them has returned.
    #[allow(clippy::must_use_candidate, reason = "cancelling what may have started is a fine thing to do")]
    pub fn cancel(&self) -> bool {
        self.task.cancel(CancelReason::Requested, &self.executor)
    }

    /// The identity of the task, unique within its pool.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// On a worker of the task's pool: runs the task if it has not started, and refuses to wait for what cannot end.
    fn help(&self) -> Result<(), JoinError> {
        let status = self.task.join_status();
        if status == JoinStatus::OnThisStack {
            return Err(JoinError::WouldDeadlock);
        }
        if status == JoinStatus::Queued && context::is_worker_of(self.executor.pool_id) {
            if context::depth() >= context::MAX_HELP_DEPTH {
                return Err(JoinError::WouldDeadlock);
            }
            self.task.help(&self.executor);
        }
        Ok(())
    }

    /// Waits for the outcome, helping with what it needs, if there are tasks on this thread's stack. Returns `false` if it
    /// would never come.
    fn wait(&self) -> bool {
        if context::depth() == 0 {
            return self.task.wait(Deadline::NEVER);
        }
        if self.task.spin_wait() || !self.task.may_sleep() {
            return self.task.is_done();
        }
        waits::wait(&self.awaited(), Kind::Certain, |wait, until| self.task.sleep(wait, until)).is_ok()
    }

    /// The task, as the registry of waits sees it.
    fn awaited(&self) -> Arc<dyn Awaited> {
        let task: Arc<dyn Watched> = Arc::clone(&self.task) as _;
        Arc::new(AwaitedTask { task, executor: Arc::clone(&self.executor) })
    }
}

/// A task that is waited for.
struct AwaitedTask {
    task: Arc<dyn Watched>,
    executor: Arc<Executor>,
}

impl Awaited for AwaitedTask {
    fn name(&self) -> AwaitedId {
        self.task.awaited_id()
    }

    fn pool(&self) -> PoolId {
        self.executor.pool_id
    }

    fn look(&self, needs: &mut Needs) {
        self.task.look(needs);
    }

    fn help(self: Arc<Self>) {
        self.task.help(&self.executor);
    }

    fn wake_waiters(&self) {
        self.task.wake_waiters();
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.help() {
            return Poll::Ready(Err(error));
        }
        loop {
            self.waiting = None;
            let polled = self.task.poll_take(context);
            if polled.is_ready() || context::depth() == 0 || self.task.is_done() {
                return polled;
            }
            match waits::enter_future(self.awaited(), context.waker()) {
                Next::Help(awaited) => awaited.help(),
                Next::Sleep(wait, None) => {
                    self.waiting = Some(wait);
                    return Poll::Pending;
                }
                // There may be no other worker that the timekeeper could hand the task to.
                Next::Sleep(wait, until) => {
                    self.task.sleep(&wait, until);
                }
            }
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

// A panic never happens under a lock of this crate, so nothing that is broken can be seen through a reference.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).field("finished", &self.is_finished()).finish()
    }
}
