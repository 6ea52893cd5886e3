//! The handle of one task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::context::{self, AwaitedId, PoolId};
use super::executor::Executor;
use super::future_wait::FutureWait;
use super::join::{JoinStatus, JoinTarget, Watched};
use super::sleepers;
use super::waits::{self, Awaited, Kind, Needs};
use crate::error::{CancelReason, Cycle, CycleTarget, JoinError};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::sync::Arc;
use crate::time::deadline::Deadline;
use crate::unwind;

/// An owned permission to join one task. Returned by
/// [`WorkerPool::spawn`](crate::WorkerPool::spawn) and related methods.
///
/// Dropping the handle detaches the task. The task still runs, and its result is dropped.
///
/// # In async code
///
/// A handle is also a [`Future`] that works with any runtime, so async code can `.await` a task.
/// Dropping the future detaches the task and does not cancel it. A future that is polled again
/// after it was ready stays pending.
///
/// Polling on a worker of the pool runs the task if it has not started. It may also run a task that
/// this one [needs](Self#waiting-on-a-worker). A poll does not wait for the delay of a delayed or
/// retried task: the future is woken when the delay is over.
///
/// To submit from async code, use [`spawn_async`](crate::WorkerPool::spawn_async), which waits for
/// room, or [`try_spawn`](crate::WorkerPool::try_spawn). `spawn` blocks when the queue is full.
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
/// A task may wait for another task of its own pool. If that task has not started, the waiting
/// worker runs it. So a pool of one worker is enough for joins up to 64 tasks deep on one stack. A
/// deeper join, and a task that joins itself, get [`JoinError::WouldDeadlock`].
///
/// The worker also runs tasks that its wait needs indirectly. For example, the joined task may be
/// one of another pool, or a future of a `Driver`, and wait for a task of
/// this worker's pool. The worker never runs an unrelated task. If tasks of several pools wait for
/// each other in a circle, one of the joins gets [`JoinError::WouldDeadlock`].
///
/// The crate knows the waits of its own types: handles, groups, scopes, receipts, `wait_idle` and
/// `shutdown`. It knows a handle that is polled inside a task, or inside a future that a driver
/// polls. It knows neither channels and locks, nor a handle that another runtime polls. No worker
/// helps a task that waits for those. A future that awaits several things may cause a task to run
/// early on the waiting worker, but its waits are never refused: the crate cannot know what else
/// might complete it. So a task that joins a future which awaits that very task waits forever. A
/// [snapshot](crate::WorkerPool::snapshot) names such a circle as a suspicion.
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let handle = pool.spawn(|| 6 * 7)?;
/// assert_eq!(handle.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the handle detaches the task; use `execute` for a task without a result"]
pub struct JoinHandle<T> {
    /// The task.
    task: Arc<dyn JoinTarget<T>>,
    /// The executor of the task's pool.
    executor: Arc<Executor>,
    /// What the last poll has registered, if it was within a task or a driven future. Boxed,
    /// because few handles are polled there.
    wait: Option<Box<FutureWait>>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn JoinTarget<T>>, executor: Arc<Executor>) -> Self {
        Self { task, executor, wait: None }
    }

    /// Blocks until the task has ended and takes its result.
    ///
    /// A worker helps while it waits; see [above](Self#waiting-on-a-worker).
    ///
    /// # Errors
    ///
    /// - [`JoinError::Panicked`] with the payload, if the task panicked.
    /// - [`JoinError::Cancelled`], if the task was cancelled.
    /// - [`JoinError::WouldDeadlock`], if the task joins itself, if it waits for the task that
    ///   joins it, or if joins are nested more than 64 tasks deep. The handle is dropped, which
    ///   detaches the task.
    ///
    /// # Panics
    ///
    /// If the result has already been taken by polling the handle.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.help()?;
        self.wait()?;
        self.task.take().expect("the result was taken before, by polling the handle")
    }

    /// Blocks until the task has ended or `timeout` has passed. Returns `true` if the task has
    /// ended; [`join`](Self::join) then returns at once.
    ///
    /// A worker of the same pool does not help here, because a task that it runs could take longer
    /// than the timeout. With `Duration::MAX`, which means forever, it does help. It then returns
    /// `false` at once where `join` would return [`JoinError::WouldDeadlock`].
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        match Deadline::after(timeout) {
            Deadline::NEVER => self.help().and_then(|()| self.wait()).is_ok(),
            deadline => self.block_listed(deadline),
        }
    }

    /// Like [`join`](Self::join), but blocks for at most `timeout`. `Duration::MAX` waits forever.
    ///
    /// A worker of the same pool helps only if it waits forever; see
    /// [`wait_timeout`](Self::wait_timeout).
    ///
    /// # Errors
    ///
    /// The handle itself, if the task has not ended in time.
    ///
    /// # Panics
    ///
    /// As [`join`](Self::join) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let handle = pool.spawn(|| 6 * 7)?;
    /// match handle.join_timeout(Duration::from_secs(60)) {
    ///     Ok(result) => assert_eq!(result?, 42),
    ///     Err(handle) => println!("too slow, and cancelled: {}", handle.cancel()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        let is_forever = Deadline::after(timeout) == Deadline::NEVER;
        if is_forever || self.wait_timeout(timeout) { Ok(self.join()) } else { Err(self) }
    }

    /// Returns `true` if the task has ended. `true` is final, and `join` then returns at once.
    /// `false` may be stale when it returns.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// Cancels the task if it has not started. Returns `true` if it cancelled the task.
    ///
    /// The closure is dropped before this returns, and `join` returns [`JoinError::Cancelled`]. The
    /// task's place in the queue becomes free when a worker reaches it. A running task is not
    /// interrupted. These tasks differ:
    ///
    /// - A running task of a [`TaskBuilder`](crate::TaskBuilder) sees the cancellation in its
    ///   token.
    /// - A task that is [retried](crate::WorkerPool::spawn_with_retry) sees it in the token of its
    ///   attempt, and is not retried again.
    /// - A future run by a `Driver`, such as a gRPC call, is dropped. The
    ///   remote side may already have acted.
    ///
    /// The destructor of the closure may cancel further tasks. If such destructors are nested 16
    /// deep on one stack, the closure is dropped later, on this thread, when the innermost
    /// destructor has returned.
    #[allow(clippy::must_use_candidate, reason = "the result is often not needed")]
    pub fn cancel(&self) -> bool {
        self.task.cancel(CancelReason::Requested, &self.executor)
    }

    /// Returns the id of the task, unique within its pool.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// Runs the task on a worker of its pool, if it has not started. Returns an error if waiting
    /// for it would deadlock.
    fn help(&self) -> Result<(), JoinError> {
        // The thread that cancels the tasks of a pool may be this one, in the destructor of another
        // of them.
        if context::depth() > 0 && self.task.is_abandoned(&self.executor) {
            self.task.cancel(CancelReason::ShutDown, &self.executor);
        }
        let status = self.task.join_status();
        if status == JoinStatus::OnThisStack {
            return Err(JoinError::WouldDeadlock(waits::own_cycle(self.task.describe(), self.executor.pool_id)));
        }
        if status == JoinStatus::Queued && context::is_worker_of(self.executor.pool_id) {
            if context::depth() >= context::MAX_HELP_DEPTH {
                return Err(JoinError::WouldDeadlock(Cycle::default()));
            }
            self.task.help(&self.executor);
        }
        Ok(())
    }

    /// Blocks until the task has ended. Helps with what it needs if there are tasks on this
    /// thread's stack.
    fn wait(&self) -> Result<(), JoinError> {
        let would_deadlock = || JoinError::WouldDeadlock(Cycle::default());
        if !self.task.is_done() && !nesting::call_pending() {
            return Err(would_deadlock());
        }
        if context::depth() == 0 {
            return self.block_listed(Deadline::NEVER).then_some(()).ok_or_else(would_deadlock);
        }
        if self.task.spin_wait() || !self.task.may_sleep() {
            return self.task.is_done().then_some(()).ok_or_else(would_deadlock);
        }
        let awaited = Self::awaited_task(&self.task, &self.executor);
        Ok(waits::wait(&awaited, Kind::Certain, |wait, until| self.task.sleep(wait, until))?)
    }

    /// Blocks until the task has ended or the deadline has passed. Snapshots show the wait.
    fn block_listed(&self, deadline: Deadline) -> bool {
        self.task.wait(deadline, &|| sleepers::list(self.task.describe(), self.executor.pool_id, deadline))
    }

    /// Returns the task as the registry of waits sees it.
    fn awaited_task(task: &Arc<dyn JoinTarget<T>>, executor: &Arc<Executor>) -> Arc<dyn Awaited> {
        let task: Arc<dyn Watched> = Arc::clone(task) as _;
        Arc::new(AwaitedTask { task, executor: Arc::clone(executor) })
    }
}

/// A task and its executor, as something that is waited for.
struct AwaitedTask {
    task: Arc<dyn Watched>,
    executor: Arc<Executor>,
}

impl Awaited for AwaitedTask {
    fn awaited_id(&self) -> AwaitedId {
        self.task.awaited_id()
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        self.task.related_ids()
    }

    fn pool(&self) -> PoolId {
        self.executor.pool_id
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.task.report_needs(needs);
    }

    fn describe(&self) -> CycleTarget {
        self.task.describe()
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
            self.wait.iter_mut().for_each(|wait| wait.begin_poll());
            let polled = self.task.poll_take(context);
            if polled.is_ready() {
                self.wait = None; // the handle may be kept
            }
            if polled.is_ready() || context::depth() == 0 || self.task.is_done() {
                return polled;
            }
            let this = &mut *self;
            let awaited = || Self::awaited_task(&this.task, &this.executor);
            match this.wait.get_or_insert_default().register(awaited, Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

unwind::safe!(JoinHandle<T>, T);

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).field("finished", &self.is_finished()).finish()
    }
}
