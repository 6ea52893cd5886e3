//! What travels through the queue.
//!
//! A job is the closure of an `execute`, or a share in a task or a group that lives elsewhere. A share may turn out to
//! be empty: a joining worker was faster, or somebody cancelled; then taking it from the queue does nothing. A job
//! never owns a way back to the queue it lies in.

use std::panic::Location;
use std::ptr;

use super::closure::Closure;
use super::context::GroupId;
use super::executor::{Executor, TaskMeta};
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::observer::{TaskId, TaskOutcome};
use crate::sync::{Arc, Weak};
use crate::time::clock::Moment;

/// One entry of the queue. What tells the variants apart lies in [`NicheTag`], and so does what tells apart the variants of
/// an `Option` or `Result` around it. So a job is copied in the same pieces however it is handed on; a copy in other
/// pieces than those just written stalls the processor.
pub(crate) enum Job {
    /// A closure that nobody waits for.
    Closure(ClosureJob),
    /// The same, with the moment it was submitted. In a box: who has times taken pays for it, and nobody else.
    Timed(Box<(ClosureJob, Moment)>),
    /// A task that a handle waits for.
    Task(Arc<dyn Task>),
    /// A turn for a group. Weak, because a group owns a way to the queue.
    Ticket(Weak<dyn TicketHolder>),
}

/// A closure that nobody waits for, with what is known of it.
#[repr(C)]
pub(crate) struct ClosureJob {
    closure: Closure<'static, ()>,
    id: TaskId,
    location: &'static Location<'static>,
    tag: NicheTag,
}

/// The last word of a closure's job. It has one value here; the others mean that the job is something else.
#[repr(u64)]
enum NicheTag {
    Closure,
}

/// A task whose outcome lands in a cell of its own.
pub(crate) trait Task: Send + Sync {
    /// Runs it, if nobody has claimed it yet.
    fn run(&self, executor: &Executor);

    /// Cancels it, if nobody has claimed it yet; returns whether it did.
    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool;

    /// Whether it has ended, so that a share in it is good for nothing. Called under locks: it takes none.
    fn is_finished(&self) -> bool {
        false
    }

    /// Whether the timekeeper is to put a share into the queue, now that its time has come: not if one lies there still.
    /// Called under locks: it takes none.
    fn should_enqueue(&self) -> bool {
        true
    }
}

/// A group that sends tickets.
pub(crate) trait TicketHolder: Send + Sync {
    /// Runs tasks of the group on this worker, for a turn.
    fn run_ticket(self: Arc<Self>);

    /// Sends the tickets that the workers could serve and that are not on their way.
    fn send_tickets(self: Arc<Self>);

    /// Cancels the group.
    fn cancel(&self, reason: CancelReason);
}

impl Job {
    pub(crate) fn closure<F: FnOnce() + Send + 'static>(
        f: F,
        id: TaskId,
        location: &'static Location<'static>,
        queued_at: Option<Moment>,
    ) -> Self {
        let job = ClosureJob { closure: Closure::recoverable(f), id, location, tag: NicheTag::Closure };
        match queued_at {
            None => Self::Closure(job),
            Some(moment) => Self::Timed(Box::new((job, moment))),
        }
    }

    /// The closure that [`closure`](Self::closure) was given.
    pub(crate) fn into_closure<F: FnOnce() + Send + 'static>(self) -> F {
        let job = match self {
            Self::Closure(job) => job,
            Self::Timed(timed) => timed.0,
            Self::Task(_) | Self::Ticket(_) => unreachable!("a refused job is the job that was submitted"),
        };
        job.closure.into_inner().expect("a refused closure has the type that was submitted")
    }

    /// Whether it is a turn for a group that is gone, or a share in a task that has ended.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Ticket(group) => group.strong_count() == 0,
            Self::Task(task) => task.is_finished(),
            Self::Closure(_) | Self::Timed(_) => false,
        }
    }

    /// Whether it is a turn for this group.
    pub(crate) fn is_ticket_of<G>(&self, group: &Arc<G>) -> bool {
        matches!(self, Self::Ticket(ticket) if ptr::addr_eq(ticket.as_ptr(), Arc::as_ptr(group)))
    }

    /// Whether it is a closure that was called.
    pub(crate) fn is_consumed(&self) -> bool {
        match self {
            Self::Closure(job) => job.closure.is_consumed(),
            Self::Timed(timed) => timed.0.closure.is_consumed(),
            Self::Task(_) | Self::Ticket(_) => false, // those know themselves
        }
    }

    /// Does what the job asks for, once.
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

    /// Gives up what the job asks for.
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
    fn run(&mut self, executor: &Executor, queued_at: Option<Moment>) {
        executor.enter(GroupId::NONE, |record| {
            let brief = TaskMeta::single(self.id, self.location, queued_at);
            let result = executor.run(record, &brief, || self.closure.call(), |()| TaskOutcome::Succeeded);
            drop(result);
            executor.task_done(record, 1);
        });
    }

    fn cancel(self, reason: CancelReason, executor: &Executor) {
        executor.enter(GroupId::NONE, |record| {
            nesting::discard(self.closure);
            executor.cancelled(record, &TaskMeta::single(self.id, self.location, None).info, reason);
            executor.task_done(record, 1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_takes_seven_words_whatever_is_around_it() {
        let words = |bytes| bytes / size_of::<usize>();
        assert_eq!(words(size_of::<Job>()), 7);
        assert_eq!(words(size_of::<Result<Option<Job>, ()>>()), 7);
    }
}
