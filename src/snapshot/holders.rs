//! The entries of a snapshot that hold tasks of their own: groups, keyed executors, subscriptions.

use super::entries::{Page, TaskSnapshot};
use super::in_flight::{DriverSnapshot, JobWorkerSnapshot};
use crate::error::TaskId;
use crate::sync::Arc;

/// A group or a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// Its label.
    pub label: Option<Arc<str>>,
    /// How many of its tasks may run at once; `None` for no limit.
    pub limit: Option<usize>,
    /// How many threads run its tasks.
    pub running: usize,
    /// How many of its tasks have not started.
    pub waiting: usize,
    /// How many of its tasks may wait to start.
    pub capacity: usize,
    /// How many of its tasks wait for their next attempt.
    pub delayed: usize,
    /// The threads and futures that wait for room. All futures count as one.
    pub submitters: usize,
    /// Whether it starts no more tasks.
    pub is_closed: bool,
    /// The oldest of its tasks that have not started.
    pub oldest: Option<TaskSnapshot>,
}

/// A keyed executor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyedSnapshot {
    /// Its label.
    pub label: Option<Arc<str>>,
    /// How many of its tasks have not started.
    pub waiting: usize,
    /// How many of its tasks may wait to start.
    pub capacity: usize,
    /// How many tasks of one key may wait to start.
    pub capacity_per_key: usize,
    /// How many keys have tasks.
    pub keys: usize,
    /// How many of these keys could start a task if a worker was free.
    pub ready: usize,
    /// How many of these keys wait for the next attempt of their oldest task.
    pub delayed: usize,
    /// The threads and futures that wait for room.
    pub submitters: usize,
    /// The keys that run a task.
    pub running: Page<KeySnapshot>,
}

/// A key of a keyed executor, which runs a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeySnapshot {
    /// The label of the key, or that of the executor.
    pub label: Option<Arc<str>>,
    /// The task that it runs.
    pub task: TaskId,
    /// How many other tasks of the key wait for it.
    pub waiting: usize,
}

/// A subscription of an event bus, with its mailbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriptionSnapshot {
    /// Its name, which is the label of its deliveries.
    pub name: Arc<str>,
    /// Its topic.
    pub topic: Option<Arc<str>>,
    /// The type of its events.
    pub event: &'static str,
    /// How many events wait in the mailbox.
    pub waiting: usize,
    /// How many events wait for the next attempt of their handler. They take room, too.
    pub delayed: usize,
    /// How many events the mailbox may hold.
    pub capacity: usize,
    /// How many handlers may run at once; `None` for no limit.
    pub limit: Option<usize>,
    /// How many threads run its handler.
    pub running: usize,
    /// The threads and futures that wait for room.
    pub publishers: usize,
    /// Whether it starts no more deliveries.
    pub is_closed: bool,
}

/// What holds tasks of its own.
pub(crate) enum Holder {
    Group(GroupSnapshot),
    #[cfg_attr(not(feature = "events"), allow(dead_code, reason = "only buses have subscriptions"))]
    Subscription(SubscriptionSnapshot),
    Keyed(KeyedSnapshot),
    #[cfg_attr(not(feature = "driver"), allow(dead_code, reason = "only drivers have futures in flight"))]
    Driver(DriverSnapshot),
    #[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "only workers of NATS have jobs in flight"))]
    JobWorker(JobWorkerSnapshot),
}

/// The pages of what holds tasks of its own.
#[derive(Default)]
pub(crate) struct Holders {
    pub(crate) groups: Page<GroupSnapshot>,
    pub(crate) keyed: Page<KeyedSnapshot>,
    pub(crate) subscriptions: Page<SubscriptionSnapshot>,
    pub(crate) drivers: Page<DriverSnapshot>,
    pub(crate) job_workers: Page<JobWorkerSnapshot>,
}

impl Holders {
    /// Adds what has tasks.
    pub(crate) fn add(&mut self, holder: Holder) {
        match holder {
            Holder::Group(group) => {
                if group.running + group.waiting + group.delayed + group.submitters > 0 {
                    self.groups.push_by_rank(group, |group| group.waiting);
                }
            }
            Holder::Keyed(keyed) => {
                if keyed.keys + keyed.submitters > 0 {
                    self.keyed.push_by_rank(keyed, |keyed| keyed.waiting);
                }
            }
            Holder::Subscription(subscription) => {
                let SubscriptionSnapshot { running, waiting, delayed, publishers, .. } = subscription;
                if running + waiting + delayed + publishers > 0 {
                    self.subscriptions.push_by_rank(subscription, |subscription| subscription.waiting);
                }
            }
            Holder::Driver(driver) => {
                if driver.is_busy() {
                    self.drivers.push_by_rank(driver, |driver| driver.futures.total);
                }
            }
            Holder::JobWorker(worker) => self.job_workers.push_by_rank(worker, |worker| worker.in_flight),
        }
    }
}

impl GroupSnapshot {
    /// Returns why its waiting tasks do not run.
    pub(super) fn reason(&self) -> Option<String> {
        match self.limit {
            _ if self.waiting == 0 && self.delayed > 0 => Some("its tasks wait for their next attempt".to_owned()),
            _ if self.waiting == 0 => None,
            _ if self.is_closed => Some("it is closed".to_owned()),
            Some(limit) if self.running >= limit => Some(format!("group limit {}/{limit}", self.running)),
            _ => Some("no worker has taken them".to_owned()),
        }
    }
}

impl KeyedSnapshot {
    /// Returns why its waiting tasks do not run.
    pub(super) fn reason(&self) -> Option<String> {
        match self.running.total {
            _ if self.waiting == 0 && self.delayed > 0 => Some("its keys wait for their next attempt".to_owned()),
            _ if self.waiting == 0 => None,
            _ if self.ready > 0 => Some(format!("no worker has taken {} of its keys", self.ready)),
            0 => Some("its keys wait for their next attempt".to_owned()),
            1 => Some("1 key is busy".to_owned()),
            busy => Some(format!("{busy} keys are busy")),
        }
    }
}

impl SubscriptionSnapshot {
    /// Returns `true` if the mailbox is full.
    pub(super) fn is_full(&self) -> bool {
        self.waiting + self.delayed >= self.capacity
    }

    /// Returns why its waiting events are not handled.
    pub(super) fn reason(&self) -> Option<String> {
        match self.limit {
            _ if self.waiting == 0 && self.delayed > 0 => Some("its events wait for their next attempt".to_owned()),
            _ if self.waiting == 0 => None,
            _ if self.is_closed => Some("it is closed".to_owned()),
            Some(limit) if self.running >= limit => Some(format!("{}/{limit} handlers run", self.running)),
            _ if self.delayed > 0 => Some("an event waits for its next attempt".to_owned()),
            _ => Some("no worker has taken them".to_owned()),
        }
    }
}
