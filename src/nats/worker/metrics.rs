//! Counters and histograms of a worker.

use std::fmt;
use std::time::Duration;

use crate::observe::histogram::{Histogram, HistogramCounter};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// A snapshot of the counters of a worker, over all its runs. From
/// [`Worker::metrics`](crate::nats::Worker::metrics).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// The slots of all current runs of this worker.
    pub slots: usize,
    /// Whether the worker is [paused](crate::nats::Worker::pause).
    pub is_paused: bool,
    /// Jobs that hold a slot: they were given to the pool, and the server has not confirmed their
    /// outcome.
    pub jobs_in_flight: usize,
    /// The largest number of such jobs at one time.
    pub jobs_in_flight_max: usize,
    /// Jobs that were not delivered to any worker of this name, as the server said with the last
    /// delivery here. May be stale if no job was delivered here since;
    /// [`Worker::status`](crate::nats::Worker::status) asks the server.
    pub jobs_pending: u64,
    /// Deliveries.
    pub jobs_delivered: u64,
    /// Deliveries of jobs that had been delivered before, here or elsewhere.
    pub jobs_redelivered: u64,
    /// Deliveries of jobs that were in flight here already, and that were not run again.
    pub jobs_duplicated: u64,
    /// Jobs done and confirmed.
    pub jobs_acked: u64,
    /// Jobs that failed and are to be delivered again, after a delay.
    pub jobs_retried: u64,
    /// Jobs returned without having run, in a drain.
    pub jobs_returned: u64,
    /// Deliveries of jobs whose [delay](crate::nats::NewJob::delay) was not over, returned for
    /// later.
    pub jobs_postponed: u64,
    /// Jobs that failed for good and are stored among the dead letters.
    pub jobs_dead: u64,
    /// Jobs that ran longer than [`stuck_after`](crate::nats::WorkerBuilder::stuck_after).
    pub jobs_stuck: u64,
    /// Outcomes that could not be sent to the server.
    pub outcomes_lost: u64,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// The time from a job's storing, or the end of its delay, to its confirmed end, by the
    /// server's clock.
    pub time_to_done: Histogram,
}

impl fmt::Display for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} slots in use{}, {} pending; {} delivered, {} of them again; {} acked, {} retried, {} dead, {} returned, \
             {} postponed; {} heartbeats; to done: {}",
            self.jobs_in_flight,
            self.slots,
            if self.is_paused { ", paused" } else { "" },
            self.jobs_pending,
            self.jobs_delivered,
            self.jobs_redelivered,
            self.jobs_acked,
            self.jobs_retried,
            self.jobs_dead,
            self.jobs_returned,
            self.jobs_postponed,
            self.heartbeats,
            self.time_to_done
        )
    }
}

/// The counters of a worker. They are statistics: relaxed, each on its own.
pub(crate) struct Counters {
    slots: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    pub(crate) pending: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) postponed: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) stuck: AtomicU64,
    pub(crate) lost: AtomicU64,
    heartbeats: AtomicU64,
    time_to_done: HistogramCounter,
}

impl Counters {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            slots: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
            pending: zero(),
            delivered: zero(),
            redelivered: zero(),
            duplicates: zero(),
            acked: zero(),
            retried: zero(),
            returned: zero(),
            postponed: zero(),
            dead: zero(),
            stuck: zero(),
            lost: zero(),
            heartbeats: zero(),
            time_to_done: HistogramCounter::new(),
        }
    }

    /// Changes the number of slots of a run.
    pub(crate) fn change_slots(&self, from: usize, to: usize) {
        self.slots.fetch_add(to, Ordering::Relaxed);
        self.slots.fetch_sub(from, Ordering::Relaxed);
    }

    /// Counts one more job that holds a slot.
    pub(crate) fn enter(&self) {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_max.fetch_max(now, Ordering::Relaxed);
    }

    /// Counts jobs that no longer hold a slot.
    pub(crate) fn leave(&self, jobs: usize) {
        self.in_flight.fetch_sub(jobs, Ordering::Relaxed);
    }

    pub(crate) fn note_heartbeats(&self, sent: usize) {
        self.heartbeats.fetch_add(sent as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_done(&self, age: Duration) {
        add(&self.acked);
        self.time_to_done.record(age);
    }

    pub(crate) fn snapshot(&self) -> WorkerMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut time_to_done = Histogram::default();
        self.time_to_done.add_to(&mut time_to_done);
        WorkerMetrics {
            slots: self.slots.load(Ordering::Relaxed),
            is_paused: false,
            jobs_in_flight: self.in_flight.load(Ordering::Relaxed),
            jobs_in_flight_max: self.in_flight_max.load(Ordering::Relaxed),
            jobs_pending: read(&self.pending),
            jobs_delivered: read(&self.delivered),
            jobs_redelivered: read(&self.redelivered),
            jobs_duplicated: read(&self.duplicates),
            jobs_acked: read(&self.acked),
            jobs_retried: read(&self.retried),
            jobs_returned: read(&self.returned),
            jobs_postponed: read(&self.postponed),
            jobs_dead: read(&self.dead),
            jobs_stuck: read(&self.stuck),
            outcomes_lost: read(&self.lost),
            heartbeats: read(&self.heartbeats),
            time_to_done,
        }
    }
}

/// Adds one to a counter.
pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
