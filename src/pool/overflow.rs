//! What a pool does when its queue is full, as users set it. `submit` carries it out.

/// The policy of the plain forms (`execute`, `spawn`) for a full queue.
///
/// | policy | the new job | the caller | suitable if |
/// |---|---|---|---|
/// | `Block` | waits for room | is blocked | producers can be slowed down |
/// | `CallerRuns` | runs at once, on the caller's thread | does the work | producers can be slowed down and should help |
/// | `DiscardOldest` | takes the place of the oldest queued job | continues | only the newest data matters |
/// | `DiscardNewest` | is dropped | continues | losing work is better than waiting |
///
/// "Full" and "oldest" refer to one [class](crate::Priority) of tasks: each has a queue of its own.
///
/// A discarded task counts as accepted. Its outcome is
/// [`CancelReason::Discarded`](crate::CancelReason::Discarded). Tasks of groups are never
/// discarded, because groups have a [capacity](crate::TaskGroup::capacity) of their own.
///
/// `CallerRuns` runs at most 16 jobs nested in each other. Beyond that the caller blocks.
///
/// The destructor of a discarded closure may submit a job, which may discard another one. That is
/// nested at most 16 deep. Jobs that are submitted at a greater depth are queued beyond the queue's
/// capacity.
///
/// A worker of the pool itself never blocks under `Block`. It runs the job at once, or queues it
/// beyond the capacity if it already runs 16 jobs nested in each other.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
/// use workcrew::{CancelReason, JoinError, Overflow, WorkerPool};
///
/// let builder = WorkerPool::builder().workers(1).queue_capacity(1);
/// let pool = builder.overflow(Overflow::DiscardOldest).build()?;
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
    /// Block until there is room.
    #[default]
    Block,
    /// Run the job on the submitting thread.
    CallerRuns,
    /// Cancel the oldest queued job.
    DiscardOldest,
    /// Cancel the new job.
    DiscardNewest,
}
