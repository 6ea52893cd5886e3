//! What travels through the queue.
//!
//! A job is the closure of an `execute`, or a share in a task or a group that lives elsewhere. A share may turn out to
//! be empty: a joining worker was faster, or somebody cancelled; then taking it from the queue does nothing. A job
//! never owns a way back to the queue it lies in.

use std::panic::Location;

use crate::clock::Moment;
use crate::closure::Closure;
use crate::error::CancelReason;
use crate::observer::{Outcome, TaskId};
use crate::supervisor::{Brief, Supervisor};
use crate::sync::{Arc, Weak};
use crate::unwind;

/// One entry of the queue.
pub(crate) enum Job {
    /// A closure that nobody waits for.
    Closure(ClosureJob),
    /// A share in what lives elsewhere.
    Share(Share),
}

/// A closure that nobody waits for, with what is known of it.
pub(crate) struct ClosureJob {
    closure: Closure<'static, ()>,
    id: TaskId,
    location: &'static Location<'static>,
    queued_at: Option<Moment>,
}

/// A share in what lives elsewhere.
pub(crate) enum Share {
    /// A task that a handle waits for.
    Task(Arc<dyn Task>),
    /// A turn for a group. Weak, because a group owns a way to the queue.
    Ticket(Weak<dyn Ticket>),
}

/// A task whose outcome lands in a cell of its own.
pub(crate) trait Task: Send + Sync {
    /// Runs it, if nobody has claimed it yet.
    fn run(&self, supervisor: &Supervisor);

    /// Cancels it, if nobody has claimed it yet; returns whether it did.
    fn cancel(&self, reason: CancelReason, supervisor: &Supervisor) -> bool;
}

/// A group that sends tickets.
pub(crate) trait Ticket: Send + Sync {
    /// Runs tasks of the group on this worker, for a turn.
    fn serve(self: Arc<Self>);

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
        Self::Closure(ClosureJob { closure: Closure::recoverable(f), id, location, queued_at })
    }

    pub(crate) fn task(task: Arc<dyn Task>) -> Self {
        Self::Share(Share::Task(task))
    }

    pub(crate) fn ticket(group: Weak<dyn Ticket>) -> Self {
        Self::Share(Share::Ticket(group))
    }

    /// The closure that [`closure`](Self::closure) was given.
    pub(crate) fn into_closure<F: FnOnce() + Send + 'static>(self) -> F {
        let Self::Closure(job) = self else { unreachable!("a refused job is the job that was submitted") };
        job.closure.into_inner().expect("a refused closure has the type that was submitted")
    }

    /// Whether it is a turn for a group that is gone.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self, Self::Share(Share::Ticket(group)) if group.strong_count() == 0)
    }

    /// Does what the job asks for.
    pub(crate) fn run(self, supervisor: &Supervisor) {
        match self {
            Self::Closure(ClosureJob { closure, id, location, queued_at }) => supervisor.enter(0, |record| {
                let brief = Brief::single(id, location, queued_at);
                let result = supervisor.perform(record, &brief, || closure.call(), |()| Outcome::Succeeded);
                drop(result);
                supervisor.settle(record, 1);
            }),
            Self::Share(Share::Task(task)) => task.run(supervisor),
            Self::Share(Share::Ticket(group)) => {
                if let Some(group) = group.upgrade() {
                    group.serve();
                }
            }
        }
    }

    /// Gives up what the job asks for.
    pub(crate) fn cancel(self, reason: CancelReason, supervisor: &Supervisor) {
        match self {
            Self::Closure(ClosureJob { closure, id, location, .. }) => supervisor.enter(0, |record| {
                unwind::discard(closure);
                supervisor.cancelled(record, &Brief::single(id, location, None).info, reason);
                supervisor.settle(record, 1);
            }),
            Self::Share(Share::Task(task)) => {
                task.cancel(reason, supervisor);
            }
            Self::Share(Share::Ticket(group)) => {
                if let Some(group) = group.upgrade() {
                    group.cancel(reason);
                }
            }
        }
    }
}
