//! Counts the tasks of a pool, from admission to the last step, and waits until none is left.
//!
//! # Counting
//!
//! 1. Every task is admitted before any other thread can find it. Admission is one atomic add,
//!    which also tells whether the pool is closed. Nothing is admitted after the pool has been
//!    closed.
//! 2. An admitted task is counted as done once. That happens after its outcome has been handed
//!    over, or when its submission is withdrawn because there was no room. So `done <= admitted`
//!    holds at any time. While a future waits for room, its task is withdrawn, because the future
//!    may never be polled again. Each attempt admits it again.
//! 3. The pool is idle when both are equal. It is enough to read `done` first and `admitted`
//!    second: `done` only grows, so if an earlier value of it equals a later value of `admitted`,
//!    both were equal at the second reading.
//! 4. Each worker counts on cache lines of its own. All other threads share one set of counters.
//!
//! # Phases
//!
//! | phase | meaning | next |
//! |---|---|---|
//! | open | tasks are admitted | closed, by [`close`](TaskTracker::close) |
//! | closed | nothing is admitted; admitted tasks still run | drained, when the last admitted task is done |
//! | drained | the workers are told to leave | – |
//!
//! "Cancelling" is a flag beside the phases. `shutdown_now` sets it, and from then on a task that
//! would start is cancelled.
//!
//! # Races
//!
//! - *A report and a wait that it ends*: see `report`.
//! - *The last task is done and a thread waits*: the thread is woken. A thread that may have
//!   completed the last task calls [`check_idle`](TaskTracker::check_idle): a worker before it
//!   parks or leaves (not after each task), any other thread at once. A check and a waiter each
//!   make one read-modify-write of the same atomic, so the later of the two sees what the earlier
//!   one did. Either the check finds the waiter, or the waiter finds the pool idle.
//! - *Two checks, each after one of the last two tasks*: the same holds, so the later check finds
//!   the pool idle.
//! - *The last task is done and a future is polled*: a future counts as a waiter from when its
//!   waker is stored until the waker is taken or removed. So the first case holds for it too.

use std::task::Waker;
use std::time::Instant;

use super::report::{Reported, Reports};
use super::wakers::{WakerKey, Wakers};
use crate::observe::histogram::Histogram;
use crate::observe::metrics::Metrics;
use crate::observe::task_info::{RunningTask, TaskId};
use crate::observe::worker_counters::{Sharing, WorkerCounters};
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, CachePadded, Condvar, Mutex, OnceLock, Ordering, RwLock};
use crate::time::clock::{Epoch, Timestamp};
use crate::time::deadline::Deadline;
use crate::unwind;

/// The lowest bit of the admission word: nothing is admitted any more. The bits above count
/// admissions.
const CLOSED: u64 = 1;
/// One admission.
const ADMISSION: u64 = 2;

/// The task counts and the phase of one pool.
pub(crate) struct TaskTracker {
    /// The number of admitted tasks, and whether admission is closed.
    admission: CachePadded<AtomicU64>,
    /// Admissions that were withdrawn, for good or while a future waits.
    withdrawn: CachePadded<AtomicU64>,
    /// Withdrawals that were not refusals, because a future waits. A statistic: relaxed.
    suspended: AtomicU64,
    /// Admissions of tasks that had been admitted before. A statistic: relaxed.
    readmitted: AtomicU64,
    /// Submissions that were refused without being admitted. A statistic: relaxed.
    refused: AtomicU64,
    /// Hooks that panicked. A statistic: relaxed.
    hooks_panicked: AtomicU64,
    /// Hooks that were not called because too many were nested. A statistic: relaxed.
    hooks_skipped: AtomicU64,
    /// The counters of all threads that are not workers.
    external: WorkerCounters,
    /// The counters of the workers, as many as ever ran at the same time. A new worker takes over
    /// those of a worker that has left.
    workers: RwLock<Vec<Arc<WorkerCounters>>>,
    epoch: Epoch,
    /// Whether durations are recorded.
    timing: bool,
    /// The number of threads that wait for the pool to be idle. Checks and waiters synchronize on
    /// this word.
    waiters: CachePadded<AtomicUsize>,
    /// Held between a waiter's check and its sleep, so that it misses no notification.
    waiting: Mutex<()>,
    /// Notified when the pool is found idle while there are waiters.
    idle: Condvar,
    /// The futures that wait for the pool to be idle. Each counts as a waiter.
    wakers: Mutex<Wakers>,
    /// Whether a task that would start is cancelled instead.
    cancelling: AtomicBool,
    /// Whether the last phase has been reached.
    drained: AtomicBool,
    /// What the reports about the end of the pool have said.
    reports: Reports,
    /// Tells the workers to leave. Set once, when the pool is created.
    on_drained: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl TaskTracker {
    pub(crate) fn new(timing: bool) -> Self {
        let epoch = Epoch::new();
        Self {
            admission: CachePadded::default(),
            withdrawn: CachePadded::default(),
            suspended: AtomicU64::new(0),
            readmitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            hooks_panicked: AtomicU64::new(0),
            hooks_skipped: AtomicU64::new(0),
            external: WorkerCounters::new(usize::MAX, Sharing::Shared, epoch, timing),
            workers: RwLock::new(Vec::new()),
            epoch,
            timing,
            waiters: CachePadded::default(),
            waiting: Mutex::new(()),
            idle: Condvar::new(),
            wakers: Mutex::default(),
            cancelling: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            reports: Reports::default(),
            on_drained: OnceLock::new(),
        }
    }

    /// Sets the function that tells the workers of a drained pool to leave. It may be called more
    /// than once.
    pub(crate) fn on_drained(&self, tell_workers: impl Fn() + Send + Sync + 'static) {
        let first = self.on_drained.set(Box::new(tell_workers)).is_ok();
        assert!(first, "a pool is created once");
    }

    /// Returns the time, if durations are recorded.
    #[inline]
    pub(crate) fn now_if_timing(&self) -> Option<Timestamp> {
        self.timing.then(|| self.epoch.now())
    }

    /// Returns the moment of a timestamp.
    pub(crate) fn instant(&self, timestamp: Timestamp) -> Instant {
        self.epoch.instant(timestamp)
    }
}

/// # Admission
impl TaskTracker {
    /// Admits a task; `None` if the pool is closed.
    #[inline]
    pub(crate) fn admit(&self) -> Option<TaskId> {
        if self.is_closed() {
            self.count_refused();
            return None;
        }
        self.count_admission()
    }

    /// Adds an admission, and withdraws it if the pool is closed.
    #[inline]
    fn count_admission(&self) -> Option<TaskId> {
        // ORDERING: the modification order of this word says whether the admission or `close` came
        // first. The Release half pairs with the Acquire of `is_idle`; see rule 3.
        let before = self.admission.0.fetch_add(ADMISSION, Ordering::AcqRel);
        if before & CLOSED != 0 {
            // Closed in between. The count cannot be taken back (rule 3 needs it to grow), so the
            // task is withdrawn.
            self.withdraw();
            return None;
        }
        Some(TaskId(before / ADMISSION))
    }

    /// Counts an admitted task as withdrawn, because there was no room for it.
    pub(crate) fn withdraw(&self) {
        // ORDERING: Release pairs with the Acquire of `is_idle`.
        self.withdrawn.0.fetch_add(1, Ordering::Release);
    }

    /// Withdraws an admitted task while its future waits for room. It still counts as submitted.
    pub(crate) fn suspend(&self) {
        self.suspended.fetch_add(1, Ordering::Relaxed);
        self.withdraw();
    }

    /// Admits a suspended task again. Returns `false` if the pool is closed; it stays suspended.
    pub(crate) fn readmit(&self) -> bool {
        self.readmitted.fetch_add(1, Ordering::Relaxed);
        let is_open = self.count_admission().is_some();
        if !is_open {
            self.suspended.fetch_add(1, Ordering::Relaxed); // for the new withdrawal
        }
        is_open
    }

    /// Counts a suspended task as refused.
    pub(crate) fn refuse_suspended(&self) {
        self.suspended.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a submission that was refused before it was admitted.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Admits nothing from now on.
    pub(crate) fn close(&self) {
        // ORDERING: see `admit`.
        self.admission.0.fetch_or(CLOSED, Ordering::AcqRel);
        self.check_idle();
    }

    /// Returns `true` if nothing is admitted any more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `close`.
        self.admission.0.load(Ordering::Acquire) & CLOSED != 0
    }
}

/// # The end of tasks
impl TaskTracker {
    /// Counts `tasks` tasks as done: their outcomes have been handed over. The last step of a task.
    #[inline]
    pub(crate) fn task_done(&self, counters: &WorkerCounters, tasks: u64) {
        counters.count_completed(tasks);
        // A worker checks before it parks.
        if !counters.belongs_to_worker() {
            self.check_idle();
        }
    }

    /// Returns `true` if every admitted task is done.
    pub(crate) fn is_idle(&self) -> bool {
        // ORDERING: the Acquire loads, those of the counters included, pair with the Releases of
        // `WorkerCounters::count_completed` and `withdraw`. A task that is done was admitted
        // before, so the admission word, read last, includes it.
        let done = self.sum(WorkerCounters::completed);
        let withdrawn = self.withdrawn.0.load(Ordering::Acquire);
        done + withdrawn == self.admission.0.load(Ordering::Acquire) / ADMISSION
    }

    /// If the pool is idle, wakes the threads that wait for that, and tells the workers of a closed
    /// pool to leave.
    pub(crate) fn check_idle(&self) {
        // ORDERING: the read-modify-write of the races above; AcqRel both ways, with
        // `wait_idle_unless` and with other checks.
        let waiters = self.waiters.0.fetch_add(0, Ordering::AcqRel);
        let closed = self.is_closed();
        if (waiters == 0 && !closed) || !self.is_idle() {
            return;
        }
        if waiters > 0 {
            drop(self.waiting.lock());
            self.idle.notify_all();
            self.wake_futures();
        }
        if closed {
            // ORDERING: Release pairs with the Acquire of `is_drained`. Telling the workers takes a
            // lock under which they check it too.
            self.drained.store(true, Ordering::Release);
            if let Some(tell_workers) = self.on_drained.get() {
                tell_workers();
            }
        }
    }

    /// Blocks until the pool is idle or the deadline has passed. Returns `true` if it is idle. Also
    /// returns if `is_called` is `true` after [`wake_waiters`](Self::wake_waiters).
    pub(crate) fn wait_idle_unless(&self, is_called: impl Fn() -> bool, deadline: Deadline) -> bool {
        // ORDERING: the read-modify-write of the races above.
        self.waiters.0.fetch_add(1, Ordering::AcqRel);
        let mut is_idle = false;
        drop(self.idle.wait_while(self.waiting.lock(), deadline, |()| {
            is_idle = self.is_idle();
            !is_idle && !is_called()
        }));
        self.waiters.0.fetch_sub(1, Ordering::AcqRel);
        is_idle
    }

    /// Returns `true` if the pool is idle. Otherwise stores the waker, to be woken when it is.
    pub(crate) fn poll_idle(&self, key: WakerKey, waker: &Waker) -> bool {
        if self.is_idle() {
            return true;
        }
        let waker = waker.clone();
        let mut wakers = self.wakers.lock();
        let old = wakers.set(key, waker);
        if old.is_none() {
            // ORDERING: the read-modify-write of the races above.
            self.waiters.0.fetch_add(1, Ordering::AcqRel);
        }
        drop(wakers);
        unwind::discard(old);
        self.is_idle()
    }

    /// Removes the waker of a future that no longer waits.
    pub(crate) fn stop_polling(&self, key: WakerKey) {
        let mut wakers = self.wakers.lock();
        let waker = wakers.remove(key);
        if waker.is_some() {
            self.waiters.0.fetch_sub(1, Ordering::AcqRel);
        }
        drop(wakers);
        unwind::discard(waker);
    }

    /// Wakes the futures that wait for the pool to be idle.
    fn wake_futures(&self) {
        let mut wakers = self.wakers.lock();
        let taken = wakers.take();
        self.waiters.0.fetch_sub(taken.len(), Ordering::AcqRel);
        drop(wakers);
        taken.wake();
    }

    /// Blocks until `is_over` returns `true` after [`wake_waiters`](Self::wake_waiters). Returns
    /// `false` at once if waits are nested too deep.
    #[cfg(feature = "driver")]
    pub(crate) fn wait_until(&self, is_over: impl Fn() -> bool) -> bool {
        let may_sleep = is_over() || crate::nesting::call_pending();
        if may_sleep {
            drop(self.idle.wait_while(self.waiting.lock(), Deadline::NEVER, |()| !is_over()));
        }
        may_sleep
    }

    /// Wakes the threads that wait for the pool to be idle, so that they check whether they were
    /// called.
    pub(crate) fn wake_waiters(&self) {
        // A waiter has checked before this and sleeps, or checks after it.
        drop(self.waiting.lock());
        self.idle.notify_all();
    }
}

/// # The end of the pool
impl TaskTracker {
    /// Cancels every task that would start from now on.
    pub(crate) fn start_cancelling(&self) {
        // ORDERING: Release pairs with the Acquire of `is_cancelling`. A worker that misses it
        // starts one more task.
        self.cancelling.store(true, Ordering::Release);
    }

    /// Returns `true` if a task that would start is to be cancelled.
    pub(crate) fn is_cancelling(&self) -> bool {
        self.cancelling.load(Ordering::Acquire)
    }

    /// Returns `true` if the pool is drained, so that its workers leave.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Raises what was reported.
    pub(crate) fn report(&self, reported: Reported) {
        self.reports.raise(reported);
    }

    /// Returns `true` if `reported` or more has been reported.
    pub(crate) fn has_reported(&self, reported: Reported) -> bool {
        self.reports.include(reported)
    }
}

/// # Counters and metrics
impl TaskTracker {
    /// Returns the counters of the threads that are not workers.
    pub(crate) fn external(&self) -> &WorkerCounters {
        &self.external
    }

    /// Creates the counters of one more worker.
    pub(crate) fn register_worker(&self) -> Arc<WorkerCounters> {
        let mut workers = self.workers.write();
        let counters = Arc::new(WorkerCounters::new(workers.len(), Sharing::Exclusive, self.epoch, self.timing));
        workers.push(Arc::clone(&counters));
        counters
    }

    /// Counts a hook that panicked.
    pub(crate) fn count_hook_panic(&self) {
        self.hooks_panicked.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a hook that was not called.
    pub(crate) fn count_skipped_hook(&self) {
        self.hooks_skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what the workers are running.
    pub(crate) fn running(&self) -> Vec<RunningTask> {
        self.workers.read().iter().filter_map(|counters| counters.running()).collect()
    }

    /// Returns the metrics that are counted here; the others are zero.
    pub(crate) fn snapshot(&self) -> Metrics {
        let mut metrics = Metrics {
            // Ends are read before starts and starts before admissions, so that no difference below
            // is negative.
            tasks_succeeded: self.sum(WorkerCounters::succeeded),
            tasks_failed: self.sum(WorkerCounters::failed),
            tasks_panicked: self.sum(WorkerCounters::panicked),
            tasks_cancelled: self.sum(WorkerCounters::cancelled),
            hooks_panicked: self.hooks_panicked.load(Ordering::Relaxed),
            hooks_skipped: self.hooks_skipped.load(Ordering::Relaxed),
            ..Metrics::default()
        };
        let ended = metrics.tasks_succeeded + metrics.tasks_failed + metrics.tasks_panicked;
        let not_running = ended + self.sum(WorkerCounters::suspended);
        metrics.tasks_running = self.sum(WorkerCounters::started).saturating_sub(not_running);
        let withdrawn = self.withdrawn.0.load(Ordering::Acquire);
        let refused = withdrawn.saturating_sub(self.suspended.load(Ordering::Relaxed));
        metrics.tasks_refused = self.refused.load(Ordering::Relaxed) + refused;
        let readmitted = self.readmitted.load(Ordering::Relaxed);
        let admitted = self.admission.0.load(Ordering::Acquire) / ADMISSION;
        metrics.tasks_submitted = admitted.saturating_sub(readmitted + refused);
        let not_queued = ended + metrics.tasks_cancelled + metrics.tasks_running;
        metrics.tasks_queued = metrics.tasks_submitted.saturating_sub(not_queued);
        if self.timing {
            let (mut queue_wait, mut run_time) = (Histogram::default(), Histogram::default());
            self.external.add_durations_to(&mut queue_wait, &mut run_time);
            for counters in &*self.workers.read() {
                counters.add_durations_to(&mut queue_wait, &mut run_time);
            }
            (metrics.queue_wait, metrics.run_time) = (Some(queue_wait), Some(run_time));
        }
        metrics
    }

    /// Returns the sum of one counter over all threads.
    fn sum(&self, counter: impl Fn(&WorkerCounters) -> u64) -> u64 {
        let workers: u64 = self.workers.read().iter().map(|counters| counter(counters)).sum();
        workers + counter(&self.external)
    }
}
