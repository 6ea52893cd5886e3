//! The registry of waits: how a waiting worker helps with what it waits for, however long the chain
//! of waits.
//!
//! A wait that begins on an empty stack blocks no task of this crate. Any other wait that is about
//! to sleep is *registered*: an *entry* in one registry for the process says which tasks the wait
//! blocks, and what it waits for. So a thread can follow a chain of waits: this task waits for that
//! future, which waits for a task of this thread's pool.
//!
//! | a wait | is registered by | is notified by | certain |
//! |---|---|---|---|
//! | *of a thread* | a join, a group, a receipt, `wait_idle`: before it sleeps | a flag, and the condition that it sleeps with | yes, if its target says what it needs |
//! | *of a future* | a handle that was polled and is pending, inside a task or a driven future | the waker of that poll | no: a future may also wait for what the crate does not know |
//!
//! | an entry is | meaning | next |
//! |---|---|---|
//! | *asleep* | its waiter has nothing to do | *notified*, by a change that lets it help; *removed* |
//! | *notified* | its waiter is about to check again | *removed* |
//! | *refused* | its wait is in a knot, and the wait that closed it must not be refused or does not yield | *removed*, with an error |
//! | *removed* | no longer in the registry | none |
//!
//! Rules:
//! 1. A wait searches for something to help with under the same lock under which it is registered.
//!    A later change finds the entry under that lock and notifies it. So a chain is seen by the
//!    wait that closes it.
//! 2. A change that makes an awaited task ready for a worker is followed by [`notify_change`]; or
//!    it wakes the waiter, which registers again.
//! 3. A worker helps with tasks of its own pool that its wait needs. It finds them directly,
//!    through the targets of other entries, and through a task of a pool all of whose workers are
//!    asleep in the registry.
//! 4. A wait is refused only in a knot of certain waits: none of them can end, because each way to
//!    end needs another of them; see `knot`. A wait that *yields* is refused before any other, if
//!    that is enough, because its waiter goes on without an error. Otherwise it is the wait that
//!    closes the knot, if that can be refused. Help does not depend on certainty: at worst a worker
//!    runs a task unnecessarily.
//! 5. A source whose end may leave a knot has its waiters register again: a task of a group, and
//!    the last reference through which tasks may be added to a group.
//! 6. The registry's lock is the outermost of the crate: under it, [`Awaited::report_needs`] takes
//!    the lock of what is awaited. No thread takes it while it holds another lock. No user code
//!    runs under it: entries and targets are dropped, helped and notified outside.
//!
//! Races:
//! - *Register and register*: the second under the lock sees the first, and helps or notifies it.
//! - *Register and change*: the search under the lock sees the change, or the change finds the
//!   entry.
//! - *Register and lose*: a wait for room finds room when it is registered, and another thread
//!   takes that room. The waiter calls [`Wait::notify_helpers`] after its last check and before it
//!   sleeps.
//! - *Notify and sleep*: the flag is set before the condition is notified under its lock, and the
//!   sleeper checks the flag under that lock.
//! - *Notify and notify*: the flag is set once.
//! - *Help and help*: the claim of the task decides; the later thread checks again.
//!
//! This module knows no task, group or pool by type. A wait with a time limit is not registered,
//! because it ends by itself.

mod awaited;
mod chains;
mod entry;
mod knot;
mod registry;
#[cfg(test)]
mod tests;

use std::task::Waker;
use std::time::Instant;

use self::entry::Entry;
use self::registry::Decision;
use super::context;
use crate::error::{Cycle, JoinError};
use crate::nesting;
use crate::sync::Arc;
use crate::time::deadline::Deadline;

pub(crate) use self::awaited::{Awaited, Kind, Needs};
#[cfg(feature = "driver")]
pub(crate) use self::chains::copy_of_future;
pub(crate) use self::chains::{WaitCopy, copy_others, copy_workers, pool_name};
pub(crate) use self::registry::notify_change;
#[cfg(test)]
pub(crate) use self::registry::sleeping_workers;
pub(crate) use self::registry::{add_worker, own_cycle, remove_worker};

/// The error of a wait that would never end, with the waits that need each other.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub(crate) Cycle);

impl From<Refused> for JoinError {
    fn from(Refused(cycle): Refused) -> Self {
        Self::WouldDeadlock(cycle)
    }
}

/// A registered wait; deregistered when dropped.
#[must_use = "a dropped wait is deregistered"]
pub(crate) struct Wait {
    /// Its entry.
    entry: Arc<Entry>,
}

impl Wait {
    /// Returns `true` if the waiter must check again instead of sleeping.
    pub(crate) fn is_notified(&self) -> bool {
        self.entry.is_notified()
    }

    /// Notifies the waiters that can help this one. Must be called if its needs may have grown
    /// since it was registered, and before it sleeps. It may notify this waiter itself.
    pub(crate) fn notify_helpers(&self) {
        registry::notify_helpers(&self.entry);
    }

    /// Returns an error if the wait was refused after it was registered.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        self.entry.refusal().map_or(Ok(()), |cycle| Err(Refused(cycle)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        registry::deregister(&self.entry);
    }
}

/// Prepares a wait of a thread that has no task on its stack. Without a deadline, calls the pending
/// callbacks of this thread, or returns an error if waits are nested too deep for that.
pub(crate) fn prepare(deadline: Deadline) -> Result<(), Refused> {
    let may_sleep = deadline != Deadline::NEVER || nesting::call_pending();
    may_sleep.then_some(()).ok_or_else(|| Refused(Cycle::default()))
}

/// What a thread that is about to sleep does next.
pub(crate) enum Next {
    /// Helps with this, and then checks again.
    Help(Arc<dyn Awaited>),
    /// Sleeps until its wait ends, it is notified, or the time has passed.
    Sleep(Wait, Option<Instant>),
}

/// Registers a wait of this thread, which has tasks on its stack.
pub(crate) fn register(target: Arc<dyn Awaited>, kind: Kind) -> Result<Next, Refused> {
    // The waiter of a wait that must not be refused has made sure that waits are not nested so deep.
    let may_sleep = nesting::call_pending() || kind == Kind::Unrefusable;
    if !may_sleep {
        return Err(Refused(Cycle::default()));
    }
    let stack = context::stack();
    match registry::register(Entry::new(target, kind, stack)) {
        Decision::Help(awaited) => Ok(Next::Help(awaited)),
        Decision::Registered(entry, until) => Ok(Next::Sleep(Wait { entry }, until)),
        Decision::Refused(cycle) => Err(Refused(cycle)),
    }
}

/// Registers a wait of the future that is being polled on this thread, within a task.
pub(crate) fn register_future(target: Arc<dyn Awaited>, waker: &Waker) -> Next {
    #[cfg_attr(not(feature = "driver"), allow(unused_mut, reason = "only the I/O thread changes it"))]
    let mut stack = context::stack();
    #[cfg_attr(not(feature = "driver"), allow(unused_mut, reason = "only the I/O thread changes it"))]
    let mut future = None;
    // It drives other futures meanwhile.
    #[cfg(feature = "driver")]
    if context::is_io_thread() {
        let thread = context::AwaitedId::from(stack.thread);
        stack.names.retain(|name| *name != thread);
        future = context::innermost_group();
    }
    match registry::register(Entry::of_future(target, stack, waker, future)) {
        Decision::Help(awaited) => Next::Help(awaited),
        Decision::Registered(entry, until) => Next::Sleep(Wait { entry }, until),
        Decision::Refused(_) => unreachable!("the wait of a future is never refused"),
    }
}

/// Waits on this thread, which has tasks on its stack, and helps meanwhile.
///
/// `sleep` blocks until the wait ends, it is notified, or the time has passed. It returns `true` if
/// the wait has ended.
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
                wait.check()?;
            }
        }
    }
}
