//! Submission: how a job gets from the caller into the queue.
//!
//! A submission has up to four steps, and each can be the last:
//! 1. *Admit* the task. A closed pool refuses it.
//! 2. *Push* the job into the queue.
//! 3. If the queue is full, proceed by the table below.
//! 4. If that finds no room either, *withdraw* the task and give the closure back.
//!
//! | submitter to a full queue | plain form | form with a timeout | `try_` form |
//! |---|---|---|---|
//! | an external thread | follows the overflow policy | waits at most the timeout | refused |
//! | a worker of the pool | follows the policy, but where that is to block, runs the job inline, or pushes it beyond the capacity if its stack is deep | refused | refused |
//!
//! So a worker never blocks on its own full queue. Jobs beyond the capacity go into the queue's
//! unbounded lane, like the tickets of groups. "Full" refers to the class of the job alone. There
//! are at most as many tickets as groups times workers, and as many jobs as tasks at the deepest
//! nesting submit.

use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use super::inner::PoolInner;
use super::overflow::Overflow;
use super::queue_room::QueueRoom;
use super::worker_pool::WorkerPool;
use crate::error::{
    CancelReason, CycleKind, CycleTarget, Refusal, Refuser, SubmitError, SubmitTimeoutError, TrySubmitError,
};
use crate::failpoint::{self, Failpoint};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::priority::Priority;
use crate::queue::{PushError, WaiterId};
use crate::sync::Arc;
use crate::task::cell::TaskCell;
use crate::task::context;
use crate::task::handle::JoinHandle;
use crate::task::job::{Job, Task};
use crate::task::sleepers;
use crate::task::waits;
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;

/// Whether and how long a submission waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitMode {
    /// Follow the overflow policy.
    Policy,
    /// Do not wait.
    Never,
    /// Wait until the deadline.
    Until(Deadline),
}

/// What a submission says about its task.
#[derive(Clone, Copy)]
pub(crate) struct SubmitSettings<'a> {
    /// Whether and how long it waits for room.
    pub(crate) wait_mode: WaitMode,
    /// The place of the submission.
    pub(crate) location: &'static Location<'static>,
    /// What observers see of the task.
    pub(crate) label: Option<&'a Arc<str>>,
    /// The class of the task.
    pub(crate) class: Priority,
}

impl SubmitSettings<'_> {
    /// Returns the settings of a plain task.
    pub(crate) fn plain(wait_mode: WaitMode, location: &'static Location<'static>) -> Self {
        Self { wait_mode, location, label: None, class: Priority::Normal }
    }
}

/// # Submitting
///
/// `execute` submits a closure without a result, `spawn` returns a handle for the result. When the
/// queue is full, the plain forms follow the [`Overflow`] policy and may block.
/// The `try_` forms never block. The `_for` forms block at most for the given time.
///
/// On a worker of the same pool no form ever blocks. If the queue is full there, the plain forms
/// run the job inline under [`Overflow::Block`] and `CallerRuns`. If the worker already runs 16
/// jobs nested in each other, they queue the job beyond the capacity. The other forms refuse the
/// job. A job that runs inline runs under the locks that the submitting task holds, so [hold
/// none that tasks take](crate#locks-and-submissions).
///
/// A closure owns what it uses: write `move`, and share by reference counts. Tasks that borrow from
/// the caller's stack need a [scope](Self::scope).
///
/// A closure is synchronous. `spawn(async || ..)` compiles, but does nothing: the task ends at
/// once, and its value is a future that no thread polls. To run a future for synchronous code, use
/// a `Driver` of the feature `driver`. To submit from async code, call
/// [`spawn_async`](Self::spawn_async) with a plain closure.
impl WorkerPool {
    /// Submits a closure to be run by a worker, without a handle.
    ///
    /// `Ok` means accepted: the closure will run, unless a shutdown or the overflow policy cancels
    /// it. A panic of the closure is contained, counted, and passed to
    /// [`WorkerPoolBuilder::on_panic`](crate::WorkerPoolBuilder::on_panic).
    ///
    /// This method may wait for room or run the closure inline: hold no
    /// [lock](crate#locks-and-submissions) that tasks take.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (sender, receiver) = channel();
    /// pool.execute(move || sender.send("done").unwrap())?;
    /// assert_eq!(receiver.recv()?, "done");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "submit")]
    #[doc(alias = "fire_and_forget")]
    #[track_caller]
    pub fn execute<F>(&self, f: F) -> Result<(), SubmitError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit_closure(f, WaitMode::Policy, Location::caller()).map_err(SubmitError::by(Refuser::Pool))
    }

    /// Like [`execute`](Self::execute), but never blocks, and never runs the closure inline.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the queue is full or the pool is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// if let Err(error) = pool.try_execute(|| println!("maybe later")) {
    ///     assert!(error.is_full());
    ///     let closure = error.into_inner(); // to be kept for another try
    ///     closure();
    /// }
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn try_execute<F>(&self, f: F) -> Result<(), TrySubmitError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit_closure(f, WaitMode::Never, Location::caller()).map_err(TrySubmitError::by(Refuser::Pool))
    }

    /// Like [`execute`](Self::execute), but blocks at most for `timeout`, and never runs the
    /// closure inline. `Duration::MAX` means forever.
    ///
    /// It waits for room under every [policy](crate::Overflow), even under those that discard. If
    /// you hold a [lock](crate#locks-and-submissions) that tasks take, the wait may last until the
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if the queue stayed full or the pool is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// pool.try_execute_for(Duration::from_millis(10), || ())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_execute_for<F>(&self, timeout: Duration, f: F) -> Result<(), SubmitTimeoutError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit_closure(f, WaitMode::Until(Deadline::after(timeout)), Location::caller())
            .map_err(SubmitTimeoutError::by(Refuser::Pool))
    }

    /// Submits a task and returns the handle for its result.
    ///
    /// A task may run for any time. For a time limit, use the builder of [`task`](Self::task).
    ///
    /// This method may wait for room or run the closure inline: hold no
    /// [lock](crate#locks-and-submissions) that tasks take.
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
    /// let words = pool.spawn(|| "to be or not to be".split(' ').count())?;
    /// assert_eq!(words.join()?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "submit")]
    #[doc(alias = "spawn_blocking")]
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_task(f, SubmitSettings::plain(WaitMode::Policy, Location::caller()))
            .map_err(SubmitError::by(Refuser::Pool))
    }

    /// Like [`spawn`](Self::spawn), but never blocks, and never runs the closure inline.
    ///
    /// # Errors
    ///
    /// [`TrySubmitError`] with the closure, if the queue is full or the pool is shut down.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, TrySubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_task(f, SubmitSettings::plain(WaitMode::Never, Location::caller()))
            .map_err(TrySubmitError::by(Refuser::Pool))
    }

    /// Like [`spawn`](Self::spawn), but blocks at most for `timeout`, and never runs the closure
    /// inline. `Duration::MAX` means forever.
    ///
    /// It waits for room under every [policy](crate::Overflow), even under those that discard. If
    /// you hold a [lock](crate#locks-and-submissions) that tasks take, the wait may last until the
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`SubmitTimeoutError`] with the closure, if the queue stayed full or the pool is shut down.
    #[track_caller]
    pub fn try_spawn_for<F, T>(&self, timeout: Duration, f: F) -> Result<JoinHandle<T>, SubmitTimeoutError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let settings = SubmitSettings::plain(WaitMode::Until(Deadline::after(timeout)), Location::caller());
        self.submit_task(f, settings).map_err(SubmitTimeoutError::by(Refuser::Pool))
    }

    fn submit_closure<F>(
        &self,
        f: F,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
    ) -> Result<(), (Refusal, F)>
    where
        F: FnOnce() + Send + 'static,
    {
        let mut f = Some(f);
        let queued_at = self.inner().executor.now_if_timing();
        let submitted = self.inner().submit(wait_mode, location, |id| {
            Job::closure(f.take().expect("a job is made at most once"), id, location, queued_at)
        });
        submitted.map_err(|(refusal, job)| {
            let f = job.map_or_else(|| f.expect("without a job the closure is still here"), Job::into_closure);
            (refusal, f)
        })
    }

    pub(crate) fn submit_task<F, T>(&self, f: F, settings: SubmitSettings<'_>) -> Result<JoinHandle<T>, (Refusal, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let make = |f, id, queued_at| Arc::new(TaskCell::new(f, id, settings.location, queued_at));
        let task = self.inner().submit_task(f, settings, make, TaskCell::withdraw)?;
        Ok(JoinHandle::new(task, Arc::clone(&self.inner().executor)))
    }
}

impl PoolInner {
    /// Submits the task that `make` returns for the closure. If the task is refused, `withdraw`
    /// takes the closure back out of it.
    #[inline]
    pub(crate) fn submit_task<F, C: Task + 'static>(
        &self,
        f: F,
        settings: SubmitSettings<'_>,
        make: impl FnOnce(F, TaskId, Option<Timestamp>) -> Arc<C>,
        withdraw: impl FnOnce(&C) -> F,
    ) -> Result<Arc<C>, (Refusal, F)> {
        let mut f = Some(f);
        let mut task = None;
        let queued_at = self.executor.now_if_timing();
        let submitted = self.submit_with(settings, |id| {
            let made = task.insert(make(f.take().expect("a task is made at most once"), id, queued_at));
            Job::Task(Arc::clone(made) as _)
        });
        match (submitted, task) {
            (Ok(()), Some(task)) => Ok(task),
            (Err((refusal, _)), Some(task)) => Err((refusal, withdraw(&task))),
            (Err((refusal, _)), None) => Err((refusal, f.expect("without a task the closure is still here"))),
            (Ok(()), None) => unreachable!("an accepted task was made"),
        }
    }

    /// Admits a task and submits the job that `make` returns for its id. A refused job comes back.
    #[inline]
    pub(crate) fn submit(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        make: impl FnOnce(TaskId) -> Job,
    ) -> Result<(), (Refusal, Option<Job>)> {
        self.submit_with(SubmitSettings::plain(wait_mode, location), make)
    }

    /// Like [`submit`](Self::submit), for a task with a label or a class.
    #[inline]
    pub(crate) fn submit_with(
        &self,
        SubmitSettings { wait_mode, location, label, class }: SubmitSettings<'_>,
        make: impl FnOnce(TaskId) -> Job,
    ) -> Result<(), (Refusal, Option<Job>)> {
        let Some(id) = self.executor.admit(location, label) else { return Err((Refusal::ShutDown, None)) };
        failpoint::hit(Failpoint::Admitted);
        self.use_class(class);
        let Err(job) = self.queue.try_push(make(id), class) else { return Ok(()) };
        self.push_overflowing(job, class, wait_mode).map_err(|(refusal, job)| {
            self.executor.refuse(&TaskOrigin { id, location, label });
            (refusal, Some(job))
        })
    }

    /// Submits an admitted job for a future. Accepts it, or gives it back and registers the waker
    /// to be woken when there may be room.
    ///
    /// Waits for room only where the overflow policy says so and the thread is not a worker.
    /// Elsewhere the job is accepted, even if it is discarded then.
    pub(crate) fn poll_submit(
        &self,
        job: Job,
        class: Priority,
        waiter: &mut Option<WaiterId>,
        waker: Waker,
    ) -> Result<(), Job> {
        self.use_class(class);
        let waits = matches!(self.overflow, Overflow::Block | Overflow::CallerRuns);
        if waits && !context::is_worker_of(self.id()) {
            return self.queue.push_or_register(job, class, waiter, waker);
        }
        // This future no longer waits, so any notification it received is forwarded.
        if let Some(waiter) = waiter.take() {
            self.queue.deregister(waiter, class, false);
        }
        let Err(job) = self.queue.try_push(job, class) else { return Ok(()) };
        self.push_overflowing(job, class, WaitMode::Policy)
            .map_err(|_| unreachable!("a worker never waits, nor does a policy that discards"))
    }

    /// Deregisters a future that waited for room. `took_room` says whether it has pushed its job.
    pub(crate) fn stop_waiting(&self, waiter: WaiterId, class: Priority, took_room: bool) {
        self.queue.deregister(waiter, class, took_room);
    }

    /// Returns the room for a class as the registry of waits sees it.
    pub(crate) fn queue_room(&self, class: Priority) -> QueueRoom {
        QueueRoom { queue: Arc::clone(&self.queue), class, executor: Arc::clone(&self.executor) }
    }

    /// Handles a job that found the queue full, by the table at the head of this module.
    fn push_overflowing(&self, job: Job, class: Priority, wait_mode: WaitMode) -> Result<(), (Refusal, Job)> {
        let on_worker = context::is_worker_of(self.id());
        match (wait_mode, self.overflow) {
            (WaitMode::Never, _) => Err((Refusal::Full, job)),
            (WaitMode::Until(_), _) if on_worker => Err((Refusal::Timeout, job)),
            (WaitMode::Until(deadline), _) => self.push_blocking(job, class, deadline),
            // The destructor of a discarded closure may submit again, and so on; see `nesting`.
            (WaitMode::Policy, Overflow::DiscardNewest | Overflow::DiscardOldest) if nesting::is_at_max_depth() => {
                self.push_unbounded(job, class);
                Ok(())
            }
            (WaitMode::Policy, Overflow::DiscardNewest) => {
                job.cancel(CancelReason::Discarded, &self.executor);
                Ok(())
            }
            (WaitMode::Policy, Overflow::DiscardOldest) => {
                self.discard_oldest(job, class);
                Ok(())
            }
            (WaitMode::Policy, Overflow::Block) if !on_worker => self.push_waiting(job, class),
            (WaitMode::Policy, _) if context::depth() < context::MAX_INLINE_DEPTH => {
                self.run(&mut Some(job));
                Ok(())
            }
            (WaitMode::Policy, _) if on_worker => {
                self.push_unbounded(job, class);
                Ok(())
            }
            (WaitMode::Policy, _) => self.push_waiting(job, class),
        }
    }

    /// Pushes a job, blocking until there is room. Where waits are nested too deep, pushes it beyond
    /// the capacity instead.
    fn push_waiting(&self, job: Job, class: Priority) -> Result<(), (Refusal, Job)> {
        let pushed = self.push_blocking(job, class, Deadline::NEVER);
        let Err((Refusal::Timeout, job)) = pushed else { return pushed };
        self.push_unbounded(job, class);
        Ok(())
    }

    /// Pushes a job, blocking until there is room. Where waits are nested too deep, does not block.
    fn push_blocking(&self, job: Job, class: Priority, deadline: Deadline) -> Result<(), (Refusal, Job)> {
        if waits::prepare(deadline).is_err() {
            return Err((Refusal::Timeout, job));
        }
        let pushed = if deadline == Deadline::NEVER && context::depth() > 0 {
            self.queue_room(class).push(job)
        } else {
            let list = || sleepers::list(CycleTarget::new(CycleKind::QueueRoom), self.id(), deadline);
            self.queue.push_listed(job, class, deadline, list)
        };
        pushed.map_err(|error| match error {
            PushError::Timeout(job) => (Refusal::Timeout, job),
            PushError::Closed(job) => (Refusal::ShutDown, job),
        })
    }

    /// Pushes a job, cancelling the oldest jobs of its class until there is room.
    ///
    /// An oldest job is cancelled only after this one was pushed in its place, or failed to be. Its
    /// destructor may submit, and would take the place every time.
    fn discard_oldest(&self, job: Job, class: Priority) {
        let (mut job, mut oldest) = (job, None);
        while let Err(refused) = self.queue.try_push(job, class) {
            job = refused;
            self.cancel_current(&mut oldest, CancelReason::Discarded);
            oldest = self.queue.try_pop_bounded(class);
        }
        self.cancel_current(&mut oldest, CancelReason::Discarded);
    }
}
