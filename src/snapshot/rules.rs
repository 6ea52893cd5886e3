//! Finds the verdicts of a snapshot.
//!
//! | kind | found if | cause |
//! |---|---|---|
//! | `Deadlock` | waits need each other | certain |
//! | `SuspectedCircle` | waits need each other for long, and one of them is that of a future | suspected |
//! | `DriverLimit` | the places of a driver are taken, and the futures that have them need one more, for long | suspected |
//! | `HeldUp` | a task runs for long and does not wait in this crate, and a wait needs it | suspected |
//! | `GroupLimit` | a group is at its limit, its tasks run for long, and others wait for the limit | suspected |
//! | `KeyBusy` | a task of a key runs for long, and others of the key wait | certain |
//! | `MailboxFull` | a mailbox is full, and its handler runs for long | certain |
//! | `QueueFull` | a submitter has waited for long for room in a full queue | certain |
//! | `WorkersWait` | every worker has slept in a wait for long | certain |
//! | `WorkersBusy` | every worker has run the same task for long, and more tasks wait | certain |
//! | `LongTask` | a task runs for longer than the limit that its label has | certain |
//!
//! A cause is suspected if it is outside of the crate, such as a lock of the user. The rules look
//! at the copy only, and know no time but the ages in it. A group without a label knows its running
//! tasks by their place of submission.

use std::fmt::{self, Write};
use std::time::Duration;

use super::entries::{QueueSnapshot, TaskSnapshot, WaitSnapshot, WorkerSnapshot};
use super::holders::{GroupSnapshot, KeyedSnapshot, SubscriptionSnapshot};
use super::in_flight::DriverSnapshot;
use super::report::Snapshot;
use super::text::{Counted, Seconds};
use super::verdict::{Verdict, VerdictKind};
use crate::error::{CycleKind, Escaped};
use crate::sync::Arc;

/// The time from which a snapshot finds that something does not move.
const LONG: Duration = Duration::from_secs(1);
/// The number of tasks that one verdict names.
const MAX_NAMED: usize = 4;

/// How long is too long.
pub(crate) struct Limits<'a> {
    /// For tasks without an entry below, and for waits.
    pub(crate) default: Duration,
    /// By the labels of tasks.
    pub(crate) labels: &'a [(Arc<str>, Duration)],
}

impl Limits<'_> {
    /// The limits of a snapshot that is taken by hand.
    pub(crate) const DEFAULT: Self = Self { default: LONG, labels: &[] };

    /// Returns how long is too long for a task.
    fn of(&self, task: &TaskSnapshot) -> Duration {
        self.of_label(task.label.as_deref()).unwrap_or(self.default)
    }

    /// Returns the limit that this label has.
    fn of_label(&self, label: Option<&str>) -> Option<Duration> {
        let limits = self.labels.iter().filter(|(name, _)| Some(&**name) == label);
        limits.map(|(_, limit)| *limit).next_back()
    }

    /// Returns how long a task has run, if that is too long.
    fn exceeded(&self, task: &TaskSnapshot) -> Option<Duration> {
        task.age.filter(|age| *age >= self.of(task))
    }
}

impl Snapshot {
    /// Returns the verdicts about what has not moved for `time`. For those in the field
    /// [`verdicts`](Self::verdicts) it is one second.
    ///
    /// Waits that need each other are found after any time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let snapshot = pool.snapshot();
    /// assert!(snapshot.verdicts.is_empty()); // the pool is idle
    /// assert!(snapshot.verdicts_after(Duration::ZERO).is_empty());
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[must_use]
    pub fn verdicts_after(&self, time: Duration) -> Vec<Verdict> {
        self.verdicts_by(&Limits { default: time, labels: &[] })
    }

    pub(crate) fn verdicts_by(&self, limits: &Limits<'_>) -> Vec<Verdict> {
        let mut found: Vec<Verdict> = self.deadlock().into_iter().collect();
        let full = self.drivers.entries.iter().filter_map(|driver| driver_limit(driver, limits.default));
        found.extend(full);
        found.extend(self.suspected_circle(limits.default));
        found.extend(self.workers.iter().filter_map(|worker| self.held_up(worker, limits)));
        found.extend(self.groups.entries.iter().filter_map(|group| self.group_limit(group, limits)));
        found.extend(self.keyed.entries.iter().flat_map(|keyed| self.busy_keys(keyed, limits)));
        found.extend(self.subscriptions.entries.iter().filter_map(|full| self.full_mailbox(full, limits)));
        found.extend(self.queues.iter().filter_map(|queue| self.full_queue(queue, limits.default)));
        found.extend(self.workers_wait(limits.default));
        found.extend(self.workers_busy(limits));
        found.extend(self.workers.iter().filter_map(|worker| long_task(worker, limits)));
        found
    }

    /// Sets the verdicts.
    pub(crate) fn judge(mut self, limits: &Limits<'_>) -> Self {
        self.verdicts = self.verdicts_by(limits);
        self
    }

    /// Returns all waits that are shown.
    fn all_waits(&self) -> impl Iterator<Item = &WaitSnapshot> {
        let of_workers = self.workers.iter().filter_map(|worker| worker.wait.as_ref());
        let futures = self.drivers.entries.iter().flat_map(|driver| &driver.futures.entries);
        of_workers.chain(&self.waits.entries).chain(futures.flat_map(|future| &future.waits))
    }

    fn deadlock(&self) -> Option<Verdict> {
        let wait = self.all_waits().find(|wait| wait.is_cycle && !wait.is_timed && !wait.is_suspected)?;
        let message = format!("waits need each other, and none of them can end: {} {wait}", wait.waiter());
        Some(Verdict::new(VerdictKind::Deadlock, wait.age, message))
    }

    /// Finds waits that need each other through a future, which may wait for something else, too.
    fn suspected_circle(&self, limit: Duration) -> Option<Verdict> {
        let is_meant = |wait: &&WaitSnapshot| wait.is_cycle && wait.is_suspected && !wait.needs_place;
        let wait = self.all_waits().filter(is_meant).find(|wait| wait.age >= limit)?;
        let message = format!(
            "suspected circle: {} {wait}; it ends only if a future in it waits for something else, too",
            wait.waiter()
        );
        Some(Verdict::suspected(VerdictKind::SuspectedCircle, wait.age, message))
    }

    /// Finds the waits that need the task of a worker.
    fn held_up(&self, worker: &WorkerSnapshot, limits: &Limits<'_>) -> Option<Verdict> {
        let task = worker.task.as_ref().filter(|_| worker.wait.is_none())?;
        let age = limits.exceeded(task)?;
        let waits = || self.all_waits().filter(|wait| wait.runs_on == Some(worker.index));
        let first = waits().find(|wait| wait.task.is_some()).or_else(|| waits().next())?;
        let mut message = format!(
            "{} has run on worker {} for {}, and {} waits for it",
            task.name(),
            worker.index,
            Seconds(age),
            first.waiter(),
        );
        match waits().count() {
            1 => {}
            waits => {
                let _ = write!(message, ", with {}", Counted(waits - 1, "other wait"));
            }
        }
        let Some(holder) = &first.task else { return Some(Verdict::new(VerdictKind::HeldUp, age, message)) };
        let _ = write!(message, "; it may need a lock or a channel that task {} holds", holder.id);
        Some(Verdict::suspected(VerdictKind::HeldUp, age, message))
    }

    fn group_limit(&self, group: &GroupSnapshot, limits: &Limits<'_>) -> Option<Verdict> {
        let limit = group.limit.filter(|limit| group.running >= *limit && group.waiting > 0)?;
        let is_member = |task: &TaskSnapshot| match (&group.label, &group.oldest) {
            (Some(label), _) => task.label.as_ref() == Some(label),
            (None, Some(oldest)) => task.label.is_none() && task.location == oldest.location,
            (None, None) => false,
        };
        let members = self.running(is_member);
        let age = youngest(&members, limits).filter(|_| members.len() >= limit)?;
        let name =
            group.label.as_ref().map_or_else(|| "a group".to_owned(), |label| format!("group `{}`", Escaped(label)));
        let message = format!(
            "the limit of {name} ({limit}) is held for {} by {}; {} for the limit, and a running task that needs one \
             of those never ends",
            Seconds(age),
            named(&members),
            Waiting(group.waiting as u64),
        );
        Some(Verdict::suspected(VerdictKind::GroupLimit, age, message))
    }

    fn busy_keys(&self, keyed: &KeyedSnapshot, limits: &Limits<'_>) -> Vec<Verdict> {
        let busy = keyed.running.entries.iter().filter(|key| key.waiting > 0).filter_map(|key| {
            let members = self.running(|task| task.id == key.task);
            let age = youngest(&members, limits)?;
            let label = quoted(key.label.as_ref());
            let message = format!(
                "a key{label} is busy for {} with {}, and {} for it",
                Seconds(age),
                named(&members),
                Waiting(key.waiting as u64),
            );
            Some(Verdict::new(VerdictKind::KeyBusy, age, message))
        });
        busy.collect()
    }

    fn full_mailbox(&self, mailbox: &SubscriptionSnapshot, limits: &Limits<'_>) -> Option<Verdict> {
        if !mailbox.is_full() || mailbox.running == 0 {
            return None;
        }
        let members = self.running(|task| task.label.as_ref() == Some(&mailbox.name));
        let age = youngest(&members, limits)?;
        let mut message = format!(
            "mailbox `{}` is full ({} of {}), and its handler has run for {}: {}",
            Escaped(&mailbox.name),
            mailbox.waiting + mailbox.delayed,
            mailbox.capacity,
            Seconds(age),
            named(&members),
        );
        if mailbox.publishers > 0 {
            let _ = write!(message, "; waiting for room: {}", Counted(mailbox.publishers, "publisher"));
        }
        Some(Verdict::new(VerdictKind::MailboxFull, age, message))
    }

    fn full_queue(&self, queue: &QueueSnapshot, limit: Duration) -> Option<Verdict> {
        let waits = self.all_waits().filter(|wait| wait.target.kind == CycleKind::QueueRoom);
        let age = waits.map(|wait| wait.age).max().filter(|age| *age >= limit)?;
        if queue.len < queue.capacity || queue.submitters == 0 {
            return None;
        }
        let (name, capacity) = (queue.name(), queue.capacity);
        let submitters = Counted(queue.submitters, "submitter");
        let message = format!(
            "queue `{name}` is full ({capacity} of {capacity}), and the first wait for room has lasted {}; waiting: \
             {submitters}",
            Seconds(age),
        );
        Some(Verdict::new(VerdictKind::QueueFull, age, message))
    }

    fn workers_wait(&self, limit: Duration) -> Option<Verdict> {
        let waits: Option<Vec<&WaitSnapshot>> = self.workers.iter().map(|worker| worker.wait.as_ref()).collect();
        let age = waits?.into_iter().map(|wait| wait.age).min().filter(|age| *age >= limit)?;
        let workers: Vec<&WorkerSnapshot> = self.workers.iter().collect();
        let message = format!("every worker has waited for {}: {}", Seconds(age), named(&workers));
        Some(Verdict::new(VerdictKind::WorkersWait, age, message))
    }

    fn workers_busy(&self, limits: &Limits<'_>) -> Option<Verdict> {
        let is_needed = self.tasks_queued > 0 || self.queues.iter().any(|queue| queue.submitters > 0);
        let workers: Vec<&WorkerSnapshot> = self.workers.iter().collect();
        let is_running = workers.iter().any(|worker| worker.wait.is_none());
        let age = youngest(&workers, limits).filter(|_| is_needed && is_running)?;
        let message = format!(
            "every worker has run the same task for {}, and {} for a worker: {}",
            Seconds(age),
            Waiting(self.tasks_queued),
            named(&workers),
        );
        Some(Verdict::new(VerdictKind::WorkersBusy, age, message))
    }

    /// Returns the workers that run such a task.
    fn running(&self, is_meant: impl Fn(&TaskSnapshot) -> bool) -> Vec<&WorkerSnapshot> {
        self.workers.iter().filter(|worker| worker.task.as_ref().is_some_and(&is_meant)).collect()
    }
}

/// Returns a label in quotes, after a space; nothing if there is none.
fn quoted(label: Option<&Arc<str>>) -> String {
    label.map_or_else(String::new, |label| format!(" `{}`", Escaped(label)))
}

/// Finds a driver whose places are held by futures that need one more place.
fn driver_limit(driver: &DriverSnapshot, limit: Duration) -> Option<Verdict> {
    let held = driver.futures.entries.iter().filter_map(|future| {
        let wait = future.waits.iter().find(|wait| wait.is_suspected && wait.needs_place && wait.age >= limit)?;
        Some((&future.task, wait))
    });
    let held: Vec<(&TaskSnapshot, &WaitSnapshot)> = held.collect();
    let age = held.iter().map(|(_, wait)| wait.age).min()?;
    let mut message = format!(
        "suspected circle: the limit of driver{} ({}) is held for {} by ",
        quoted(driver.label.as_ref()),
        driver.max_in_flight,
        Seconds(age),
    );
    for (at, (task, wait)) in held.iter().take(MAX_NAMED).enumerate() {
        let _ = write!(message, "{}{}, which waits for {}", if at == 0 { "" } else { ", " }, task.name(), wait.target);
    }
    match driver.in_flight.saturating_sub(held.len().min(MAX_NAMED)) {
        0 => {}
        more => {
            let _ = write!(message, ", and {more} more");
        }
    }
    message.push_str("; each of them needs a task that waits for a place");
    Some(Verdict::suspected(VerdictKind::DriverLimit, age, message))
}

/// Finds a task that runs for longer than the limit of its label.
fn long_task(worker: &WorkerSnapshot, limits: &Limits<'_>) -> Option<Verdict> {
    let task = worker.task.as_ref()?;
    let limit = limits.of_label(task.label.as_deref())?;
    let age = limits.exceeded(task)?;
    let message = format!(
        "{} has run on worker {} for {}, and the limit of its label is {}",
        task.name(),
        worker.index,
        Seconds(age),
        Seconds(limit),
    );
    Some(Verdict::new(VerdictKind::LongTask, age, message))
}

/// Returns the age of the youngest task, if each worker has one and all of them run for long.
fn youngest(workers: &[&WorkerSnapshot], limits: &Limits<'_>) -> Option<Duration> {
    let ages = workers.iter().map(|worker| limits.exceeded(worker.task.as_ref()?));
    ages.collect::<Option<Vec<Duration>>>()?.into_iter().min()
}

/// Names the tasks of some workers.
fn named(workers: &[&WorkerSnapshot]) -> String {
    let mut text = String::new();
    for (at, worker) in workers.iter().take(MAX_NAMED).enumerate() {
        let task = worker.task.as_ref().map(|task| task.name().to_string()).unwrap_or_default();
        let _ = write!(text, "{}{task} on worker {}", if at == 0 { "" } else { ", " }, worker.index);
        if let Some(wait) = &worker.wait {
            let _ = write!(text, ", which {wait}");
        }
    }
    match workers.len().saturating_sub(MAX_NAMED) {
        0 => {}
        more => {
            let _ = write!(text, ", and {more} more");
        }
    }
    text
}

/// A number of tasks that wait.
struct Waiting(u64);

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 task waits"),
            tasks => write!(f, "{tasks} tasks wait"),
        }
    }
}
