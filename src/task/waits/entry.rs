//! The entries of the registry of waits.

use std::iter;
use std::task::Waker;
use std::time::Instant;

use super::awaited::{Awaited, Kind};
use crate::error::Cycle;
use crate::sync::{self, Arc, AtomicBool, IdGenerator, OnceLock, Ordering};
use crate::task::context::{self, AwaitedId, Stack};
use crate::unwind;

/// Identifies an entry.
pub(super) type EntryId = u64;

/// A registered wait.
pub(super) struct Entry {
    /// Its id.
    pub(super) id: EntryId,
    /// What it waits for.
    pub(super) target: Arc<dyn Awaited>,
    /// The ids under which it is found as a wait: those of its target.
    pub(super) targets: Vec<AwaitedId>,
    /// Its kind.
    pub(super) kind: Kind,
    /// The tasks that the wait blocks.
    pub(super) stack: Stack,
    /// The driven future that has polled the target, if one has.
    pub(super) future: Option<AwaitedId>,
    /// When it was made, shortly before its waiter sleeps.
    pub(super) since: Instant,
    /// When it can help without a notification. Set before it is inserted.
    pub(super) until: Option<Instant>,
    /// Whether the waiter must check again.
    notified: AtomicBool,
    /// The error with which the wait ends. Set before `notified`.
    refused: OnceLock<Cycle>,
    /// Wakes the waiter if it is a future; otherwise the target does.
    waker: Option<Waker>,
}

impl Entry {
    /// Returns the entry of the wait of a thread.
    pub(super) fn new(target: Arc<dyn Awaited>, kind: Kind, stack: Stack) -> Arc<Self> {
        Self::with(target, kind, stack, (None, None))
    }

    /// Returns the entry of the wait of a future.
    pub(super) fn of_future(
        target: Arc<dyn Awaited>,
        stack: Stack,
        waker: &Waker,
        future: Option<AwaitedId>,
    ) -> Arc<Self> {
        Self::with(target, Kind::Open, stack, (Some(waker.clone()), future))
    }

    fn with(
        target: Arc<dyn Awaited>,
        kind: Kind,
        stack: Stack,
        (waker, future): (Option<Waker>, Option<AwaitedId>),
    ) -> Arc<Self> {
        static IDS: IdGenerator = IdGenerator::new();
        let (notified, refused) = (AtomicBool::new(false), OnceLock::new());
        let targets = iter::once(target.awaited_id()).chain(target.related_ids()).collect();
        let (id, since) = (IDS.next(), sync::now());
        Arc::new(Self { id, target, targets, kind, stack, future, since, until: None, notified, refused, waker })
    }

    pub(super) fn is_notified(&self) -> bool {
        // ORDERING: Acquire pairs with the AcqRel of `mark_notified`. Either the sleeper checks
        // under the lock that `wake` takes after the flag was set, or it announces itself under
        // that lock before it checks; see "notify and sleep".
        self.notified.load(Ordering::Acquire)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// Returns the error of a wait that was refused.
    pub(super) fn refusal(&self) -> Option<Cycle> {
        self.refused.get().cloned()
    }

    /// Marks the entry as notified. Returns `true` if it was not notified before; then the caller
    /// must [`wake`](Self::wake) it.
    pub(super) fn mark_notified(&self) -> bool {
        // ORDERING: see `is_notified`.
        !self.notified.swap(true, Ordering::AcqRel)
    }

    /// Wakes the waiter, so that it checks again. Called without the lock.
    pub(super) fn wake(&self) {
        match &self.waker {
            Some(waker) => {
                // A waker is user code.
                let _ = unwind::catch(|| waker.wake_by_ref()).map_err(unwind::discard);
            }
            None => self.target.wake_waiters(),
        }
    }

    /// Returns `true` if it blocks something with this id.
    pub(super) fn blocks(&self, id: AwaitedId) -> bool {
        self.stack.names.binary_search(&id).is_ok()
    }

    /// Returns how many tasks with this id it blocks.
    pub(super) fn tasks_of(&self, id: AwaitedId) -> usize {
        let of_id = self.stack.tasks.iter().filter(|(group, _)| *group == id);
        of_id.fold(0, |sum, (_, tasks)| sum.saturating_add(*tasks))
    }

    /// Returns `true` if its stack is too deep to help.
    pub(super) fn is_too_deep(&self) -> bool {
        self.stack.depth >= context::MAX_HELP_DEPTH
    }

    /// Returns `true` if the wait can only end with its target.
    pub(super) fn is_certain(&self) -> bool {
        self.kind != Kind::Open && !self.is_refused()
    }

    /// Returns `true` if the wait may be one of a circle, certain or suspected. It is not if a task
    /// on a worker has polled a future: the task may go on without it.
    pub(super) fn may_be_stuck(&self) -> bool {
        !self.is_refused() && (self.waker.is_none() || self.future.is_some())
    }

    /// Refuses the wait, whose waiter the caller wakes.
    pub(super) fn refuse(&self, cycle: Cycle) {
        let _ = self.refused.set(cycle);
        self.mark_notified();
    }
}
