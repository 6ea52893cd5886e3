//! The metrics of a pool.

use std::fmt;

use super::histogram::Histogram;

/// A snapshot of a pool's counters. Returned by
/// [`WorkerPool::metrics`](crate::WorkerPool::metrics).
///
/// The counters are read one after the other while the pool works. If no task starts, ends or is
/// submitted, `submitted = succeeded + failed + panicked + cancelled + queued + running`.
///
/// # Examples
///
/// ```
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// for _ in 0..10 {
///     pool.execute(|| ())?;
/// }
/// pool.wait_idle();
/// let metrics = pool.metrics();
/// assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded), (10, 10));
/// assert_eq!(metrics.tasks_queued, 0);
/// println!("{metrics}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Tasks accepted since the pool was built.
    pub tasks_submitted: u64,
    /// Tasks that ran and returned.
    pub tasks_succeeded: u64,
    /// Tasks that ended with an error. This applies to tasks of groups and scopes, retried tasks
    /// that gave up, deliveries of events and remote calls.
    pub tasks_failed: u64,
    /// Tasks that ran and panicked.
    pub tasks_panicked: u64,
    /// Tasks that were accepted and cancelled: closures that never ran, retried tasks that had
    /// no further attempt, and futures that were dropped before they were ready.
    pub tasks_cancelled: u64,
    /// Submissions whose closure was returned, closures that a group dropped because the pool was
    /// closed, and events that a subscription refused.
    pub tasks_refused: u64,
    /// Tasks accepted and not started, including tasks that wait for a delay or for another
    /// attempt.
    pub tasks_queued: u64,
    /// Tasks running now, including tasks that wait while their worker runs another task.
    pub tasks_running: u64,
    /// Hooks, observer calls and wrappers of contexts that panicked, and destructors of the values
    /// of a [`WorkerLocal`](crate::WorkerLocal).
    pub hooks_panicked: u64,
    /// Calls of hooks and observers that were skipped because hooks called each other more than 16
    /// deep: on one stack, or by events that the hooks of a bus published.
    pub hooks_skipped: u64,
    /// The number of workers, or the new number while a resize is in progress.
    pub workers: usize,
    /// The capacity of the queue in jobs.
    pub queue_capacity: usize,
    /// Jobs in the queue of the class [`Normal`](crate::Priority::Normal), as
    /// [`queue_len`](crate::WorkerPool::queue_len) counts them.
    pub queue_len: usize,
    /// Jobs in the queue of the class [`High`](crate::Priority::High).
    pub queue_len_high: usize,
    /// Jobs in the queue of the class [`Background`](crate::Priority::Background).
    pub queue_len_background: usize,
    /// Pending timers: delayed tasks, tasks between two attempts (both also count as queued), and
    /// periodic timers between two runs.
    pub timers_pending: usize,
    /// The time from submission to start; only with
    /// [`WorkerPoolBuilder::timing`](crate::WorkerPoolBuilder::timing).
    pub queue_wait: Option<Histogram>,
    /// The time from start to end; only with
    /// [`WorkerPoolBuilder::timing`](crate::WorkerPoolBuilder::timing).
    pub run_time: Option<Histogram>,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} submitted: {} succeeded, {} failed, {} panicked, {} cancelled, {} queued, {} running; {} refused; \
             workers: {}, queue: {}",
            self.tasks_submitted,
            self.tasks_succeeded,
            self.tasks_failed,
            self.tasks_panicked,
            self.tasks_cancelled,
            self.tasks_queued,
            self.tasks_running,
            self.tasks_refused,
            self.workers,
            self.queue_capacity
        )?;
        for (name, histogram) in [("queue wait", &self.queue_wait), ("run time", &self.run_time)] {
            if let Some(histogram) = histogram {
                write!(f, "; {name} {histogram}")?;
            }
        }
        Ok(())
    }
}
