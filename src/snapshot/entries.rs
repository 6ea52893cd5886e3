//! The entries of a snapshot: workers, queues, waits and timers.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::error::{CycleTarget, CycleTask, CycleWait, TaskId};
use crate::priority::Priority;
use crate::sync::{self, Arc};

/// The largest number of entries of a [`Page`].
pub(crate) const PAGE: usize = 16;

/// The number of some entries, and at most 16 of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page<T> {
    /// How many entries there are.
    pub total: usize,
    /// Some of them; the field of the snapshot says which.
    pub entries: Vec<T>,
}

/// A task of a snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskSnapshot {
    /// The identity of the task, unique within its pool.
    pub id: TaskId,
    /// The label of the task: that of its builder, group, scope, subscription, driver or caller.
    pub label: Option<Arc<str>>,
    /// The place where the task was submitted.
    pub location: &'static Location<'static>,
    /// How long a running task has run, and a waiting task has waited. `None` if that is not
    /// recorded: waiting is recorded by [`timing`](crate::WorkerPoolBuilder::timing).
    pub age: Option<Duration>,
}

/// A worker of a snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// The index of the worker, as in its thread's name.
    pub index: usize,
    /// The task that it runs: the innermost, if it runs tasks within a wait. `None` if the worker
    /// is idle.
    ///
    /// The [`age`](TaskSnapshot::age) may include a few short tasks before it.
    pub task: Option<TaskSnapshot>,
    /// What the task waits for, if it sleeps in a wait of this crate.
    pub wait: Option<WaitSnapshot>,
}

/// A wait of a thread: what it waits for, and what that waits for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WaitSnapshot {
    /// The name of the thread; `None` if it has no name, and for a worker of the pool.
    pub thread: Option<String>,
    /// The task that waits; `None` if the thread runs no task.
    pub task: Option<CycleTask>,
    /// What it waits for.
    pub target: CycleTarget,
    /// The waits of other tasks that must end first, as far as the crate knows them: the target
    /// needs the task of the first one, and so on.
    pub then: Vec<CycleWait>,
    /// The worker that runs the last target, if that is a task which does not wait.
    pub runs_on: Option<usize>,
    /// Whether the last of these waits needs the first one, or one in between.
    pub is_cycle: bool,
    /// Whether one of the waits of such a cycle is that of a future, which may also wait for
    /// something else.
    pub is_suspected: bool,
    /// Whether such a cycle needs a place at a driver whose places are all taken.
    pub needs_place: bool,
    /// Whether the wait has a time limit.
    pub is_timed: bool,
    /// How long the thread has slept.
    pub age: Duration,
}

/// The queue of one class of tasks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueSnapshot {
    /// The class.
    pub priority: Priority,
    /// How many places of the bounded queue are taken.
    pub len: usize,
    /// Its capacity.
    pub capacity: usize,
    /// The number of entries beside the bounded queue: due timers, and tickets, by which groups,
    /// keyed executors and subscriptions ask for a worker.
    pub tickets: usize,
    /// The number of submitters that wait for room, threads and futures together.
    pub submitters: usize,
}

/// Something that waits for its time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimerSnapshot {
    /// What waits.
    pub kind: TimerKind,
    /// The task, if it has its identity already.
    pub task: Option<TaskId>,
    /// The label of the task.
    pub label: Option<Arc<str>>,
    /// The place where the task or the timer was submitted, if the timer knows it.
    pub location: Option<&'static Location<'static>>,
    /// How long until it is due; zero if it is due now, and `None` for never.
    pub due_in: Option<Duration>,
}

/// What waits for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerKind {
    /// A task that starts later.
    Delayed,
    /// A periodic timer.
    Periodic,
    /// The next attempt of a task, or of a delivery.
    Retry,
    /// A batch of events that waits for more of them.
    Batch,
    /// Anything else.
    Other,
}

impl<T> Page<T> {
    /// Returns a page without entries.
    pub(crate) const fn new() -> Self {
        Self { total: 0, entries: Vec::new() }
    }

    /// Counts an entry, and keeps it if there is room.
    pub(crate) fn push(&mut self, entry: impl FnOnce() -> T) {
        self.total += 1;
        if self.entries.len() < PAGE {
            self.entries.push(entry());
        }
    }

    /// Counts an entry, and keeps it if it is among those with the highest `rank`.
    pub(crate) fn push_by_rank<R: Ord>(&mut self, entry: T, rank: impl Fn(&T) -> R) {
        self.total += 1;
        let place = self.entries.partition_point(|kept| rank(kept) >= rank(&entry));
        if place < PAGE {
            self.entries.truncate(PAGE - 1);
            self.entries.insert(place, entry);
        }
    }
}

impl Page<WaitSnapshot> {
    /// Counts a wait, and keeps it if it is among the longest.
    pub(crate) fn push_oldest(&mut self, wait: WaitSnapshot) {
        self.push_by_rank(wait, |wait| wait.age);
    }

    /// Adds the waits of another page.
    pub(crate) fn merge(&mut self, other: Self) {
        let total = self.total + other.total;
        other.entries.into_iter().for_each(|wait| self.push_oldest(wait));
        self.total = total;
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskSnapshot {
    pub(crate) fn new(
        id: TaskId,
        label: Option<&Arc<str>>,
        location: &'static Location<'static>,
        age: Option<Duration>,
    ) -> Self {
        Self { id, label: label.cloned(), location, age }
    }
}

impl TimerSnapshot {
    /// Returns a timer that knows its kind only.
    pub(crate) fn of_kind(kind: TimerKind) -> Self {
        Self { kind, task: None, label: None, location: None, due_in: None }
    }

    /// Sets the label.
    #[cfg(feature = "events")]
    pub(crate) fn label(self, label: Option<&Arc<str>>) -> Self {
        Self { label: label.cloned(), ..self }
    }

    /// Returns the timer of a task.
    pub(crate) fn of_task(
        kind: TimerKind,
        task: TaskId,
        label: Option<&Arc<str>>,
        location: &'static Location<'static>,
    ) -> Self {
        Self { task: Some(task), label: label.cloned(), location: Some(location), ..Self::of_kind(kind) }
    }
}

impl WaitSnapshot {
    /// Returns the wait without what its target needs.
    pub(crate) fn new(task: Option<CycleTask>, target: CycleTarget, since: Instant) -> Self {
        Self {
            thread: None,
            task,
            target,
            then: Vec::new(),
            runs_on: None,
            is_cycle: false,
            is_suspected: false,
            needs_place: false,
            is_timed: false,
            age: self::since(since),
        }
    }

    /// Returns the last target that is known.
    pub(crate) fn last_target(&self) -> &CycleTarget {
        self.then.last().map_or(&self.target, |wait| &wait.target)
    }
}

/// Returns the time from `then` to now; zero if it lies ahead.
pub(crate) fn since(then: Instant) -> Duration {
    sync::now().saturating_duration_since(then)
}
