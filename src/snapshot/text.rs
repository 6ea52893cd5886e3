//! Writes a snapshot as a table for people.

use std::fmt::{self, Display, Formatter};
use std::panic::Location;
use std::time::Duration;

use super::entries::{Page, QueueSnapshot, TaskSnapshot, TimerKind, TimerSnapshot, WaitSnapshot, WorkerSnapshot};
use super::holders::{GroupSnapshot, KeySnapshot, KeyedSnapshot, SubscriptionSnapshot};
use super::in_flight::{DriverKind, DriverSnapshot, JobWorkerSnapshot};
use super::report::Snapshot;
use crate::error::{CycleWait, Escaped, Named, TaskId};
use crate::priority::Priority;

impl Display for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { pool, tasks_queued, tasks_running, .. } = self;
        let workers = Counted(self.workers.len(), "worker");
        let pool = Escaped(pool);
        writeln!(f, "pool `{pool}`: {workers}, tasks queued: {tasks_queued}, running: {tasks_running}")?;
        if self.is_shut_down {
            writeln!(f, "it is shut down: it refuses new tasks")?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "{} {verdict}", if verdict.is_suspected { "?" } else { "!" })?;
        }
        self.workers.iter().try_for_each(|worker| writeln!(f, "  {worker}"))?;
        self.queues.iter().try_for_each(|queue| writeln!(f, "  {queue}"))?;
        self.waits.entries.iter().try_for_each(|wait| writeln!(f, "  {} {wait}", wait.waiter()))?;
        write_rest(f, &self.waits, "waits")?;
        write_page(f, &self.groups, "groups")?;
        write_page(f, &self.keyed, "keyed executors")?;
        write_page(f, &self.subscriptions, "subscriptions")?;
        write_page(f, &self.drivers, "drivers")?;
        write_page(f, &self.job_workers, "workers of NATS")?;
        write_page(f, &self.timers, "timers")
    }
}

fn write_page<T: Display>(f: &mut Formatter<'_>, page: &Page<T>, name: &str) -> fmt::Result {
    page.entries.iter().try_for_each(|entry| writeln!(f, "  {entry}"))?;
    write_rest(f, page, name)
}

fn write_rest<T>(f: &mut Formatter<'_>, page: &Page<T>, name: &str) -> fmt::Result {
    match page.total - page.entries.len() {
        0 => Ok(()),
        more => writeln!(f, "  ... and {more} more {name}"),
    }
}

impl Display for WorkerSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { index, task, wait } = self;
        write!(f, "worker {index}: ")?;
        match (task, wait) {
            (Some(task), None) => write!(f, "runs {task}"),
            (Some(task), Some(wait)) => write!(f, "{task}, {wait}"),
            (None, Some(wait)) => write!(f, "{wait}"),
            (None, None) => f.write_str("idle"),
        }
    }
}

impl Display for TaskSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        match self.age {
            Some(age) => write!(f, ", for {}", Seconds(age)),
            None => Ok(()),
        }
    }
}

/// Writes the wait without its waiter: "has waited 3.0 s for task 17 (src/a.rs:12:9), which runs on
/// worker 1".
impl Display for WaitSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { task, target, then, runs_on, is_cycle, is_timed, age, .. } = self;
        let names = self.names_pools();
        write!(f, "has waited {} for {}", Seconds(*age), Named(target, names))?;
        if *is_timed {
            f.write_str(" (with a time limit)")?;
        }
        let mut before = target;
        for wait in then {
            match &wait.task {
                Some(task) if before.task.as_ref() != Some(task) => {
                    write!(f, ", which needs {}, which", Named(task, names))?;
                }
                None => f.write_str(", which needs a task that")?,
                Some(_) => f.write_str(", which")?,
            }
            write!(f, " waits for {}", Named(&wait.target, names))?;
            before = &wait.target;
        }
        match (runs_on, is_cycle, task) {
            (Some(worker), ..) => write!(f, ", which runs on worker {worker}"),
            (None, true, Some(task)) => write!(f, ", which needs task {}", task.id),
            (None, true, None) => f.write_str(", which needs a task before it"),
            (None, false, _) => Ok(()),
        }
    }
}

impl Display for QueueSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { len, capacity, tickets, submitters, .. } = self;
        write!(f, "queue `{}`: {len} of {capacity}", self.name())?;
        if len >= capacity {
            f.write_str(", full")?;
        }
        if *tickets > 0 {
            write!(f, ", beside them {}", Counted(*tickets, "ticket or timer"))?;
        }
        write_waiters(f, *submitters, "submitter")
    }
}

impl Display for GroupSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { label, running, waiting, delayed, submitters, oldest, .. } = self;
        f.write_str("group")?;
        write_label(f, label.as_deref())?;
        write!(f, ": {running} running, {waiting} waiting")?;
        write_delayed(f, *delayed)?;
        write_reason(f, self.reason())?;
        if let Some(oldest) = oldest {
            write!(f, "; the oldest is {oldest}")?;
        }
        write_waiters(f, *submitters, "submitter")
    }
}

impl Display for KeyedSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { label, waiting, keys, delayed, submitters, running, .. } = self;
        f.write_str("keyed executor")?;
        write_label(f, label.as_deref())?;
        write!(f, ": {}, {waiting} waiting", Counted(*keys, "key"))?;
        write_delayed(f, *delayed)?;
        write_reason(f, self.reason())?;
        write_waiters(f, *submitters, "submitter")?;
        running.entries.iter().try_for_each(|key| write!(f, "\n    {key}"))?;
        match running.total - running.entries.len() {
            0 => Ok(()),
            more => write!(f, "\n    ... and {more} more busy keys"),
        }
    }
}

impl Display for KeySnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("key")?;
        write_label(f, self.label.as_deref())?;
        write!(f, ": busy with task {}, {} waiting", self.task, self.waiting)
    }
}

impl Display for SubscriptionSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, topic, event, waiting, delayed, capacity, running, publishers, .. } = self;
        write!(f, "subscription `{}` to `{event}`", Escaped(name))?;
        if let Some(topic) = topic {
            write!(f, ", topic `{}`", Escaped(topic))?;
        }
        write!(f, ": {running} running, {waiting} of {capacity} waiting")?;
        if self.is_full() {
            f.write_str(", full")?;
        }
        write_delayed(f, *delayed)?;
        write_reason(f, self.reason())?;
        write_waiters(f, *publishers, "publisher")
    }
}

impl Display for DriverSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { label, kind, in_flight, max_in_flight, waiting, outputs, futures } = self;
        f.write_str(match kind {
            DriverKind::Futures => "driver",
            DriverKind::Calls => "caller",
        })?;
        write_label(f, label.as_deref())?;
        write!(f, ": {in_flight} of {max_in_flight} in flight")?;
        if *waiting > 0 {
            write!(f, ", {waiting} waiting for a place")?;
        }
        if *outputs > 0 {
            write!(f, ", {} waiting for a worker", Counted(*outputs, "output"))?;
        }
        for future in &futures.entries {
            write!(f, "\n    {}: {}", future.task, self.reason(future))?;
        }
        match futures.total - futures.entries.len().min(futures.total) {
            0 => Ok(()),
            more => write!(f, "\n    ... and {more} more"),
        }
    }
}

impl Display for JobWorkerSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, stream, slots, in_flight, pending, .. } = self;
        let (name, stream) = (Escaped(name), Escaped(stream));
        write!(f, "worker of NATS `{name}` on `{stream}`: {in_flight} of {slots} in flight, {pending} pending")?;
        write_reason(f, self.reason())
    }
}

impl Display for TimerSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TimerKind::Delayed => "delayed task",
            TimerKind::Periodic => "periodic timer",
            TimerKind::Retry => "retry",
            TimerKind::Batch => "batch",
            TimerKind::Other => "timer",
        })?;
        if let Some(task) = &self.task {
            write!(f, " of task {task}")?;
        }
        match (&self.label, self.location) {
            (Some(label), Some(location)) => write!(f, " (`{}`, {location})", Escaped(label))?,
            (None, Some(location)) => write!(f, " ({location})")?,
            (Some(label), None) => write!(f, " (`{}`)", Escaped(label))?,
            (None, None) => {}
        }
        match self.due_in {
            Some(Duration::ZERO) => f.write_str(": due now"),
            Some(time) => write!(f, ": due in {}", Seconds(time)),
            None => f.write_str(": never due"),
        }
    }
}

fn write_label(f: &mut Formatter<'_>, label: Option<&str>) -> fmt::Result {
    label.map_or(Ok(()), |label| write!(f, " `{}`", Escaped(label)))
}

fn write_delayed(f: &mut Formatter<'_>, delayed: usize) -> fmt::Result {
    if delayed == 0 { Ok(()) } else { write!(f, ", {delayed} delayed") }
}

fn write_reason(f: &mut Formatter<'_>, reason: Option<String>) -> fmt::Result {
    reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
}

fn write_waiters(f: &mut Formatter<'_>, waiters: usize, name: &'static str) -> fmt::Result {
    if waiters == 0 { Ok(()) } else { write!(f, "; waiting for room: {}", Counted(waiters, name)) }
}

impl QueueSnapshot {
    /// Returns the name of its class.
    pub(super) fn name(&self) -> &'static str {
        match self.priority {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Background => "background",
        }
    }
}

impl TimerKind {
    /// Returns its name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Periodic => "periodic",
            Self::Retry => "retry",
            Self::Batch => "batch",
            Self::Other => "other",
        }
    }
}

impl WaitSnapshot {
    /// Returns `true` if the names of pools must be told, because there are several.
    fn names_pools(&self) -> bool {
        let is_other = |wait: &CycleWait| !wait.target.has_pool_of(&self.target);
        self.then.iter().any(is_other) || self.task.as_ref().is_some_and(|task| !self.target.has_pool_of_task(task))
    }

    /// Returns what waits.
    pub(super) fn waiter(&self) -> String {
        match (&self.task, &self.thread) {
            (Some(task), _) => Named(task, self.names_pools()).to_string(),
            (None, Some(thread)) => format!("thread `{}`", Escaped(thread)),
            (None, None) => "a thread".to_owned(),
        }
    }
}

impl TaskSnapshot {
    /// Returns what tells the task from others: "task 17 (`mail`, src/a.rs:12:9)".
    pub(super) fn name(&self) -> TaskName<'_> {
        TaskName { id: self.id, label: self.label.as_deref(), location: self.location }
    }
}

/// What tells a task from others.
pub(super) struct TaskName<'a> {
    id: TaskId,
    label: Option<&'a str>,
    location: &'static Location<'static>,
}

impl Display for TaskName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { id, label, location } = self;
        match label {
            Some(label) => write!(f, "task {id} (`{}`, {location})", Escaped(label)),
            None => write!(f, "task {id} ({location})"),
        }
    }
}

/// A time in seconds.
pub(super) struct Seconds(pub(super) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// A number of things: "1 task", "2 tasks".
pub(super) struct Counted(pub(super) usize, pub(super) &'static str);

impl Display for Counted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(count, name) = self;
        write!(f, "{count} {name}{}", if *count == 1 { "" } else { "s" })
    }
}
