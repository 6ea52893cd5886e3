//! Submitting from async code: a future that waits for room without a thread.
//!
//! | state | meaning | who may change it | next |
//! |---|---|---|---|
//! | *new* | nobody has polled it | a poll | *accepted*; *waiting*; *refused* |
//! | *waiting* | admitted; the job lies here, a waker lies with the queue | a poll; the closing of the pool; the drop | *tried*; *refused* |
//! | *tried* | a poll has the job in its hands | that poll | *accepted*; *waiting* |
//! | *accepted* | the queue has the job | nobody | none |
//! | *refused* | the job is out of the books | a poll, which gives the closure back | none |
//!
//! Rules:
//! 1. The closing refuses what waits by itself, since nobody can promise that a future will be polled again: so a pool
//!    drains however many submitters have been forgotten.
//! 2. A poll that could not push puts the job back first and looks for the closing then; the closing is marked first and
//!    looks for the job then. So one of the two refuses it.
//! 3. A future that is dropped leaves the queue, and passes on what it had been told (see `queue`).

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::inner::PoolInner;
use super::worker_pool::WorkerPool;
use crate::cancel::token::CancelGuard;
use crate::defect::defect;
use crate::error::SubmitError;
use crate::observe::observer::{TaskId, TaskInfo};
use crate::queue::WaiterId;
use crate::sync::{Arc, Mutex};
use crate::task::TaskCell;
use crate::task::context;
use crate::task::handle::JoinHandle;
use crate::task::job::Job;
use crate::task::waits::{self, Next, Wait};
use crate::unwind;

/// # From async code
impl WorkerPool {
    /// Like [`spawn`](Self::spawn), for async code: awaiting it waits for room in the queue without blocking the thread,
    /// and gives the handle, which can be awaited in turn. Works in any runtime.
    ///
    /// Nothing happens before the first poll. Dropping the future before it is ready withdraws the submission and drops
    /// the closure. A full queue is waited for under [`Overflow::Block`](crate::Overflow) and `CallerRuns`, since a job run
    /// on the caller's thread would block the runtime; the policies that discard do so. Polled on a worker of the pool it
    /// never waits, as `spawn` does not.
    ///
    /// Room that comes free is offered to futures in the order in which they began to wait. One that is woken and neither
    /// polled nor dropped keeps its offer from the next, until more room comes free; threads it holds up not at all.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down, also while this waits for room.
    ///
    /// # Examples
    ///
    /// A handler that is held up, not refused, when the pool has enough to do:
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use workcrew::WorkerPool;
    ///
    /// async fn count_words(pool: &WorkerPool, text: String) -> Result<usize, Box<dyn std::error::Error>> {
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
        SpawnAsync { pool: Arc::clone(self.inner()), location: Location::caller(), state: State::New(f), wait: None }
    }
}

/// Submits a task as soon as there is room. From [`WorkerPool::spawn_async`].
#[must_use = "a future does nothing until it is polled"]
pub struct SpawnAsync<F, T> {
    pool: Arc<PoolInner>,
    location: &'static Location<'static>,
    state: State<F, T>,
    /// What the registry of waits knows of the last poll, if that was within a task or a driven future.
    wait: Option<Wait>,
}

/// See the table above.
enum State<F, T> {
    New(F),
    Waiting(Waiting<F, T>),
    /// Accepted or refused, and said so.
    Done,
}

/// A submission that is admitted and has found no room.
struct Waiting<F, T> {
    task: Arc<TaskCell<F, T>>,
    id: TaskId,
    /// Where it waits; `None` before it does.
    spot: Option<WaiterId>,
    offer: Arc<Offer>,
    /// Tells the offer of the closing; `None` before it waits.
    closing: Option<CancelGuard>,
}

/// What the closing must be able to reach.
struct Offer {
    inner: Mutex<Inner>,
}

/// What the lock guards.
struct Inner {
    /// `None` while it is tried, and once it is refused.
    job: Option<Job>,
    /// Woken by the closing.
    waker: Option<Waker>,
}

impl<F, T> Future for SpawnAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Cloning is foreign code, which may panic: it is done before anything has happened.
        let wakers = [context.waker().clone(), context.waker().clone()];
        this.wait = None;
        let mut waiting = match mem::replace(&mut this.state, State::Done) {
            State::New(f) => match Waiting::admit(f, &this.pool, this.location) {
                Ok(waiting) => waiting,
                Err(f) => return Poll::Ready(Err(SubmitError::new(f))),
            },
            State::Waiting(waiting) => waiting,
            State::Done => return Poll::Pending,
        };
        match waiting.attempt(&this.pool, this.location, wakers) {
            Attempt::Accepted => {
                let task = Arc::clone(&waiting.task);
                waiting.leave(&this.pool, true);
                Poll::Ready(Ok(JoinHandle::new(task, Arc::clone(&this.pool.executor))))
            }
            Attempt::Refused => {
                let task = Arc::clone(&waiting.task);
                waiting.leave(&this.pool, false);
                Poll::Ready(Err(SubmitError::new(task.withdraw())))
            }
            Attempt::NoRoom => {
                this.state = State::Waiting(waiting);
                this.enter_wait(context);
                Poll::Pending
            }
        }
    }
}

// No field is ever pinned.
impl<F, T> Unpin for SpawnAsync<F, T> {}

impl<F, T> SpawnAsync<F, T> {
    /// Tells the registry of waits what this future waits for: a worker that waits for it can make room.
    fn enter_wait(&mut self, context: &Context<'_>) {
        if context::depth() == 0 {
            return;
        }
        match waits::enter_future(Arc::new(self.pool.queue_room()), context.waker()) {
            Next::Help(awaited) => {
                awaited.help();
                context.waker().wake_by_ref(); // to look again
            }
            Next::Sleep(wait, _) => self.wait = Some(wait),
        }
    }
}

impl<F, T> Drop for SpawnAsync<F, T> {
    fn drop(&mut self) {
        if let State::Waiting(waiting) = mem::replace(&mut self.state, State::Done) {
            unwind::discard(waiting.offer.refuse(&self.pool, waiting.id, self.location));
            waiting.leave(&self.pool, false);
        }
    }
}

impl<F, T> fmt::Debug for SpawnAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "new",
            State::Waiting(_) => "waiting",
            State::Done => "done",
        };
        f.debug_struct("SpawnAsync").field("location", self.location).field("state", &state).finish_non_exhaustive()
    }
}

/// What came of offering the job to the queue.
#[must_use]
enum Attempt {
    Accepted,
    Refused,
    NoRoom,
}

impl<F, T> Waiting<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    /// Admits the task to the books, or gives the closure back.
    fn admit(f: F, pool: &Arc<PoolInner>, location: &'static Location<'static>) -> Result<Self, F> {
        let executor = &pool.executor;
        let queued_at = executor.now_if_timing();
        let Some(id) = executor.admit(location, None) else { return Err(f) };
        let task = Arc::new(TaskCell::new(f, id, location, queued_at));
        let job = Some(Job::Task(Arc::clone(&task) as _));
        let offer = Arc::new(Offer { inner: Mutex::new(Inner { job, waker: None }) });
        Ok(Self { task, id, spot: None, offer, closing: None })
    }

    /// Offers the job to the queue; keeps rule 2.
    fn attempt(
        &mut self,
        pool: &Arc<PoolInner>,
        location: &'static Location<'static>,
        [of_closing, of_room]: [Waker; 2],
    ) -> Attempt {
        let Some(job) = self.offer.take(of_closing) else { return Attempt::Refused };
        let Err(job) = pool.poll_submit(job, &mut self.spot, of_room) else { return Attempt::Accepted };
        self.offer.put_back(job);
        if self.closing.is_none() {
            let (offer, id) = (Arc::clone(&self.offer), self.id);
            let (closing, pool) = (&pool.shutdown_token, Arc::downgrade(pool));
            let refuse = move || pool.upgrade().and_then(|pool| offer.refuse(&pool, id, location));
            self.closing = Some(closing.on_cancel(move || refuse().into_iter().for_each(Waker::wake)));
        }
        if pool.shutdown_token.is_cancelled() {
            unwind::discard(self.offer.refuse(pool, self.id, location));
            return Attempt::Refused;
        }
        Attempt::NoRoom
    }
}

impl<F, T> Waiting<F, T> {
    /// Leaves the queue; keeps rule 3.
    fn leave(mut self, pool: &PoolInner, took_room: bool) {
        if let Some(spot) = self.spot.take() {
            pool.stop_waiting(spot, took_room);
        }
    }
}

impl Offer {
    /// Takes the job out to try it; `None` if it is refused. The waker is left for the closing.
    fn take(&self, waker: Waker) -> Option<Job> {
        let mut inner = self.inner.lock();
        let old = inner.waker.replace(waker);
        let job = inner.job.take();
        drop(inner);
        unwind::discard(old);
        job
    }

    fn put_back(&self, job: Job) {
        self.inner.lock().job = Some(job);
    }

    /// Takes a job that waits out of the books; returns the waker of the future, which gives the closure back.
    fn refuse(&self, pool: &PoolInner, id: TaskId, location: &'static Location<'static>) -> Option<Waker> {
        let mut inner = self.inner.lock();
        let job = inner.job.take();
        let waker = inner.waker.take_if(|_| job.is_some());
        drop(inner);
        if job.is_some() || defect!("a withdrawal too many") {
            drop(job); // a share only: the closure lies with the future
            pool.executor.refuse(&TaskInfo { id, location, label: None });
        }
        waker
    }
}
