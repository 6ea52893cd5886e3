//! What one worker, or all other threads together, have counted; and what that worker is doing.
//!
//! A worker writes here with each task it runs, and nobody else does; so it pays for plain stores into lines that stay
//! in its cache. Two things would cost more than a short task, and are done less often:
//!
//! 1. The *site* of a task, where it was submitted and under what label, lies behind a lock. The worker takes the lock
//!    only for a task whose site differs from that of the task before.
//! 2. The *clock* is read for each task, but a worker whose tasks have lately taken less than [`SHORT`] reads it for
//!    one in so many, up to [`LONGEST_STRIDE`]. So since when a task is running may be the time of one of the few
//!    short ones before it.

use std::panic::Location;

use crate::clock::{Clock, Moment};
use crate::error::CancelReason;
use crate::metrics::{Histogram, HistogramCounter};
use crate::observer::{Outcome, RunningTask, TaskId, TaskInfo};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};
use std::time::Duration;

/// Tasks that take less do not have the clock read for each.
const SHORT: Duration = Duration::from_micros(1);
/// The most tasks for which the clock is read once.
const LONGEST_STRIDE: u64 = 16;
/// How often a reader looks again while the worker goes from task to task.
const LOOKS: usize = 100;

/// How many threads write into a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// The worker it belongs to: plain loads and stores are enough.
    One,
    /// Any thread.
    Many,
}

/// What one worker, or all other threads together, have counted.
#[repr(align(128))]
pub(crate) struct Record {
    started: AtomicU64,
    /// Starts that were followed by no end, since the task is to be tried again.
    suspended: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    cancelled: AtomicU64,
    /// Tasks whose owner has been told. The figure that decides whether the pool is quiet; the others are for
    /// `metrics`.
    settled: AtomicU64,
    writers: Writers,
    /// The index of the worker.
    worker: usize,
    clock: Clock,
    /// Durations, if they are recorded.
    times: Option<Box<Times>>,
    /// What the worker is doing. Unused in the record of the other threads.
    current: Current,
    pace: Pace,
}

/// The durations a record keeps.
struct Times {
    queue_wait: HistogramCounter,
    run_time: HistogramCounter,
}

/// The task that a worker is running.
#[derive(Default)]
struct Current {
    /// Its id, plus one; zero if there is none.
    task: AtomicU64,
    /// The word of the moment it started.
    since: AtomicU64,
    /// The site of this task or, if there is none, of the last.
    site: Mutex<Option<Site>>,
    /// Where the parts of `site` lie, by which the worker tells sites apart without the lock.
    site_addresses: [AtomicUsize; 2],
}

/// Where tasks come from.
#[derive(Clone)]
struct Site {
    location: &'static Location<'static>,
    label: Option<Arc<str>>,
}

/// How often a worker reads the clock. Only the worker uses it.
#[derive(Default)]
struct Pace {
    /// The word of the last moment that was read; zero if there is none.
    last: AtomicU64,
    /// For how many tasks that reading counts.
    stride: AtomicU64,
    /// How many of them are still to come.
    left: AtomicU64,
}

/// A task under way, to be handed to [`Record::end`].
#[must_use = "what was started is ended"]
pub(crate) struct Started {
    /// When it started, if durations are recorded.
    at: Option<Moment>,
    /// The task that waits below it on the same stack.
    below: Option<Below>,
}

/// A task that has lent its worker to another.
struct Below {
    task: u64,
    since: u64,
    /// Where it comes from, unless the other comes from there as well.
    site: Option<Site>,
}

impl Record {
    pub(crate) fn new(worker: usize, writers: Writers, clock: Clock, timing: bool) -> Self {
        let times = || Box::new(Times { queue_wait: HistogramCounter::new(), run_time: HistogramCounter::new() });
        Self {
            started: AtomicU64::new(0),
            suspended: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            writers,
            worker,
            clock,
            times: timing.then(times),
            current: Current::default(),
            pace: Pace::default(),
        }
    }

    /// The index of the worker it belongs to.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// Whether it belongs to a worker.
    #[inline]
    pub(crate) fn is_of_worker(&self) -> bool {
        self.writers == Writers::One
    }

    /// Counts a task that starts now, having been queued at `queued_at`.
    #[inline]
    pub(crate) fn start(&self, task: &TaskInfo<'_>, queued_at: Option<Moment>) -> Started {
        self.add(&self.started, 1);
        let at = self.times.as_ref().map(|times| {
            let now = self.clock.now();
            if let Some(queued_at) = queued_at {
                times.queue_wait.record(now.since(queued_at));
            }
            now
        });
        let below = match self.writers {
            Writers::One => self.current.begin(task, at.unwrap_or_else(|| self.pace.now(&self.clock))),
            Writers::Many => None,
        };
        Started { at, below }
    }

    /// Counts the end of a task.
    #[inline]
    pub(crate) fn end(&self, started: Started, outcome: Outcome) {
        self.count(outcome, 1);
        if let (Some(times), Some(at)) = (&self.times, started.at) {
            times.run_time.record(self.clock.now().since(at));
        }
        if self.is_of_worker() {
            self.current.finish(started.below);
        }
    }

    /// Counts the end of an attempt after which the task is queued again.
    #[cfg(feature = "retry")]
    pub(crate) fn suspend(&self, started: Started) {
        self.add(&self.suspended, 1);
        if self.is_of_worker() {
            self.current.finish(started.below);
        }
    }

    /// Counts tasks that were cancelled.
    pub(crate) fn count_cancelled(&self, reason: CancelReason, tasks: u64) {
        self.count(Outcome::Cancelled(reason), tasks);
    }

    /// Counts tasks whose owners have been told.
    #[inline]
    pub(crate) fn settle(&self, tasks: u64) {
        self.add(&self.settled, tasks);
    }

    /// The worker has waited for work: the last reading of the clock is old.
    pub(crate) fn has_rested(&self) {
        self.pace.left.store(0, Ordering::Relaxed);
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

    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// How many starts were followed by an end.
    fn ended(&self) -> u64 {
        self.suspended() + self.succeeded() + self.failed() + self.panicked()
    }

    /// Adds the durations that were recorded here to the histograms.
    pub(crate) fn add_times_to(&self, queue_wait: &mut Histogram, run_time: &mut Histogram) {
        if let Some(times) = &self.times {
            times.queue_wait.add_to(queue_wait);
            times.run_time.add_to(run_time);
        }
    }

    /// What the worker is doing; out of date when it arrives. A worker that goes from task to task faster than this can
    /// look counts as doing nothing.
    pub(crate) fn running(&self) -> Option<RunningTask> {
        for _ in 0..LOOKS {
            let before = (self.started(), self.ended(), self.current.task.load(Ordering::Acquire));
            // ORDERING: Acquire pairs with the Release in `Current`: who sees another task's moment or, through the lock,
            // its site, sees no task as well, or a later one, and looks again. Should the same task be back by then, one
            // that ran on top of it has been counted as ended.
            let since = Moment::from_word(self.current.since.load(Ordering::Acquire));
            let site = self.current.site.lock().clone();
            if before != (self.started(), self.ended(), self.current.task.load(Ordering::Acquire)) {
                continue;
            }
            let id = TaskId(before.2.checked_sub(1)?);
            let (Site { location, label }, since) = (site?, self.clock.instant(since?));
            return Some(RunningTask { worker: self.worker, id, location, label, since });
        }
        None
    }

    #[inline]
    fn count(&self, outcome: Outcome, tasks: u64) {
        let counter = match outcome {
            Outcome::Succeeded => &self.succeeded,
            Outcome::Failed => &self.failed,
            Outcome::Panicked => &self.panicked,
            Outcome::Cancelled(_) => &self.cancelled,
        };
        self.add(counter, tasks);
    }

    #[inline]
    fn add(&self, counter: &AtomicU64, tasks: u64) {
        // ORDERING: Release pairs with the Acquire loads of the getters.
        match self.writers {
            Writers::One => counter.store(counter.load(Ordering::Relaxed) + tasks, Ordering::Release),
            Writers::Many => {
                counter.fetch_add(tasks, Ordering::Release);
            }
        }
    }
}

impl Current {
    /// Shows a task that starts; returns the one that lends its worker.
    #[inline]
    fn begin(&self, task: &TaskInfo<'_>, since: Moment) -> Option<Below> {
        let below = self.task.load(Ordering::Relaxed);
        if below > 0 {
            self.task.store(0, Ordering::Relaxed);
        }
        // ORDERING: the Release of `since`, and the lock of the site, come after the zero; see `Record::running`.
        let addresses = Site::addresses(task.location, task.label);
        let is_elsewhere = self.site_addresses() != addresses;
        let before = is_elsewhere.then(|| self.swap_site(addresses, Site::of(task))).flatten();
        let below = (below > 0).then(|| Below { task: below, since: self.since.load(Ordering::Relaxed), site: before });
        self.since.store(since.word(), Ordering::Release);
        self.task.store(task.id.0 + 1, Ordering::Release);
        below
    }

    /// Shows again what was shown before, or nothing.
    #[inline]
    fn finish(&self, below: Option<Below>) {
        let Some(Below { task, since, site }) = below else {
            self.task.store(0, Ordering::Release);
            return;
        };
        self.task.store(0, Ordering::Relaxed);
        if let Some(site) = site {
            drop(self.swap_site(Site::addresses(site.location, site.label.as_ref()), site));
        }
        self.since.store(since, Ordering::Release);
        self.task.store(task, Ordering::Release);
    }

    #[inline]
    fn site_addresses(&self) -> [usize; 2] {
        self.site_addresses.each_ref().map(|address| address.load(Ordering::Relaxed))
    }

    fn swap_site(&self, addresses: [usize; 2], site: Site) -> Option<Site> {
        for (place, address) in self.site_addresses.iter().zip(addresses) {
            place.store(address, Ordering::Relaxed);
        }
        self.site.lock().replace(site)
    }
}

impl Site {
    fn of(task: &TaskInfo<'_>) -> Self {
        Self { location: task.location, label: task.label.cloned() }
    }

    /// Tells sites apart; zero is the address of nothing. The site that is shown keeps its label alive, so that no
    /// other can take its address.
    #[inline]
    fn addresses(location: &'static Location<'static>, label: Option<&Arc<str>>) -> [usize; 2] {
        [std::ptr::from_ref(location).addr(), label.map_or(0, |label| Arc::as_ptr(label).addr())]
    }
}

impl Pace {
    /// A moment that is not later than now, and not long ago.
    #[inline]
    fn now(&self, clock: &Clock) -> Moment {
        let left = self.left.load(Ordering::Relaxed);
        let last = Moment::from_word(self.last.load(Ordering::Relaxed));
        if let (Some(last), Some(left)) = (last, left.checked_sub(1)) {
            self.left.store(left, Ordering::Relaxed);
            return last;
        }
        let now = clock.now();
        let stride = self.stride.load(Ordering::Relaxed).max(1);
        let were_short = last.is_some_and(|last| now.since(last) < SHORT * stride as u32);
        let stride = if were_short { LONGEST_STRIDE.min(2 * stride) } else { 1 };
        self.last.store(now.word(), Ordering::Relaxed);
        self.stride.store(stride, Ordering::Relaxed);
        self.left.store(stride - 1, Ordering::Relaxed);
        now
    }
}
