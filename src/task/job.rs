//! The entries of the queue.
//!
//! A job is either the closure of an `execute`, or a reference to a task or a group that is stored
//! elsewhere. A reference may be stale when a worker takes it from the queue, because a joining
//! worker was faster or the task was cancelled. Running it then does nothing.
//!
//! A job never owns a reference to the queue that it is in.

use std::any::Any;
use std::panic::Location;
use std::ptr;

use super::closure::Closure;
use super::context::GroupId;
use super::executor::{Executor, TaskMeta};
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::task_info::{TaskId, TaskOutcome};
use crate::priority::Priority;
use crate::snapshot::{Holder, TimerKind, TimerSnapshot};
use crate::sync::{Arc, Weak};
use crate::time::clock::Timestamp;

/// An entry of the queue.
///
/// The discriminant, and that of an `Option` or `Result` around a job, is stored in the niche of
/// [`NicheTag`]. So a job is always copied in the same pieces. Reading other pieces than those just
/// written stalls the processor.
pub(crate) enum Job {
    /// A closure without a handle.
    Closure(ClosureJob),
    /// A closure without a handle, and the time of its submission. Boxed, so that only pools built
    /// with `timing(true)` pay for the timestamp.
    Timed(Box<(ClosureJob, Timestamp)>),
    /// A task with a handle.
    Task(Arc<dyn Task>),
    /// A ticket: asks a worker to run tasks of a group for one quantum. Weak, because a group owns
    /// a reference to the queue.
    Ticket(Weak<dyn TicketHolder>),
}

/// A closure without a handle, and its metadata.
#[repr(C)]
pub(crate) struct ClosureJob {
    closure: Closure<'static, ()>,
    id: TaskId,
    location: &'static Location<'static>,
    tag: NicheTag,
}

/// The final field of a [`ClosureJob`]. Its unused values tell the other variants of [`Job`] apart.
#[repr(u64)]
enum NicheTag {
    Closure,
}

/// A task whose outcome is stored outside of the queue.
pub(crate) trait Task: Send + Sync {
    /// Runs the task, if no thread has claimed it.
    fn run(&self, executor: &Executor);

    /// Cancels the task, if no thread has claimed it. Returns `true` if it did.
    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool;

    /// Returns `true` if a queue entry for the task is useless from now on. Then the entry is
    /// removed when others pile up, and dropped where user code must not run: the task holds
    /// nothing of the user any more. Called with locks held, and takes none.
    fn is_finished(&self) -> bool;

    /// Returns the class in which the timer thread queues the task. Called with locks held, and
    /// takes none.
    fn class(&self) -> Priority {
        Priority::Normal
    }

    /// Describes the timer of the task for snapshots. Called with locks held, and takes none.
    fn describe_timer(&self) -> TimerSnapshot {
        TimerSnapshot::of_kind(TimerKind::Other)
    }

    /// Returns `true` if the timer thread must queue the task, which is due. `false` if an entry
    /// for it is still in the queue. Called with locks held, and takes none.
    fn should_enqueue(&self) -> bool {
        true
    }
}

/// A group that sends tickets.
pub(crate) trait TicketHolder: Send + Sync {
    /// Runs tasks of the group on this worker, for at most one quantum.
    fn run_ticket(self: Arc<Self>);

    /// Sends as many more tickets as there are workers that could run tasks of the group.
    fn send_tickets(self: Arc<Self>);

    /// Cancels the group.
    fn cancel(&self, reason: CancelReason);

    /// Copies the group for a snapshot. Runs no user code: if this was the last reference, returns
    /// what is left of the group.
    fn snapshot(self: Arc<Self>) -> (Holder, Leftover);
}

/// The rest of a group whose last reference a snapshot has held, for another thread to drop.
pub(crate) type Leftover = Option<Box<dyn Any + Send>>;
/// What is left of several.
pub(crate) type Leftovers = Vec<Box<dyn Any + Send>>;

/// Drops a reference to a group, unless it is the last one. Returns the group then.
pub(crate) fn leftover<T: Send + 'static>(group: Arc<T>) -> Leftover {
    Arc::into_inner(group).map(|group| Box::new(group) as _)
}

impl Job {
    /// Creates the job of a closure.
    pub(crate) fn closure<F: FnOnce() + Send + 'static>(
        f: F,
        id: TaskId,
        location: &'static Location<'static>,
        queued_at: Option<Timestamp>,
    ) -> Self {
        let job = ClosureJob { closure: Closure::recoverable(f), id, location, tag: NicheTag::Closure };
        match queued_at {
            None => Self::Closure(job),
            Some(moment) => Self::Timed(Box::new((job, moment))),
        }
    }

    /// Returns the closure that was passed to [`closure`](Self::closure).
    ///
    /// # Panics
    ///
    /// If the job was not created there, or with a closure of another type.
    pub(crate) fn into_closure<F: FnOnce() + Send + 'static>(self) -> F {
        let job = match self {
            Self::Closure(job) => job,
            Self::Timed(timed) => timed.0,
            Self::Task(_) | Self::Ticket(_) => unreachable!("a refused job is the job that was submitted"),
        };
        job.closure.into_inner().expect("a refused closure has the type that was submitted")
    }

    /// Returns `true` if the job is the ticket of a group that is gone, or refers to a task that
    /// has an outcome.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Ticket(group) => group.strong_count() == 0,
            Self::Task(task) => task.is_finished(),
            Self::Closure(_) | Self::Timed(_) => false,
        }
    }

    /// Returns `true` if the job is a ticket of `group`.
    pub(crate) fn is_ticket_of<G>(&self, group: &Arc<G>) -> bool {
        matches!(self, Self::Ticket(ticket) if ptr::addr_eq(ticket.as_ptr(), Arc::as_ptr(group)))
    }

    /// Returns `true` if the job is a closure that was called.
    pub(crate) fn is_consumed(&self) -> bool {
        match self {
            Self::Closure(job) => job.closure.is_consumed(),
            Self::Timed(timed) => timed.0.closure.is_consumed(),
            // Tasks and groups keep track of that themselves.
            Self::Task(_) | Self::Ticket(_) => false,
        }
    }

    /// Runs the job. Called at most once.
    #[inline]
    pub(crate) fn run(&mut self, executor: &Executor) {
        let (job, queued_at) = match self {
            Self::Closure(job) => (job, None),
            Self::Timed(timed) => (&mut timed.0, Some(timed.1)),
            Self::Task(task) => return task.run(executor),
            Self::Ticket(group) => return group.upgrade().into_iter().for_each(<dyn TicketHolder>::run_ticket),
        };
        job.run(executor, queued_at);
    }

    /// Runs a job that was dequeued outside of a worker's turn, or cancels it if the pool is being
    /// cancelled.
    pub(crate) fn run_or_cancel(mut self, executor: &Executor) {
        if executor.tracker.is_cancelling() {
            self.cancel(CancelReason::ShutDown, executor);
        } else {
            self.run(executor);
        }
    }

    /// Cancels the task or the group of the job.
    pub(crate) fn cancel(self, reason: CancelReason, executor: &Executor) {
        match self {
            Self::Closure(job) => job.cancel(reason, executor),
            Self::Timed(timed) => timed.0.cancel(reason, executor),
            Self::Task(task) => {
                task.cancel(reason, executor);
            }
            Self::Ticket(group) => {
                if let Some(group) = group.upgrade() {
                    group.cancel(reason);
                }
            }
        }
    }
}

impl ClosureJob {
    #[inline]
    fn run(&mut self, executor: &Executor, queued_at: Option<Timestamp>) {
        executor.enter(GroupId::NONE, |counters| {
            let meta = TaskMeta::single(self.id, self.location, queued_at);
            let result = executor.run(counters, &meta, || self.closure.call(), |()| TaskOutcome::Succeeded);
            if let Err(panic) = result {
                drop(panic); // before the task counts as done
            }
            executor.task_done(counters, 1);
        });
    }

    fn cancel(self, reason: CancelReason, executor: &Executor) {
        executor.enter(GroupId::NONE, |counters| {
            nesting::discard(self.closure);
            executor.cancelled(counters, &TaskMeta::single(self.id, self.location, None).origin, reason);
            executor.task_done(counters, 1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_takes_seven_words_with_and_without_a_result_around_it() {
        let words = |bytes| bytes / size_of::<usize>();
        assert_eq!(words(size_of::<Job>()), 7);
        assert_eq!(words(size_of::<Result<Option<Job>, ()>>()), 7);
    }
}
