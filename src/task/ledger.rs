//! The books of a pool: what was admitted, what came of it.
//!
//! Rules:
//! 1. Every task is admitted before it can be found by anybody else: one atomic add, which also tells whether the pool
//!    is closed. Nothing is admitted after the closing.
//! 2. An admitted task is settled once: after it met its fate and its owner was told, or when its submission is
//!    withdrawn because there was no room. So at every moment `settled <= admitted`.
//! 3. The pool is quiet when both are equal. Reading settled first and admitted second cannot deceive: settled only
//!    grows, so if an older figure of it equals a newer one of admitted, they were equal at the second reading.
//! 4. Each worker counts on cache lines of its own; all other threads share one record.
//!
//! The ledger knows numbers only; who waits for them is `lifecycle`'s business.

use crate::observe::metrics::{Histogram, Metrics};
use crate::observe::task_info::{RunningTask, TaskId};
use crate::observe::worker_counters::{Sharing, WorkerCounters};
use crate::sync::{Arc, AtomicU64, CachePadded, Ordering, RwLock};
use crate::time::clock::{Epoch, Timestamp};

/// The lowest bit of the admission word: nothing is admitted any more. The bits above count admissions.
const CLOSED: u64 = 1;
/// One admission.
const ADMISSION: u64 = 2;

/// The books of one pool.
pub(crate) struct Ledger {
    /// How many tasks were admitted, and whether admission is closed.
    admission: CachePadded<AtomicU64>,
    /// Admitted tasks whose submission was withdrawn.
    withdrawn: CachePadded<AtomicU64>,
    /// Submissions that were turned away without being admitted. A statistic: relaxed.
    turned_away: AtomicU64,
    /// Hooks that panicked. A statistic: relaxed.
    hooks_panicked: AtomicU64,
    /// Hooks that were not called because too many were nested. A statistic: relaxed.
    hooks_skipped: AtomicU64,
    /// What threads that are no workers count.
    outside: WorkerCounters,
    /// One record for each worker there ever was at the same time; a new worker takes over that of one that left.
    records: RwLock<Vec<Arc<WorkerCounters>>>,
    epoch: Epoch,
    /// Whether durations are recorded.
    timing: bool,
}

impl Ledger {
    pub(crate) fn new(timing: bool) -> Self {
        let epoch = Epoch::new();
        Self {
            admission: CachePadded::default(),
            withdrawn: CachePadded::default(),
            turned_away: AtomicU64::new(0),
            hooks_panicked: AtomicU64::new(0),
            hooks_skipped: AtomicU64::new(0),
            outside: WorkerCounters::new(usize::MAX, Sharing::Shared, epoch, timing),
            records: RwLock::new(Vec::new()),
            epoch,
            timing,
        }
    }

    /// Admits a task, unless the books are closed.
    #[inline]
    pub(crate) fn admit(&self) -> Option<TaskId> {
        if self.is_closed() {
            self.turn_away();
            return None;
        }
        // ORDERING: one modification order for admissions and the closing settles who came first. The Release half
        // pairs with the Acquire of `is_quiet`; see rule 3.
        let before = self.admission.0.fetch_add(ADMISSION, Ordering::AcqRel);
        if before & CLOSED != 0 {
            // Closed in between. The count cannot be taken back (rule 3 needs it to grow), so it is withdrawn.
            self.withdraw();
            return None;
        }
        Some(TaskId(before / ADMISSION))
    }

    /// Takes a task out of the books that was admitted but found no room.
    pub(crate) fn withdraw(&self) {
        // ORDERING: Release pairs with the Acquire of `is_quiet`.
        self.withdrawn.0.fetch_add(1, Ordering::Release);
    }

    /// Counts a submission that did not get as far as being admitted.
    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_hook_panic(&self) {
        self.hooks_panicked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_skipped_hook(&self) {
        self.hooks_skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Admits nothing any more.
    pub(crate) fn close(&self) {
        // ORDERING: see `admit`.
        self.admission.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `close`.
        self.admission.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether every admitted task is settled.
    pub(crate) fn is_quiet(&self) -> bool {
        // ORDERING: the Acquire loads, those in the records included, pair with the Releases of `WorkerCounters::count_completed` and
        // `withdraw`: what was settled had been admitted before, so the admission word read afterwards includes it.
        let settled = self.sum(WorkerCounters::completed);
        let withdrawn = self.withdrawn.0.load(Ordering::Acquire);
        settled + withdrawn == self.admission.0.load(Ordering::Acquire) / ADMISSION
    }

    /// What time it is, if durations are recorded.
    #[inline]
    pub(crate) fn now_if_timing(&self) -> Option<Timestamp> {
        self.timing.then(|| self.epoch.now())
    }

    /// The record of the threads that are no workers.
    pub(crate) fn outside(&self) -> &WorkerCounters {
        &self.outside
    }

    /// Opens a record for one more worker.
    pub(crate) fn open_record(&self) -> Arc<WorkerCounters> {
        let mut records = self.records.write();
        let record = Arc::new(WorkerCounters::new(records.len(), Sharing::Exclusive, self.epoch, self.timing));
        records.push(Arc::clone(&record));
        record
    }

    /// What the workers are doing.
    pub(crate) fn running(&self) -> Vec<RunningTask> {
        self.records.read().iter().filter_map(|record| record.running()).collect()
    }

    /// The figures that the ledger knows; the others are left at zero.
    pub(crate) fn snapshot(&self) -> Metrics {
        let mut metrics = Metrics {
            // Ends before starts before admissions, so that no difference below is negative for want of a late reading.
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
        metrics.tasks_refused = self.turned_away.load(Ordering::Relaxed) + withdrawn;
        let admitted = self.admission.0.load(Ordering::Acquire) / ADMISSION;
        metrics.tasks_submitted = admitted.saturating_sub(withdrawn);
        let met = ended + metrics.tasks_cancelled + metrics.tasks_running;
        metrics.tasks_queued = metrics.tasks_submitted.saturating_sub(met);
        if self.timing {
            let (mut queue_wait, mut run_time) = (Histogram::default(), Histogram::default());
            self.outside.add_durations_to(&mut queue_wait, &mut run_time);
            for record in &*self.records.read() {
                record.add_durations_to(&mut queue_wait, &mut run_time);
            }
            (metrics.queue_wait, metrics.run_time) = (Some(queue_wait), Some(run_time));
        }
        metrics
    }

    /// The sum of one figure over all records.
    fn sum(&self, figure: impl Fn(&WorkerCounters) -> u64) -> u64 {
        let workers: u64 = self.records.read().iter().map(|record| figure(record)).sum();
        workers + figure(&self.outside)
    }
}
