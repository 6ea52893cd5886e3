//! Runs tasks: catches, counts, tells hooks and observer.
//!
//! This is the one transition in which a task meets its fate. The order never changes: the books, the panic hook, the
//! observer, then (by the caller) handle or group, and at last [`settle`](Supervisor::settle). So who has joined a task
//! finds it in the metrics, and who has seen the pool idle finds every handle finished.
//!
//! The supervisor has no way to the queue; what lies in the queue may therefore own it without a cycle.

use std::panic::Location;
use std::time::Instant;

use crate::error::CancelReason;
use crate::ledger::Ledger;
use crate::lifecycle::Lifecycle;
use crate::local::{self, Entered, Name};
use crate::observer::{Observer, Outcome, RunningTask, TaskId, TaskInfo};
use crate::panic::Panic;
use crate::sync::Arc;
use crate::unwind;

/// A hook that is told of every panic of a task.
pub(crate) type PanicHook = Box<dyn Fn(&Panic) + Send + Sync>;

/// What users have hung into the pool.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Called with each panic of a task, on the thread where it happened.
    pub(crate) on_panic: Option<PanicHook>,
    /// Told of each step of each task.
    pub(crate) observer: Option<Box<dyn Observer>>,
}

/// A task as the supervisor needs to know it.
#[derive(Clone, Copy)]
pub(crate) struct Brief<'a> {
    /// What observers see.
    pub(crate) info: TaskInfo<'a>,
    /// When it was submitted, if times are taken.
    pub(crate) queued_at: Option<Instant>,
}

impl<'a> Brief<'a> {
    /// The brief of a task without a group.
    pub(crate) fn single(id: TaskId, location: &'static Location<'static>, queued_at: Option<Instant>) -> Self {
        Self { info: TaskInfo { id, location, label: None }, queued_at }
    }
}

/// Runs the tasks of one pool.
pub(crate) struct Supervisor {
    /// Names the pool.
    pub(crate) pool: Name,
    /// The phases and the books.
    pub(crate) lifecycle: Lifecycle,
    hooks: Hooks,
    /// Whether times are taken.
    timing: bool,
}

impl Supervisor {
    pub(crate) fn new(hooks: Hooks, timing: bool) -> Self {
        Self { pool: local::new_name(), lifecycle: Lifecycle::new(Ledger::new(timing)), hooks, timing }
    }

    /// The time of submission, if times are taken.
    pub(crate) fn now_if_timing(&self) -> Option<Instant> {
        self.timing.then(Instant::now)
    }

    /// Marks this thread as being inside the pool, until the guard is dropped: it has a task without a group on its
    /// stack. Whoever runs or cancels a task holds such a guard from before the closure is called or dropped until
    /// the task is settled, so foreign code on the way never waits for what is below it.
    pub(crate) fn enter(&self) -> Entered {
        local::enter(self.pool, 0)
    }

    /// Calls `f` as the body of a task. `outcome_of` tells what its value means. The caller hands the result on and
    /// then calls [`settle`](Self::settle).
    pub(crate) fn perform<R>(
        &self,
        task: &Brief<'_>,
        f: impl FnOnce() -> R,
        outcome_of: impl FnOnce(&R) -> Outcome,
    ) -> Result<R, Panic> {
        let (before, since) = self.start(task);
        self.observe(|observer| observer.task_started(&task.info));
        let result = unwind::catch(f).map_err(|payload| Panic::new(payload, task.info.location));
        let outcome = result.as_ref().map_or(Outcome::Panicked, outcome_of);
        let run_time = self.timing.then(|| since.map(|since| since.elapsed())).flatten();
        self.with_record(|record| record.end(outcome, run_time, before));
        if let Err(panic) = &result
            && let Some(on_panic) = &self.hooks.on_panic
        {
            self.call_hook(|| on_panic(panic));
        }
        self.observe(|observer| observer.task_ended(&task.info, outcome));
        result
    }

    /// Books a task as cancelled; its closure has been dropped. The caller tells the owner and then calls
    /// [`settle`](Self::settle).
    pub(crate) fn cancelled(&self, info: &TaskInfo<'_>, reason: CancelReason) {
        self.with_record(|record| record.count_cancelled(reason, 1));
        self.observe(|observer| observer.task_ended(info, Outcome::Cancelled(reason)));
    }

    /// The owners of so many tasks have been told; the last step of each.
    pub(crate) fn settle(&self, tasks: u64) {
        self.with_record(|record| record.settle(tasks));
        self.check_unless_worker();
    }

    /// Books a submission that found no room after all.
    pub(crate) fn withdrawn(&self, info: &TaskInfo<'_>) {
        self.observe(|observer| observer.task_refused(info));
        self.lifecycle.ledger.withdraw();
        self.lifecycle.check();
    }

    /// Admits a task, unless the pool is closed.
    pub(crate) fn admit(&self, location: &'static Location<'static>, label: Option<&Arc<str>>) -> Option<TaskId> {
        let id = self.lifecycle.ledger.admit();
        match id {
            Some(id) => self.observe(|observer| observer.task_submitted(&TaskInfo { id, location, label })),
            // Admission may have been withdrawn, which can be the last thing a drain waits for.
            None => self.lifecycle.check(),
        }
        id
    }

    /// Calls the observer, if there is one.
    fn observe(&self, call: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.hooks.observer {
            self.call_hook(|| call(&**observer));
        }
    }

    /// Calls a hook; its panic is contained and counted.
    pub(crate) fn call_hook(&self, hook: impl FnOnce()) {
        let _frame = self.enter();
        if let Err(payload) = unwind::catch(hook) {
            unwind::discard(payload);
            self.lifecycle.ledger.count_hook_panic();
        }
    }

    /// Books the start; returns what the worker was doing before, and the time if it is known.
    fn start(&self, task: &Brief<'_>) -> (Option<RunningTask>, Option<Instant>) {
        local::with_record(self.pool, |record| match record {
            Some(record) => {
                let since = Instant::now();
                let TaskInfo { id, location, label } = task.info;
                let running = RunningTask { worker: record.worker(), id, location, label: label.cloned(), since };
                (record.start(Some(running), task.queued_at), Some(since))
            }
            None => (self.lifecycle.ledger.outside().start(None, task.queued_at), self.now_if_timing()),
        })
    }

    fn check_unless_worker(&self) {
        // A worker checks before it parks.
        if !local::is_worker_of(self.pool) {
            self.lifecycle.check();
        }
    }

    fn with_record(&self, f: impl FnOnce(&crate::ledger::Record)) {
        local::with_record(self.pool, |record| f(record.unwrap_or(self.lifecycle.ledger.outside())));
    }
}
