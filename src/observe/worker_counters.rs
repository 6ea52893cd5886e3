//! What one worker, or all other threads together, have counted; and what that worker is doing.
//!
//! A worker writes here with each task it runs, and nobody else does; so it pays for plain stores into lines that stay
//! in its cache. Two things would cost more than a short task, and are done less often:
//!
//! 1. The *site* of a task, where it was submitted and under what label, lies behind a lock. The worker takes the lock
//!    only for a task whose site differs from that of the task before.
//! 2. The *clock* is read for each task, but a worker whose tasks have lately been short reads it for one in so many
//!    (see `pace`). So since when a task is running may be the time of one of the few short ones before it.
//!
//! A task may *lend* its worker to others, which run on the same stack until it goes on. Its site is kept aside only if one
//! of them shows another: `shows_lender` says whether the site that is shown is the innermost lender's.
//!
//! | step | `shows_lender` | kept aside |
//! |---|---|---|
//! | a task lends | set; what it was is left with the frame that runs the others | – |
//! | a task with another site starts | if set: cleared | the lender's site |
//! | a lender goes on | as the frame says | if cleared: its site is shown again |

use std::mem;
use std::panic::Location;

use super::coarse_clock::Pace;
use super::metrics::{Histogram, HistogramCounter};
use super::observer::{RunningTask, TaskId, TaskInfo, TaskOutcome};
use crate::error::CancelReason;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::time::clock::{Clock, Moment};

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
pub(crate) struct WorkerCounters {
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
    /// Where tasks come from: this one and those below it.
    sites: Mutex<Sites>,
    /// Where the parts of the site that is shown lie, by which the worker tells sites apart without the lock.
    site_addresses: [AtomicUsize; 2],
    /// Whether the site that is shown is needed when a lender goes on. Only the worker uses it.
    shows_lender: AtomicBool,
}

/// The sites that a worker knows of.
#[derive(Default)]
struct Sites {
    /// That of the task that runs or, if there is none, of the last.
    shown: Option<Site>,
    /// Those of tasks that have lent their worker, the innermost last, as far as another has taken their place.
    lenders: Vec<Option<Site>>,
}

/// Where tasks come from.
#[derive(Clone)]
struct Site {
    location: &'static Location<'static>,
    label: Option<Arc<str>>,
}

/// A task under way, to be handed to [`WorkerCounters::end`].
#[must_use = "what was started is ended"]
pub(crate) struct Started {
    /// When it started, if durations are recorded.
    at: Option<Moment>,
}

/// A task that has lent its worker to others, to be handed to [`WorkerCounters::take_back`].
#[must_use = "what was lent is taken back"]
pub(crate) struct Lent {
    /// Its id, plus one; zero if there is none.
    task: u64,
    /// The word of the moment it started.
    since: u64,
    /// What [`Current::shows_lender`] was before.
    showed_lender: bool,
}

impl WorkerCounters {
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
        if self.is_of_worker() {
            self.current.begin(task, at.unwrap_or_else(|| self.pace.now(&self.clock)));
        }
        Started { at }
    }

    /// Counts the end of a task.
    #[inline]
    pub(crate) fn end(&self, Started { at }: Started, outcome: TaskOutcome) {
        self.count(outcome, 1);
        if let (Some(times), Some(at)) = (&self.times, at) {
            times.run_time.record(self.clock.now().since(at));
        }
        if self.is_of_worker() {
            self.current.finish();
        }
    }

    /// Counts the end of an attempt after which the task is queued again.
    #[cfg(feature = "retry")]
    pub(crate) fn suspend(&self, _: Started) {
        self.add(&self.suspended, 1);
        if self.is_of_worker() {
            self.current.finish();
        }
    }

    /// The task that the worker runs, if any, waits while the worker runs others on the same stack.
    pub(crate) fn lend(&self) -> Lent {
        self.current.lend()
    }

    /// The worker goes on with the task it ran before.
    pub(crate) fn take_back(&self, lent: Lent) {
        self.current.take_back(lent);
    }

    /// Counts tasks that were cancelled.
    pub(crate) fn count_cancelled(&self, reason: CancelReason, tasks: u64) {
        self.count(TaskOutcome::Cancelled(reason), tasks);
    }

    /// Counts tasks whose owners have been told.
    #[inline]
    pub(crate) fn settle(&self, tasks: u64) {
        self.add(&self.settled, tasks);
    }

    /// The worker has waited for work: the last reading of the clock is old.
    pub(crate) fn has_rested(&self) {
        self.pace.rest();
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
            let site = self.current.sites.lock().shown.clone();
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
        match self.writers {
            Writers::One => counter.store(counter.load(Ordering::Relaxed) + tasks, Ordering::Release),
            Writers::Many => {
                counter.fetch_add(tasks, Ordering::Release);
            }
        }
    }
}

impl Current {
    /// Shows a task that starts.
    #[inline]
    fn begin(&self, task: &TaskInfo<'_>, since: Moment) {
        // The lender, if there is one, is not shown while the other's site may be.
        self.task.store(0, Ordering::Relaxed);
        if self.site_addresses() != Site::addresses(task.location, task.label) {
            self.show_site(Site { location: task.location, label: task.label.cloned() });
        }
        // ORDERING: Release, after the end of the task before, or the zero above; see `WorkerCounters::running`.
        self.since.store(since.word(), Ordering::Release);
        self.task.store(task.id.0 + 1, Ordering::Release);
    }

    /// Shows that the task has ended.
    #[inline]
    fn finish(&self) {
        self.task.store(0, Ordering::Release);
    }

    #[inline]
    fn lend(&self) -> Lent {
        let showed_lender = self.shows_lender.load(Ordering::Relaxed);
        self.shows_lender.store(true, Ordering::Relaxed);
        Lent { task: self.task.load(Ordering::Relaxed), since: self.since.load(Ordering::Relaxed), showed_lender }
    }

    /// Shows again what was shown when the worker was lent.
    #[inline]
    fn take_back(&self, Lent { task, since, showed_lender }: Lent) {
        if !self.shows_lender.load(Ordering::Relaxed) {
            self.show_lender();
        }
        self.shows_lender.store(showed_lender, Ordering::Relaxed);
        self.since.store(since, Ordering::Release);
        self.task.store(task, Ordering::Release);
    }

    #[inline]
    fn site_addresses(&self) -> [usize; 2] {
        self.site_addresses.each_ref().map(|address| address.load(Ordering::Relaxed))
    }

    /// Shows a site, and keeps the one before if a lender needs it.
    #[cold]
    fn show_site(&self, site: Site) {
        self.note_addresses(Some(&site));
        let mut sites = self.sites.lock();
        let mut before = sites.shown.replace(site);
        if self.shows_lender.load(Ordering::Relaxed) {
            sites.lenders.push(before.take());
        }
        drop((sites, before)); // in this order: the site outside of the lock
        self.shows_lender.store(false, Ordering::Relaxed);
    }

    /// Shows the site of the innermost lender.
    #[cold]
    fn show_lender(&self) {
        let mut sites = self.sites.lock();
        let lender = sites.lenders.pop().flatten();
        self.note_addresses(lender.as_ref());
        let before = mem::replace(&mut sites.shown, lender);
        drop((sites, before)); // in this order: the site outside of the lock
    }

    fn note_addresses(&self, site: Option<&Site>) {
        let addresses = site.map_or([0; 2], |site| Site::addresses(site.location, site.label.as_ref()));
        for (place, address) in self.site_addresses.iter().zip(addresses) {
            place.store(address, Ordering::Relaxed);
        }
    }
}

impl Site {
    /// Tells sites apart; zero is the address of nothing. The site that is shown keeps its label alive, so that no
    /// other can take its address.
    #[inline]
    fn addresses(location: &'static Location<'static>, label: Option<&Arc<str>>) -> [usize; 2] {
        [std::ptr::from_ref(location).addr(), label.map_or(0, |label| Arc::as_ptr(label).addr())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lender_is_shown_again_whatever_ran_on_its_stack() {
        let here = Location::caller();
        let labels: [Arc<str>; 2] = ["inner".into(), "innermost".into()];
        let outer = TaskInfo { id: TaskId(0), location: here, label: None };
        let inner = TaskInfo { id: TaskId(1), location: here, label: Some(&labels[0]) };
        let innermost = TaskInfo { id: TaskId(2), location: here, label: Some(&labels[1]) };
        let record = WorkerCounters::new(0, Writers::One, Clock::new(), false);
        let shown = || record.running().map(|task| (task.id.0, task.label));
        // The second inner task shows the site of the first; after it nothing is shown until the lender goes on.
        for sites in [[outer, outer], [inner, inner], [inner, innermost], [outer, inner]] {
            let below = record.start(&outer, None);
            let lent = record.lend();
            for site in sites {
                let above = record.start(&site, None);
                assert_eq!(shown(), Some((site.id.0, site.label.cloned())));
                record.take_back(record.lend());
                let lent = record.lend();
                let top = record.start(&innermost, None);
                assert_eq!(shown(), Some((2, Some(labels[1].clone()))));
                record.end(top, TaskOutcome::Succeeded);
                record.take_back(lent);
                assert_eq!(shown(), Some((site.id.0, site.label.cloned())));
                record.end(above, TaskOutcome::Succeeded);
                assert_eq!(shown(), None);
            }
            record.take_back(lent);
            assert_eq!(shown(), Some((0, None)));
            record.end(below, TaskOutcome::Succeeded);
            assert_eq!(record.current.sites.lock().lenders.len(), 0);
            assert!(!record.current.shows_lender.load(Ordering::Relaxed));
        }
    }
}
