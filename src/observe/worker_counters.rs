//! The counters of one worker, or of all other threads together.
//!
//! A worker updates its counters with each task it runs, and no other thread writes them. So it
//! pays for plain stores into cache lines that stay in its cache. Two steps would cost more than a
//! short task, and are done less often:
//!
//! 1. The *call site* of a task is written only if it differs from that of the task before; see
//!    [`current_task`](super::current_task).
//! 2. The *clock* is read for each task, but a worker whose recent tasks were short reads it only
//!    for every few tasks; see [`coarse_clock`](super::coarse_clock). So the time since which a
//!    task is said to run may be the start of one of the few short tasks before it.

use super::coarse_clock::CoarseClock;
use super::current_task::{CallSite, CurrentTask, SavedTask};
use super::histogram::{Histogram, HistogramCounter};
use super::task_info::{RunningTask, TaskId, TaskOutcome};
use super::task_origin::TaskOrigin;
use crate::error::CancelReason;
use crate::sync::{AtomicU64, Ordering};
use crate::time::clock::{Epoch, Timestamp};

/// The limit of attempts to read a consistent state while the worker goes from task to task.
const MAX_READS: usize = 100;

/// Which threads write the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One worker: plain loads and stores are enough.
    Exclusive,
    /// Any thread.
    Shared,
}

/// The counters of one worker, or of all other threads together.
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    started: AtomicU64,
    /// Starts without an end, because the task will be retried.
    suspended: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    cancelled: AtomicU64,
    /// Tasks whose handle or group has the outcome. This counter decides whether the pool is idle;
    /// the others are for `metrics`.
    completed: AtomicU64,
    sharing: Sharing,
    /// The index of the worker.
    worker: usize,
    epoch: Epoch,
    /// Durations, if they are recorded.
    durations: Option<Box<Durations>>,
    /// The task that the worker is running. Unused in the counters of other threads.
    current: CurrentTask,
    clock: CoarseClock,
}

/// The durations that are recorded.
struct Durations {
    queue_wait: HistogramCounter,
    run_time: HistogramCounter,
}

/// A task that is running, to be handed to [`WorkerCounters::end`].
#[must_use = "a task that was started must be ended"]
pub(crate) struct Started {
    /// When it started, if durations are recorded.
    pub(crate) at: Option<Timestamp>,
}

impl WorkerCounters {
    pub(crate) fn new(worker: usize, sharing: Sharing, epoch: Epoch, timing: bool) -> Self {
        let durations =
            || Box::new(Durations { queue_wait: HistogramCounter::new(), run_time: HistogramCounter::new() });
        Self {
            started: AtomicU64::new(0),
            suspended: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            sharing,
            worker,
            epoch,
            durations: timing.then(durations),
            current: CurrentTask::default(),
            clock: CoarseClock::default(),
        }
    }

    /// Returns the index of the worker.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Returns whether these are the counters of a worker.
    #[inline]
    pub(crate) fn belongs_to_worker(&self) -> bool {
        self.sharing == Sharing::Exclusive
    }

    /// Counts a task that starts now and was queued at `queued_at`.
    ///
    /// Always inlined: with a second, cold caller in `Executor::run` it would not be.
    #[inline(always)]
    pub(crate) fn start(&self, task: &TaskOrigin<'_>, queued_at: Option<Timestamp>) -> Started {
        self.add(&self.started, 1);
        let at = self.durations.as_ref().map(|durations| {
            let now = self.epoch.now();
            if let Some(queued_at) = queued_at {
                durations.queue_wait.record(now.since(queued_at));
            }
            now
        });
        if self.belongs_to_worker() {
            self.current.begin(task, at.unwrap_or_else(|| self.clock.now(&self.epoch)));
        }
        Started { at }
    }

    /// Counts the end of a task. Returns when it ended, if durations are recorded.
    #[inline]
    pub(crate) fn end(&self, Started { at }: Started, outcome: TaskOutcome) -> Option<Timestamp> {
        self.count(outcome, 1);
        let ended = self.durations.as_ref().zip(at).map(|(durations, at)| {
            let now = self.epoch.now();
            durations.run_time.record(now.since(at));
            now
        });
        if self.belongs_to_worker() {
            self.current.end();
        }
        ended
    }

    /// Counts the end of an attempt, after which the task is queued again. Returns when it ended,
    /// if durations are recorded.
    #[cfg(feature = "retry")]
    pub(crate) fn suspend(&self, Started { at }: Started) -> Option<Timestamp> {
        self.add(&self.suspended, 1);
        if self.belongs_to_worker() {
            self.current.end();
        }
        at.map(|_| self.epoch.now())
    }

    /// Saves the running task, if any, while it waits and the worker runs others on the same stack.
    pub(crate) fn save_task(&self) -> SavedTask {
        self.current.save()
    }

    /// Shows the saved task again, which goes on.
    pub(crate) fn restore_task(&self, saved: SavedTask) {
        self.current.restore(saved);
    }

    /// Counts tasks that were cancelled.
    pub(crate) fn count_cancelled(&self, reason: CancelReason, tasks: u64) {
        self.count(TaskOutcome::Cancelled(reason), tasks);
    }

    /// Counts tasks whose handle or group has the outcome.
    #[inline]
    pub(crate) fn count_completed(&self, tasks: u64) {
        self.add(&self.completed, tasks);
    }

    /// Forgets the last reading of the clock, after the worker has waited for work.
    pub(crate) fn invalidate_clock(&self) {
        self.clock.invalidate();
    }

    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn suspended(&self) -> u64 {
        self.suspended.load(Ordering::Acquire)
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Acquire)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Acquire)
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    /// Returns how many starts were followed by an end.
    fn ended(&self) -> u64 {
        self.suspended() + self.succeeded() + self.failed() + self.panicked()
    }

    /// Adds the recorded durations to the histograms.
    pub(crate) fn add_durations_to(&self, queue_wait: &mut Histogram, run_time: &mut Histogram) {
        if let Some(durations) = &self.durations {
            durations.queue_wait.add_to(queue_wait);
            durations.run_time.add_to(run_time);
        }
    }

    /// Returns the task that the worker is running; may be stale when it returns. Returns `None`
    /// for a worker that goes from task to task faster than this method can read.
    pub(crate) fn running(&self) -> Option<RunningTask> {
        for _ in 0..MAX_READS {
            let before = (self.started(), self.ended(), self.current.task());
            // ORDERING: Acquire pairs with the Release in `CurrentTask`. A reader that sees another
            // task's timestamp or, through the lock, its call site, also sees no task, or a later
            // one, and reads again. If the same task is back by then, a task that ran on top of it
            // has been counted as ended.
            let since = self.current.since();
            let site = self.current.call_site();
            if before != (self.started(), self.ended(), self.current.task()) {
                continue;
            }
            let id = TaskId(before.2.checked_sub(1)?);
            let (CallSite { location, label }, since) = (site?, self.epoch.instant(since?));
            return Some(RunningTask { worker: self.worker, id, location, label, since });
        }
        None
    }

    #[inline]
    fn count(&self, outcome: TaskOutcome, tasks: u64) {
        let counter = match outcome {
            TaskOutcome::Succeeded => &self.succeeded,
            TaskOutcome::Failed => &self.failed,
            TaskOutcome::Panicked => &self.panicked,
            TaskOutcome::Cancelled(_) => &self.cancelled,
        };
        self.add(counter, tasks);
    }

    #[inline]
    fn add(&self, counter: &AtomicU64, tasks: u64) {
        // ORDERING: Release pairs with the Acquire loads of the getters.
        match self.sharing {
            Sharing::Exclusive => counter.store(counter.load(Ordering::Relaxed) + tasks, Ordering::Release),
            Sharing::Shared => {
                counter.fetch_add(tasks, Ordering::Release);
            }
        }
    }
}
