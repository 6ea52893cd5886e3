//! Submitting from async code: a future that waits for room without a thread.
//!
//! | state | meaning | changed by | next |
//! |---|---|---|---|
//! | *new* | not polled yet | a poll | *accepted*; *waiting*; *refused* |
//! | *waiting* | suspended; the job is here and a waker is registered with the queue | a poll; the shutdown token; the drop | *tried*; *refused* |
//! | *tried* | a poll has taken the job out and admitted the task, to push it | that poll | *accepted*; *waiting*; *refused* |
//! | *accepted* | the queue has the job | – | – |
//! | *refused* | a poll returns the closure | – | – |
//!
//! Rules:
//! 1. A future may never be polled again, so nothing waits for one. The task of a waiting
//!    submission is suspended: neither `wait_idle` nor a shutdown waits for it. Closing the pool
//!    refuses it.
//! 2. A poll that could not push suspends the task, puts the job back, and then checks the shutdown
//!    token. Closing first cancels the token and then looks for the job. So one of the two refuses
//!    it.
//! 3. A future that is dropped deregisters from the queue and forwards a notification that it has
//!    received (see `queue`).

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::inner::PoolInner;
use super::worker_pool::WorkerPool;
use crate::cancel::token::CancelGuard;
use crate::error::{Refuser, SubmitError};
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::priority::Priority;
use crate::queue::WaiterId;
use crate::sync::{Arc, Mutex};
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context;
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::Job;
use crate::task::waits::{self, Next, Wait};
use crate::time::clock::Timestamp;
use crate::unwind;

/// # From async code
impl WorkerPool {
    /// Like [`spawn`](Self::spawn), for async code: the returned future waits for room in the queue
    /// without blocking the thread. Its output is the handle, which can be awaited too. Works with
    /// any runtime.
    ///
    /// Nothing happens before the first poll. Dropping the future before it is ready withdraws the
    /// submission and drops the closure.
    ///
    /// The future waits for room under [`Overflow::Block`](crate::Overflow), and under
    /// `CallerRuns`, because a job that runs on the caller's thread would block the runtime. Under
    /// the other policies it discards a job. On a worker of the pool the future never waits, like
    /// `spawn`.
    ///
    /// Futures are notified of free room in the order in which they began to wait. A future that is
    /// notified and neither polled nor dropped delays the next future until more room becomes free.
    /// It never delays threads.
    ///
    /// Nothing waits for a future that may never be polled again. So
    /// [`wait_idle`](Self::wait_idle) and a shutdown do not wait for a submission that waits for
    /// room.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Examples
    ///
    /// A handler that is delayed, not refused, while the pool is busy:
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use workcrew::WorkerPool;
    ///
    /// type Outcome = Result<usize, Box<dyn std::error::Error>>;
    ///
    /// async fn count_words(pool: &WorkerPool, text: String) -> Outcome {
    ///     let handle = pool.spawn_async(move || text.split(' ').count()).await?;
    ///     Ok(handle.await?)
    /// }
    ///
    /// let pool = WorkerPool::builder().workers(1).queue_capacity(1).build()?;
    /// assert_eq!(block_on(count_words(&pool, "to be or not".to_owned()))?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_async<F, T>(&self, f: F) -> SpawnAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SpawnAsync(Submission::new(self, Plain, f, Location::caller()))
    }
}

/// A future that submits a task as soon as there is room. Returned by [`WorkerPool::spawn_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct SpawnAsync<F, T>(Submission<F, Plain, TaskCell<F, T>>);

impl<F, T> Future for SpawnAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

// No field is ever pinned.
impl<F, T> Unpin for SpawnAsync<F, T> {}

impl<F, T> fmt::Debug for SpawnAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0.stage {
            Stage::New(_) => "new",
            Stage::Waiting(_) => "waiting",
            Stage::Done => "done",
        };
        f.debug_struct("SpawnAsync").field("location", self.0.location).field("state", &state).finish_non_exhaustive()
    }
}

/// How a future makes its task: a `C` of a closure `F`.
pub(super) trait TaskSettings<F, C> {
    /// Makes the task, which is about to be submitted.
    fn make(&self, f: F, id: TaskId, location: &'static Location<'static>, queued_at: Option<Timestamp>) -> Arc<C>;

    /// Takes the closure back out of a task that was refused.
    fn withdraw(task: &C) -> F;

    /// Notes that the task was accepted.
    fn accepted(&self, _: &Arc<C>, _: &Arc<Executor>) {}

    /// Returns what observers see.
    fn label(&self) -> Option<Arc<str>> {
        None
    }

    /// Returns the class of the task.
    fn class(&self) -> Priority {
        Priority::Normal
    }
}

/// The settings of a plain task: none.
struct Plain;

impl<F, T> TaskSettings<F, TaskCell<F, T>> for Plain {
    fn make(
        &self,
        f: F,
        id: TaskId,
        location: &'static Location<'static>,
        queued_at: Option<Timestamp>,
    ) -> Arc<TaskCell<F, T>> {
        Arc::new(TaskCell::new(f, id, location, queued_at))
    }

    fn withdraw(task: &TaskCell<F, T>) -> F {
        task.withdraw()
    }
}

/// A future that submits a task `C` as soon as there is room.
pub(super) struct Submission<F, S, C> {
    pool: Arc<PoolInner>,
    location: &'static Location<'static>,
    settings: S,
    stage: Stage<F, C>,
    /// The entry of the last poll in the registry of waits, if the poll was within a task or a
    /// driven future.
    wait: Option<Wait>,
}

/// The states of the table above.
enum Stage<F, C> {
    New(F),
    Waiting(Waiting<C>),
    /// Accepted or refused; the future has returned `Ready`.
    Done,
}

/// A submission that was admitted.
struct Waiting<C> {
    task: Arc<C>,
    id: TaskId,
    class: Priority,
    /// Whether it has found no room.
    is_suspended: bool,
    /// Its registration with the queue; `None` before it waits.
    waiter: Option<WaiterId>,
    job: Arc<PendingJob>,
    /// Refuses the job when the pool is closed; `None` before it waits.
    shutdown_guard: Option<CancelGuard>,
}

/// The job of a submission, shared with the callback of the shutdown token.
struct PendingJob {
    /// What observers see of the task.
    label: Option<Arc<str>>,
    state: Mutex<State>,
}

/// What the lock guards.
struct State {
    /// `None` while a poll tries to push it, and once it is refused.
    job: Option<Job>,
    /// Woken when the pool is closed.
    waker: Option<Waker>,
}

impl<F, S, C> Submission<F, S, C> {
    pub(super) fn new(pool: &WorkerPool, settings: S, f: F, location: &'static Location<'static>) -> Self {
        Self { pool: Arc::clone(pool.inner()), location, settings, stage: Stage::New(f), wait: None }
    }
}

impl<F, S: TaskSettings<F, C>, C: CellTask + 'static> Future for Submission<F, S, C> {
    type Output = Result<JoinHandle<C::Output>, SubmitError<F>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Cloning a waker is user code and may panic, so it comes first.
        let wakers = [context.waker().clone(), context.waker().clone()];
        this.wait = None;
        let mut waiting = match mem::replace(&mut this.stage, Stage::Done) {
            Stage::New(f) => match Waiting::admit(f, &this.settings, &this.pool, this.location) {
                Ok(waiting) => waiting,
                Err(f) => return Poll::Ready(Err(SubmitError::new(Refuser::Pool, f))),
            },
            Stage::Waiting(waiting) => waiting,
            Stage::Done => return Poll::Pending,
        };
        match waiting.try_push(&this.pool, this.location, wakers) {
            PushResult::Accepted => {
                let task = Arc::clone(&waiting.task);
                waiting.stop_waiting(&this.pool, true);
                this.settings.accepted(&task, &this.pool.executor);
                Poll::Ready(Ok(JoinHandle::new(task, Arc::clone(&this.pool.executor))))
            }
            PushResult::Refused => {
                let task = Arc::clone(&waiting.task);
                waiting.stop_waiting(&this.pool, false);
                Poll::Ready(Err(SubmitError::new(Refuser::Pool, S::withdraw(&task))))
            }
            PushResult::NoRoom => {
                let class = waiting.class;
                this.stage = Stage::Waiting(waiting);
                this.register_wait(class, context);
                Poll::Pending
            }
        }
    }
}

// No field is ever pinned.
impl<F, S, C> Unpin for Submission<F, S, C> {}

impl<F, S, C> Submission<F, S, C> {
    /// Registers this future with the registry of waits, so that a worker that waits for it can
    /// make room.
    fn register_wait(&mut self, class: Priority, context: &Context<'_>) {
        if context::depth() == 0 {
            return;
        }
        match waits::register_future(Arc::new(self.pool.queue_room(class)), context.waker()) {
            Next::Help(awaited) => {
                awaited.help();
                context.waker().wake_by_ref(); // to try again
            }
            Next::Sleep(wait, _) => self.wait = Some(wait),
        }
    }
}

impl<F, S, C> Drop for Submission<F, S, C> {
    fn drop(&mut self) {
        if let Stage::Waiting(waiting) = mem::replace(&mut self.stage, Stage::Done) {
            unwind::discard(waiting.job.refuse(&self.pool, waiting.id, self.location));
            waiting.stop_waiting(&self.pool, false);
        }
    }
}

/// The result of an attempt to push the job.
#[must_use]
enum PushResult {
    Accepted,
    Refused,
    NoRoom,
}

impl<C: CellTask + 'static> Waiting<C> {
    /// Admits the task, or gives the closure back.
    fn admit<F, S: TaskSettings<F, C>>(
        f: F,
        settings: &S,
        pool: &Arc<PoolInner>,
        location: &'static Location<'static>,
    ) -> Result<Self, F> {
        let executor = &pool.executor;
        let queued_at = executor.now_if_timing();
        let label = settings.label();
        let Some(id) = executor.admit(location, label.as_ref()) else { return Err(f) };
        let task = settings.make(f, id, location, queued_at);
        let job = Some(Job::Task(Arc::clone(&task) as _));
        let job = Arc::new(PendingJob { label, state: Mutex::new(State { job, waker: None }) });
        Ok(Self { task, id, class: settings.class(), is_suspended: false, waiter: None, job, shutdown_guard: None })
    }

    /// Tries to push the job; implements rules 1 and 2.
    fn try_push(
        &mut self,
        pool: &Arc<PoolInner>,
        location: &'static Location<'static>,
        [shutdown_waker, room_waker]: [Waker; 2],
    ) -> PushResult {
        let Some(job) = self.job.take(shutdown_waker) else { return PushResult::Refused };
        if self.is_suspended && !pool.executor.readmit() {
            self.job.put_back(job);
            unwind::discard(self.job.refuse(pool, self.id, location));
            return PushResult::Refused;
        }
        let Err(job) = pool.poll_submit(job, self.class, &mut self.waiter, room_waker) else {
            return PushResult::Accepted;
        };
        pool.executor.suspend();
        self.is_suspended = true;
        self.job.put_back(job);
        if self.shutdown_guard.is_none() {
            let (job, id) = (Arc::clone(&self.job), self.id);
            let (token, pool) = (&pool.shutdown_token, Arc::downgrade(pool));
            let refuse = move || pool.upgrade().and_then(|pool| job.refuse(&pool, id, location));
            self.shutdown_guard = Some(token.on_cancel(move || refuse().into_iter().for_each(Waker::wake)));
        }
        if pool.shutdown_token.is_cancelled() {
            unwind::discard(self.job.refuse(pool, self.id, location));
            return PushResult::Refused;
        }
        PushResult::NoRoom
    }
}

impl<C> Waiting<C> {
    /// Deregisters from the queue; implements rule 3.
    fn stop_waiting(mut self, pool: &PoolInner, took_room: bool) {
        if let Some(waiter) = self.waiter.take() {
            pool.stop_waiting(waiter, self.class, took_room);
        }
    }
}

impl PendingJob {
    /// Takes the job out to push it; `None` if it is refused. Stores the waker for the shutdown
    /// token.
    fn take(&self, waker: Waker) -> Option<Job> {
        let mut state = self.state.lock();
        let old = state.waker.replace(waker);
        let job = state.job.take();
        drop(state);
        unwind::discard(old);
        job
    }

    /// Puts the job back that could not be pushed.
    fn put_back(&self, job: Job) {
        self.state.lock().job = Some(job);
    }

    /// Refuses the job if it is waiting. Returns the waker of the future, whose next poll returns
    /// the closure.
    fn refuse(&self, pool: &PoolInner, id: TaskId, location: &'static Location<'static>) -> Option<Waker> {
        let mut state = self.state.lock();
        let job = state.job.take();
        let waker = state.waker.take_if(|_| job.is_some());
        drop(state);
        if let Some(job) = job {
            drop(job); // only a reference: the future has the closure
            pool.executor.refuse_suspended(&TaskOrigin { id, location, label: self.label.as_ref() });
        }
        waker
    }
}
