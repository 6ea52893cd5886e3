//! The inside of a pool: takes jobs in, hands them to workers, decides what happens when the queue is full.
//!
//! A submission has four steps, each of which can be the last: *admit* it to the books (closed: refused); *push* it
//! into the queue; if that is full, follow the *overflow* rules below; if there is no way, *withdraw* it and give it
//! back.
//!
//! | who submits into a full queue | plain form | `_timeout` form | `try_` form |
//! |---|---|---|---|
//! | an outside thread | as the overflow policy says | waits at most so long | refused |
//! | a worker of the pool | as the policy says, but where that is to block: runs the job at once, or puts it aside if its stack is deep | refused | refused |
//!
//! So a worker never parks on its own full queue. What is put aside goes into the queue's side lane, as do the tickets
//! of groups: tickets are bounded by groups times workers, the jobs by what tasks at the deepest nesting submit.

#[cfg(feature = "driver")]
use std::any::Any;
use std::panic::Location;
use std::task::Waker;

use super::group_registry::{GroupRegistry, Registration};
use super::queue_room::Room;
use super::worker_set::WorkerSet;
use crate::cancel::token::CancellationToken;
use crate::defect::defect;
use crate::error::{CancelReason, Refusal};
use crate::failpoint::{self, Place};
use crate::nesting;
use crate::observe::metrics::Metrics;
use crate::observe::observer::{TaskId, TaskInfo};
use crate::observe::worker_counters::WorkerCounters;
use crate::queue::{FIFO_SHARD, PushError, Queue, Turn, WaiterId};
#[cfg(feature = "driver")]
use crate::sync::Mutex;
use crate::sync::{Arc, Weak};
use crate::task::context::{self, PoolId};
use crate::task::executor::{Executor, Hooks};
use crate::task::job::{Job, TicketHolder};
use crate::time::deadline::Deadline;
use crate::timer::thread::TimerThread;

/// What the plain forms (`execute`, `spawn`) do when the queue is full.
///
/// | policy | the new job | the caller | right when |
/// |---|---|---|---|
/// | `Block` | waits for room | is held up | producers can be slowed down |
/// | `CallerRuns` | runs now, on the caller's thread | does the work | producers can be slowed down and should help |
/// | `DiscardOldest` | takes the place of the oldest queued one | goes on | only the newest data matters |
/// | `DiscardNewest` | is dropped | goes on | losing work is better than waiting |
///
/// A discarded task counts as accepted and meets its one fate: cancelled, with
/// [`CancelReason::Discarded`](crate::CancelReason::Discarded). Tasks of groups are never discarded: groups have a
/// [capacity](crate::TaskGroup::capacity) of their own. `CallerRuns` runs jobs nested in jobs at most 16 deep; beyond
/// that the caller blocks.
///
/// The destructor of a discarded closure may submit again, and so discard again. That goes 16 deep; what is submitted
/// deeper is put aside, beyond the queue's capacity.
///
/// On a worker of the pool itself `Block` never blocks: the worker runs the job at once, or puts it aside when it is
/// already running jobs nested 16 deep.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
/// use workcrew::{CancelReason, JoinError, Overflow, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(1).queue_capacity(1).overflow(Overflow::DiscardOldest).build()?;
/// let (started, start) = channel();
/// let (open, gate) = channel::<()>();
/// pool.execute(move || { started.send(()).unwrap(); gate.recv().unwrap() })?;
/// start.recv()?; // the worker is busy, the queue is empty
/// let oldest = pool.spawn(|| 1)?;
/// let newest = pool.spawn(|| 2)?; // takes the place of the oldest
/// open.send(())?;
/// assert!(matches!(oldest.join(), Err(JoinError::Cancelled(CancelReason::Discarded))));
/// assert_eq!(newest.join()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Wait until there is room.
    #[default]
    Block,
    /// Run the job on the thread that submits it.
    CallerRuns,
    /// Cancel the oldest queued job.
    DiscardOldest,
    /// Cancel the new job.
    DiscardNewest,
}

/// Whether and how long a submission waits for room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitMode {
    /// As the overflow policy says.
    Policy,
    /// Not at all.
    Never,
    /// So long.
    Until(Deadline),
}

/// The inside of one pool. Owned by the pool, its workers and its groups; never by what lies in its queue.
/// Aligned, so that its reference count, which every group changes, lies apart from what every task reads.
#[repr(align(128))]
pub(crate) struct PoolInner {
    pub(crate) executor: Arc<Executor>,
    pub(crate) workers: WorkerSet,
    /// Keeps the tasks that wait for their time.
    pub(crate) timers: Arc<TimerThread>,
    queue: Arc<Queue<Job>>,
    overflow: Overflow,
    /// Every group that may have tasks.
    pub(crate) groups: GroupRegistry<dyn TicketHolder>,
    /// Cancelled when the pool accepts nothing any more: tells those who wait without a thread.
    pub(crate) shutdown_token: CancellationToken,
    #[cfg(feature = "driver")]
    pub(crate) io: IoState,
}

/// The seam for futures that are driven for the pool.
#[cfg(feature = "driver")]
#[derive(Default)]
pub(crate) struct IoState {
    /// What all who drive futures for the pool share, owned by them.
    pub(crate) shared: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// Cancelled when what has not started is given up.
    pub(crate) cancelling: CancellationToken,
}

impl PoolInner {
    pub(crate) fn new(queue_capacity: usize, overflow: Overflow, hooks: Hooks, timing: bool) -> Self {
        let executor = Arc::new(Executor::new(hooks, timing));
        let queue = Arc::new(Queue::new(queue_capacity));
        let weak_queue = Arc::downgrade(&queue);
        executor.tracker.on_drained(move || {
            if let Some(queue) = weak_queue.upgrade() {
                queue.wake_all();
            }
        });
        let timers = Arc::new(TimerThread::new(&queue));
        let workers = WorkerSet::new(executor.pool_id);
        Self {
            executor,
            workers,
            timers,
            queue,
            overflow,
            groups: GroupRegistry::new(),
            shutdown_token: CancellationToken::new(),
            #[cfg(feature = "driver")]
            io: IoState::default(),
        }
    }

    /// Names the pool.
    pub(crate) fn id(&self) -> PoolId {
        self.executor.pool_id
    }

    /// Submits what `make` makes of a task's identity. A refused job comes back.
    #[inline]
    pub(crate) fn submit(
        &self,
        wait_mode: WaitMode,
        location: &'static Location<'static>,
        make: impl FnOnce(TaskId) -> Job,
    ) -> Result<(), (Refusal, Option<Job>)> {
        let Some(id) = self.executor.admit(location, None) else { return Err((Refusal::ShutDown, None)) };
        failpoint::at(Place::Admitted);
        let Err(job) = self.queue.try_push(make(id)) else {
            let is_late = defect!("error after the push") && self.executor.tracker.is_closed();
            return if is_late { Err((Refusal::ShutDown, None)) } else { Ok(()) };
        };
        self.overflow(job, wait_mode).map_err(|(refusal, job)| {
            self.executor.refuse(&TaskInfo { id, location, label: None });
            (refusal, Some(job))
        })
    }

    /// Submits an admitted job for a future: takes it in, or gives it back and has the waker called when there may be room.
    /// Where that is not what the overflow policy or a worker asks for, it is taken in, whatever becomes of it.
    pub(crate) fn poll_submit(&self, job: Job, spot: &mut Option<WaiterId>, waker: Waker) -> Result<(), Job> {
        let waits = matches!(self.overflow, Overflow::Block | Overflow::CallerRuns);
        if waits && !context::is_worker_of(self.id()) {
            return self.queue.push_or_enroll(job, spot, waker);
        }
        // Whoever does not wait any more passes on what it was told.
        if let Some(spot) = spot.take() {
            self.queue.leave(spot, false);
        }
        let Err(job) = self.queue.try_push(job) else { return Ok(()) };
        self.overflow(job, WaitMode::Policy).map_err(|_| unreachable!("neither a worker nor a discarded job waits"))
    }

    /// A future that had a spot waits no longer.
    pub(crate) fn leave(&self, spot: WaiterId, took_room: bool) {
        self.queue.leave(spot, took_room);
    }

    /// Sends a group's ticket behind all others; never refused, never waits.
    pub(crate) fn send_ticket(&self, group: Weak<dyn TicketHolder>) {
        self.push_unbounded(Job::Ticket(group));
    }

    /// Sends the ticket of a group that has something to begin: in the row of its seat, where its maker need not wait for
    /// others who do the same.
    pub(crate) fn send_first_ticket(&self, group: Weak<dyn TicketHolder>, registration: &Registration) {
        self.queue.push_unbounded(Job::Ticket(group), registration.shard, Job::is_stale);
    }

    /// Takes back the last of the first tickets from this row of seats, if it is one of this group; says whether it was.
    /// What is good for nothing any more need not lie in the queue, and keeps the memory of its group for as long as it does.
    #[inline]
    pub(crate) fn unpush_ticket<G>(&self, group: &Arc<G>, registration: &Registration) -> bool {
        self.queue.unpush(registration.shard, |job| job.is_ticket_of(group)).is_some()
    }

    /// Hands out the next job, waiting for one; `None` once the pool is drained or workers are to leave, or for no
    /// reason.
    #[inline]
    pub(crate) fn next_job(&self, turn: &mut Turn, record: &WorkerCounters) -> Option<Job> {
        if let Some(job) = self.queue.try_pop(turn) {
            return Some(job);
        }
        self.executor.tracker.check_idle();
        let job = self.queue.pop(turn, || self.executor.tracker.is_drained() || self.workers.has_surplus());
        record.has_rested();
        // A timer that came to the queue after the look, and before the closing that this worker has seen.
        job.or_else(|| if self.executor.tracker.is_drained() { self.queue.try_pop(turn) } else { None })
    }

    /// Runs a job that a worker has taken, or cancels it, if that is what the hour asks for.
    #[inline]
    pub(crate) fn run(&self, hand: &mut Option<Job>) {
        if self.executor.tracker.is_cancelling() {
            self.cancel_current(hand, CancelReason::ShutDown);
        } else if let Some(job) = hand {
            job.run(&self.executor);
        }
    }

    /// Cancels a job that a worker has taken, unless it was started.
    pub(crate) fn cancel_current(&self, hand: &mut Option<Job>, reason: CancelReason) {
        if let Some(job) = hand.take()
            && !job.is_consumed()
        {
            job.cancel(reason, &self.executor);
        }
    }

    /// Whether a worker has nothing to do; may be stale when it returns.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.queue.has_idle_worker()
    }

    /// How many jobs wait for a worker, tickets included; out of date when it arrives.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len_of_both()
    }

    /// Makes every sleeping worker look whether it shall leave.
    pub(crate) fn wake_workers(&self) {
        self.queue.wake_all();
    }

    /// Lets every group send the tickets that more workers can serve. One that is being made meanwhile may be missed, and
    /// sees the new number at the latest when it gets its next task.
    pub(crate) fn send_missing_tickets(&self) {
        for group in self.groups.live() {
            group.send_tickets();
        }
    }

    /// Refuses new work; what waits for room gets its closure back, what waits for its time is cancelled.
    pub(crate) fn close(&self) {
        // First, so that no timer comes to the queue of a pool whose workers have left.
        let waiting = self.timers.close();
        self.executor.tracker.close();
        self.queue.close();
        self.shutdown_token.cancel_because(CancelReason::ShutDown);
        for task in waiting {
            task.cancel(CancelReason::ShutDown, &self.executor);
        }
    }

    /// Closes, and cancels every task that has not started.
    pub(crate) fn cancel_queued(&self) {
        self.executor.tracker.start_cancelling();
        self.close();
        for group in self.groups.live() {
            group.cancel(CancelReason::ShutDown);
        }
        #[cfg(feature = "driver")]
        self.io.cancelling.cancel_because(CancelReason::ShutDown);
        let mut turn = Turn::default();
        while let Some(job) = self.queue.try_pop(&mut turn) {
            job.cancel(CancelReason::ShutDown, &self.executor);
        }
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn queue_capacity(&self) -> usize {
        self.queue.capacity()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            workers: self.workers.target(),
            queue_capacity: self.queue_capacity(),
            timers_pending: self.timers.len(),
            ..self.executor.tracker.snapshot()
        }
    }

    /// What becomes of a job that found the queue full.
    fn overflow(&self, job: Job, wait_mode: WaitMode) -> Result<(), (Refusal, Job)> {
        let on_worker = context::is_worker_of(self.id());
        match (wait_mode, self.overflow) {
            (WaitMode::Never, _) => Err((Refusal::Full, job)),
            (WaitMode::Until(_), _) if on_worker => Err((Refusal::Timeout, job)),
            (WaitMode::Until(deadline), _) => self.push(job, deadline),
            // The destructor of what was discarded submits, and so on: see `nesting`. What it submits is put aside.
            (WaitMode::Policy, Overflow::DiscardNewest | Overflow::DiscardOldest) if nesting::is_deep() => {
                self.push_unbounded(job);
                Ok(())
            }
            (WaitMode::Policy, Overflow::DiscardNewest) => {
                job.cancel(CancelReason::Discarded, &self.executor);
                Ok(())
            }
            (WaitMode::Policy, Overflow::DiscardOldest) => {
                self.discard_oldest(job);
                Ok(())
            }
            (WaitMode::Policy, policy) => {
                if !on_worker && policy == Overflow::Block {
                    self.push(job, Deadline::NEVER)
                } else if context::depth() < context::MAX_INLINE_DEPTH {
                    self.run(&mut Some(job));
                    Ok(())
                } else if on_worker {
                    self.push_unbounded(job);
                    Ok(())
                } else {
                    self.push(job, Deadline::NEVER)
                }
            }
        }
    }

    /// Waits for room.
    fn push(&self, job: Job, deadline: Deadline) -> Result<(), (Refusal, Job)> {
        let pushed = if deadline == Deadline::NEVER && context::depth() > 0 {
            self.room().push(job)
        } else {
            self.queue.push(job, deadline)
        };
        pushed.map_err(|error| match error {
            PushError::Timeout(job) => (Refusal::Timeout, job),
            PushError::Closed(job) => (Refusal::ShutDown, job),
        })
    }

    /// The room in the queue, as the registry of waits sees it.
    pub(crate) fn room(&self) -> Room {
        Room { queue: Arc::clone(&self.queue), executor: Arc::clone(&self.executor) }
    }

    /// Makes room by cancelling the oldest jobs until this one fits. An oldest job is cancelled after the attempt to put
    /// this one into its place: its destructor may submit, and would take the place each time.
    fn discard_oldest(&self, job: Job) {
        let (mut job, mut oldest) = (job, None);
        while let Err(refused) = self.queue.try_push(job) {
            job = refused;
            self.cancel_current(&mut oldest, CancelReason::Discarded);
            oldest = self.queue.try_pop_bounded();
        }
        self.cancel_current(&mut oldest, CancelReason::Discarded);
    }

    /// Puts a job where it is neither refused nor waits.
    pub(crate) fn push_unbounded(&self, job: Job) {
        self.queue.push_unbounded(job, FIFO_SHARD, Job::is_stale);
    }
}
