//! A task with a handle that does not start before its time.
//!
//! | state | cell | timer | next |
//! |---|---|---|---|
//! | *delayed* | `Queued` | set | *queued*, when the timer fires; *running*, by a waiting worker once it is due; done, by cancel |
//! | *queued* | `Queued` | fired; an entry is in the pool's queue | *running*, by a worker; done, by cancel |
//! | *running*, done | as in a plain task | none, or fired | as in a plain task |
//!
//! The cell is that of a plain task, and decides which thread runs the task. A worker that waits
//! for the task keeps time by the registry of waits, as for a retry: there may be no other worker
//! to which the timer thread could hand the task. If that worker runs the task, the entry that is
//! left in the queue is stale, and does nothing.

use std::panic::Location;

use super::heap::TimerKey;
use super::thread::{TimerRefused, TimerThread};
use crate::error::CancelReason;
use crate::observe::task_info::TaskId;
use crate::priority::Priority;
use crate::snapshot::{TimerKind, TimerSnapshot};
use crate::sync::{Arc, OnceLock};
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context::GroupId;
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::task::waits::Needs;
use crate::time::deadline::Deadline;

/// A delayed task.
pub(crate) struct DelayedTask<F, T> {
    cell: TaskCell<F, T>,
    timers: Arc<TimerThread>,
    due: Deadline,
    /// The class in which it is queued when it is due.
    class: Priority,
    /// The key of the timer, which may have fired. Set right after the timer. A thread that runs or
    /// cancels the task before that has found it outside of the heap.
    key: OnceLock<TimerKey>,
}

impl<F, T> DelayedTask<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    /// Creates a task that was admitted, and sets its timer. Gives the closure back if the timer is
    /// refused.
    pub(crate) fn set(
        f: F,
        (due, class): (Deadline, Priority),
        (id, location): (TaskId, &'static Location<'static>),
        timers: &Arc<TimerThread>,
    ) -> Result<Arc<Self>, (TimerRefused, F)> {
        let cell = TaskCell::new(f, id, location, None);
        let task = Arc::new(Self { cell, timers: Arc::clone(timers), due, class, key: OnceLock::new() });
        match timers.insert(due, Arc::clone(&task) as _) {
            Ok(key) => {
                let first = task.key.set(key).is_ok();
                assert!(first, "a timer is set once");
                Ok(task)
            }
            Err(refusal) => Err((refusal, task.cell.withdraw())),
        }
    }

    fn is_due(&self) -> bool {
        self.due <= Deadline::at(self.timers.clock().now())
    }
}

impl<F, T> DelayedTask<F, T> {
    /// Frees the place in the heap.
    fn remove_timer(&self) {
        let removed = self.key.get().and_then(|key| self.timers.remove(*key));
        drop(removed);
    }
}

impl<F, T> Task for DelayedTask<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        executor.enter(self.cell.group_id(), |counters| {
            let Some(closure) = self.cell.claim() else { return };
            self.remove_timer();
            self.cell.run_claimed(closure, &self.cell.meta(), counters, executor);
        });
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let Some(closure) = self.cell.claim() else { return false };
            self.remove_timer();
            self.cell.cancel_claimed(closure, &self.cell.meta().origin, reason, counters, executor);
            true
        })
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }

    fn class(&self) -> Priority {
        self.class
    }

    fn describe_timer(&self) -> TimerSnapshot {
        let origin = self.cell.meta().origin;
        TimerSnapshot::of_task(TimerKind::Delayed, origin.id, origin.label, origin.location)
    }
}

impl<F, T> CellTask for DelayedTask<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Closure = F;
    type Output = T;

    fn cell(&self) -> &TaskCell<F, T> {
        &self.cell
    }

    fn is_timed(&self) -> bool {
        !self.is_due()
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.cell.report_needs(needs, |needs| {
            if self.is_due() {
                needs.worker = true;
            } else {
                needs.worker_at = self.due.instant();
            }
        });
    }
}
