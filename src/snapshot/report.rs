//! The snapshot itself.

use super::entries::{Page, QueueSnapshot, TimerSnapshot, WaitSnapshot, WorkerSnapshot};
use super::holders::{GroupSnapshot, KeyedSnapshot, SubscriptionSnapshot};
use super::in_flight::{DriverSnapshot, JobWorkerSnapshot};
use super::verdict::Verdict;
use crate::sync::Arc;

/// What a pool does at about one time. Returned by
/// [`WorkerPool::snapshot`](crate::WorkerPool::snapshot).
///
/// `Display` writes a table for people, the [verdicts](Self::verdicts) first.
/// [`to_json`](Self::to_json) returns the same for programs.
///
/// It is not one instant. The parts are copied one after the other while the pool works, so a task
/// that moves meanwhile may be in two places or in none. What has not moved for a second is shown
/// as it is.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let (started, start) = channel();
/// let (open, gate) = channel::<()>();
/// pool.execute(move || { started.send(()).unwrap(); gate.recv().unwrap() })?;
/// start.recv()?;
/// pool.execute(|| ())?;
/// let snapshot = pool.snapshot();
/// let running = snapshot.workers[0].task.as_ref().unwrap();
/// assert!(running.location.file().ends_with(".rs"));
/// assert_eq!((snapshot.queues[0].len, snapshot.tasks_queued), (1, 1));
/// assert!(snapshot.to_string().contains("worker 0"));
/// assert!(snapshot.to_json().starts_with("{\"version\":1,"));
/// open.send(())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The name of the pool: its [`thread_name`](crate::WorkerPoolBuilder::thread_name).
    pub pool: Arc<str>,
    /// Whether the pool refuses new tasks.
    pub is_shut_down: bool,
    /// Tasks that were submitted and have not started. Those of groups, of keyed executors and of
    /// timers are among them.
    pub tasks_queued: u64,
    /// Tasks that are running.
    pub tasks_running: u64,
    /// What stands out: what is stuck, and what has not moved for a second.
    pub verdicts: Vec<Verdict>,
    /// The workers, by their indices.
    pub workers: Vec<WorkerSnapshot>,
    /// The queue of each [class](crate::Priority) that the pool has seen.
    pub queues: Vec<QueueSnapshot>,
    /// The waits of threads other than the pool's workers, for something of the pool. The longest
    /// come first. The waits of the pool's own futures are those of [`drivers`](Self::drivers).
    pub waits: Page<WaitSnapshot>,
    /// The groups and scopes with tasks that are not done. Those with the most waiting tasks come
    /// first.
    pub groups: Page<GroupSnapshot>,
    /// The keyed executors with tasks that are not done. Those with the most waiting tasks come
    /// first.
    pub keyed: Page<KeyedSnapshot>,
    /// The subscriptions of event buses that have events. Those with the most waiting events come
    /// first.
    pub subscriptions: Page<SubscriptionSnapshot>,
    /// The drivers and the callers of gRPC that have futures in flight. Those with the most come
    /// first.
    pub drivers: Page<DriverSnapshot>,
    /// The runs of workers of NATS on the pool. Those with the most jobs in flight come first.
    pub job_workers: Page<JobWorkerSnapshot>,
    /// What waits for its time. What is due first comes first.
    pub timers: Page<TimerSnapshot>,
}
