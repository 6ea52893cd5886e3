//! The waits of tasks and of futures, and how a worker that waits helps what it waits for, however far away that is.
//!
//! A wait that begins on an empty stack holds up nothing of the crate. Any other wait that is about to sleep is put
//! into one registry for the process, as an *entry*: which tasks it holds up, and what it waits for. So a thread can
//! follow a chain of waits: this task waits for that future, which waits for a task of this very pool.
//!
//! | a wait | is entered by | is told by | certain |
//! |---|---|---|---|
//! | *of a thread* | a join, a group, a receipt, `wait_idle`: before it sleeps | a flag, and the condition that it sleeps with | yes, if it can end in no other way |
//! | *of a future* | a handle that was polled and is pending, inside a task or a driven future | the waker of that poll | no: a future may wait for several things |
//!
//! | an entry is | meaning | next |
//! |---|---|---|
//! | *asleep* | its waiter has nothing to do | *called*, by a change that lets it help; *left* |
//! | *called* | its waiter is about to look again | *left* |
//! | *refused* | its wait closes a cycle with one that cannot be refused | *left*, with `WouldDeadlock` |
//! | *left* | no longer in the registry | none |
//!
//! Rules:
//! 1. A wait looks for something to help with under the lock under which it is entered. A later change finds the entry
//!    under the same lock and calls it. So a chain is seen by the wait that closes it, whichever that is.
//! 2. What makes a task ready for a worker after it has been waited for is followed by [`changed`]; or it wakes the
//!    waiter, which then enters again.
//! 3. A worker helps with tasks of its own pool that its wait needs: directly, through what other entries wait for,
//!    and through a task of a pool all of whose workers are asleep in the registry.
//! 4. A wait is refused only for a cycle of certain waits. Help never depends on such knowledge: at worst a task runs
//!    where it need not have.
//! 5. The registry's lock is the outermost of the crate: under it, [`Awaited::look`] takes the lock of what is awaited. No
//!    thread takes it while it holds another lock. No user code runs under it: entries and targets are dropped, helped
//!    and called outside.
//!
//! Meetings: *enter and enter*: the second under the lock sees the first, and helps or calls it. *Enter and change*: the look
//! under the lock sees the change, or the change finds the entry. *Call and sleep*: the flag is set before the condition is
//! notified under its lock, and the sleeper looks at the flag under that lock. *Call and call*: the flag is set once.
//! *Help and help*: the claim of the task decides; the later one looks again.
//!
//! It knows no task, group or pool by type. A wait with a time limit is not entered: it ends by itself.

mod registry;

use std::task::Waker;
use std::time::Instant;

use super::context::{self, AwaitedId, PoolId};
use super::waits::registry::{Entry, Verdict};
use crate::sync::Arc;

#[cfg(any(feature = "retry", feature = "driver"))]
pub(crate) use super::waits::registry::changed;
pub(crate) use super::waits::registry::{count_worker, discount_worker};

/// Something that is waited for.
pub(crate) trait Awaited: Send + Sync {
    /// Names it among the frames of a stack and among what is waited for.
    fn name(&self) -> AwaitedId;

    /// The pool whose workers can bring it on.
    fn pool(&self) -> PoolId;

    /// Says what it needs to end. Called under the registry's lock: it takes no lock but its own, and drops nothing.
    fn look(&self, needs: &mut Needs);

    /// Brings it one step further, on a worker of its pool; never waits for it.
    fn help(self: Arc<Self>);

    /// Wakes the threads that sleep in a wait for it, to look at their calls.
    fn wake_waiters(&self);
}

/// What an awaited thing needs to end; empty once it has ended.
#[derive(Default)]
pub(crate) struct Needs {
    /// A worker of its pool can bring it on now.
    pub(crate) worker: bool,
    /// A worker of its pool can bring it on from that moment.
    pub(crate) worker_at: Option<Instant>,
    /// It needs what runs under these names; with whether it cannot end without.
    names: Vec<(AwaitedId, bool)>,
}

impl Needs {
    /// It ends no sooner than what runs under this name.
    pub(crate) fn end_of(&mut self, name: impl Into<AwaitedId>) {
        self.names.push((name.into(), true));
    }

    /// It may have to wait for what runs under this name.
    #[cfg(feature = "events")]
    pub(crate) fn perhaps_end_of(&mut self, name: impl Into<AwaitedId>) {
        self.names.push((name.into(), false));
    }
}

/// What kind of wait it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends with its target only; can be refused.
    Certain,
    /// Ends with its target only, and must not be refused.
    Unrefusable,
    /// May end in another way.
    Open,
}

/// The wait here would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// A wait in the registry, which it leaves when dropped.
#[must_use = "a wait that is dropped has left the registry"]
pub(crate) struct Wait {
    entry: Arc<Entry>,
}

impl Wait {
    /// Whether the waiter is to look again instead of sleeping on.
    pub(crate) fn is_called(&self) -> bool {
        self.entry.is_called()
    }

    /// Whether the wait is refused after all.
    pub(crate) fn is_refused(&self) -> bool {
        self.entry.is_refused()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        registry::leave(&self.entry);
    }
}

/// What a thread that is about to sleep does instead.
pub(crate) enum Next {
    /// It helps with that, and then looks again.
    Help(Arc<dyn Awaited>),
    /// It sleeps until its wait ends, it is called, or the moment has come.
    Sleep(Wait, Option<Instant>),
}

/// Enters a wait of this thread, which has tasks on its stack.
pub(crate) fn enter(target: Arc<dyn Awaited>, kind: Kind) -> Result<Next, Refused> {
    let stack = context::stack();
    match registry::enter(Entry::new(target, kind, stack, None)) {
        Verdict::Help(awaited) => Ok(Next::Help(awaited)),
        Verdict::Entered(entry, until) => Ok(Next::Sleep(Wait { entry }, until)),
        Verdict::Refused => Err(Refused),
    }
}

/// Enters a wait of the future that is being polled on this thread, within a task.
pub(crate) fn enter_future(target: Arc<dyn Awaited>, waker: &Waker) -> Next {
    let stack = context::stack();
    match registry::enter(Entry::new(target, Kind::Open, stack, Some(waker.clone()))) {
        Verdict::Help(awaited) => Next::Help(awaited),
        Verdict::Entered(entry, until) => Next::Sleep(Wait { entry }, until),
        Verdict::Refused => unreachable!("the wait of a future is never refused"),
    }
}

/// Waits on this thread, which has tasks on its stack, and helps meanwhile. `sleep` sleeps until the wait ends, it is
/// called, or the moment has come; it says whether the wait has ended.
pub(crate) fn wait(
    target: &Arc<dyn Awaited>,
    kind: Kind,
    mut sleep: impl FnMut(&Wait, Option<Instant>) -> bool,
) -> Result<(), Refused> {
    loop {
        match enter(Arc::clone(target), kind)? {
            Next::Help(awaited) => awaited.help(),
            Next::Sleep(wait, until) => {
                if sleep(&wait, until) {
                    return Ok(());
                }
                if wait.is_refused() {
                    return Err(Refused);
                }
            }
        }
    }
}
