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
//!    under the same lock and notified it. So a chain is seen by the wait that closes it, whichever that is.
//! 2. What makes a task ready for a worker after it has been waited for is followed by [`notify_change`]; or it wakes the
//!    waiter, which then enters again.
//! 3. A worker helps with tasks of its own pool that its wait needs: directly, through what other entries wait for,
//!    and through a task of a pool all of whose workers are asleep in the registry.
//! 4. A wait is refused only for a cycle of certain waits. Help never depends on such knowledge: at worst a task runs
//!    where it need not have.
//! 5. The registry's lock is the outermost of the crate: under it, [`Awaited::report_needs`] takes the lock of what is awaited. No
//!    thread takes it while it holds another lock. No user code runs under it: entries and targets are dropped, helped
//!    and called outside.
//!
//! Meetings: *enter and enter*: the second under the lock sees the first, and helps or notified it. *Enter and change*: the look
//! under the lock sees the change, or the change finds the entry. *Call and sleep*: the flag is set before the condition is
//! notified under its lock, and the sleeper looks at the flag under that lock. *Call and call*: the flag is set once.
//! *Help and help*: the claim of the task decides; the later one looks again.
//!
//! It knows no task, group or pool by type. A wait with a time limit is not entered: it ends by itself.

mod awaited;
mod registry;
#[cfg(test)]
mod tests;

use std::task::Waker;
use std::time::Instant;

use self::registry::{Decision, Entry};
use super::context;
use crate::sync::Arc;

#[cfg(feature = "events")]
pub(crate) use self::awaited::ANYTHING;
pub(crate) use self::awaited::{Awaited, Kind, Needs};
#[cfg(any(feature = "retry", feature = "driver"))]
pub(crate) use self::registry::notify_change;
pub(crate) use self::registry::{add_worker, remove_worker};

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
    pub(crate) fn is_notified(&self) -> bool {
        self.entry.is_notified()
    }

    /// Whether the wait is refused after all.
    pub(crate) fn is_refused(&self) -> bool {
        self.entry.is_refused()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        registry::deregister(&self.entry);
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
pub(crate) fn register(target: Arc<dyn Awaited>, kind: Kind) -> Result<Next, Refused> {
    let stack = context::stack();
    match registry::register(Entry::new(target, kind, stack, None)) {
        Decision::Help(awaited) => Ok(Next::Help(awaited)),
        Decision::Registered(entry, until) => Ok(Next::Sleep(Wait { entry }, until)),
        Decision::Refused => Err(Refused),
    }
}

/// Enters a wait of the future that is being polled on this thread, within a task.
pub(crate) fn register_future(target: Arc<dyn Awaited>, waker: &Waker) -> Next {
    let stack = context::stack();
    match registry::register(Entry::new(target, Kind::Open, stack, Some(waker.clone()))) {
        Decision::Help(awaited) => Next::Help(awaited),
        Decision::Registered(entry, until) => Next::Sleep(Wait { entry }, until),
        Decision::Refused => unreachable!("the wait of a future is never refused"),
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
        match register(Arc::clone(target), kind)? {
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
