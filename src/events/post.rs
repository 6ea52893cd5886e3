//! How events come into a mailbox, by the rules 1 and 6 of `mailbox`.
//!
//! An event is *offered* to each mailbox first, which never waits. Where the mailbox is full and its
//! policy is to block, the publisher *holds* the delivery. It settles what it holds afterwards, by one of
//! three ways: a worker makes room; a thread without tasks on its stack that holds one delivery blocks on
//! that mailbox; any other *watches* the mailboxes of all that it holds, and is called by each that has room.

use std::mem;
use std::panic::Location;
use std::time::Duration;

use super::envelope::Envelope;
use super::mailbox::{Mailbox, Mode, PendingDelivery, State, Stint};
use super::progress::DeliveryOutcome;
use super::watcher::{Watch, Watcher};
use crate::error::CancelReason;
use crate::pool::overflow::Overflow;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::time::deadline::Deadline;

/// How long a publisher waits for half of the room before it wants the first there is.
const PATIENCE: Duration = Duration::from_millis(1);

/// What became of an event that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum PostResult {
    /// It has a delivery, which has ended or will.
    Taken,
    /// The same, and the subscription listens no more.
    Spent,
    /// The subscription had ended, or was spent.
    NotWanted,
}

/// What became of an event that was offered.
#[must_use]
pub(super) enum Offered<E> {
    /// The mailbox has decided.
    PostResult(PostResult),
    /// The mailbox is full, and its policy is to wait for room.
    Held(PendingDelivery<E>),
    /// The handler is to be called on this thread.
    Here(PendingDelivery<E>),
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Offers an event; never waits.
    pub(super) fn offer(
        self: &Arc<Self>,
        envelope: &Arc<Envelope<E>>,
        index: usize,
        location: &'static Location<'static>,
    ) -> Offered<E> {
        // ORDERING: Acquire pairs with the Release of `spend_if_once` and `close`; the lock decides.
        if !self.open.load(Ordering::Acquire) {
            let ended_with_pool = self.state.lock().closed == Some(CancelReason::ShutDown);
            let outcome = ended_with_pool.then_some(DeliveryOutcome::Cancelled(CancelReason::ShutDown));
            let posted = if ended_with_pool { PostResult::Taken } else { PostResult::NotWanted };
            envelope.land(&self.shared, index, outcome);
            return Offered::PostResult(posted);
        }
        let executor = &self.shared.engine.executor;
        let Some(id) = executor.admit(location, Some(&self.settings.name)) else {
            envelope.land(&self.shared, index, Some(DeliveryOutcome::Cancelled(CancelReason::ShutDown)));
            return Offered::PostResult(PostResult::Taken);
        };
        let has_timeout = self.settings.policy.as_ref().is_some_and(RetryPolicy::has_timeout);
        let item = PendingDelivery {
            envelope: Arc::clone(envelope),
            index,
            id,
            location,
            queued_at: executor.now_if_timing(),
            published_at: has_timeout.then(|| self.shared.engine.timers.clock().now()),
            retrying: None,
        };
        match self.settings.mode {
            Mode::Synchronous => Offered::Here(item),
            Mode::Ordered | Mode::Concurrent(_) => match self.put(item) {
                Ok(posted) => Offered::PostResult(posted),
                Err((_, item)) => Offered::Held(item),
            },
        }
    }

    /// Puts a held delivery into the mailbox, or leaves the watch there and gives the delivery back.
    pub(super) fn put_or_watch(
        self: &Arc<Self>,
        item: PendingDelivery<E>,
        watch: Watch,
    ) -> Result<PostResult, PendingDelivery<E>> {
        self.put(item).map_err(|(mut state, item)| {
            state.watches.push_back(watch);
            item
        })
    }

    /// Puts a held delivery into the mailbox if there is room now; else gives it back.
    pub(super) fn put_now(self: &Arc<Self>, item: PendingDelivery<E>) -> Result<PostResult, PendingDelivery<E>> {
        self.put(item).map_err(|(_, item)| item)
    }

    /// Takes the watches of a publisher back that watches no more.
    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>) {
        self.state.lock().watches.retain(|watch| !Arc::ptr_eq(&watch.watcher, watcher));
    }

    /// Puts a held delivery into the mailbox: waits until there is room, or makes it; rule 6.
    pub(super) fn put_with_patience(self: &Arc<Self>, item: PendingDelivery<E>) -> PostResult {
        let (mut item, mut patient) = (item, true);
        loop {
            let (state, held) = match self.put(item) {
                Ok(posted) => return posted,
                Err(full) => full,
            };
            if !self.make_room(state, mem::take(&mut patient)) {
                return self.refuse(held, Some(DeliveryOutcome::Refused));
            }
            item = held;
        }
    }

    /// Puts a delivery into the mailbox, or does with it what the overflow policy says. Where that is to wait
    /// for room, gives it back, with the lock under which the mailbox was found full.
    fn put(
        self: &Arc<Self>,
        item: PendingDelivery<E>,
    ) -> Result<PostResult, (MutexGuard<'_, State<E>>, PendingDelivery<E>)> {
        let mut state = self.state.lock();
        if !state.takes_events_in() {
            drop(state);
            return Ok(self.refuse(item, None));
        }
        if state.occupied() < self.settings.capacity {
            return Ok(self.put_locked(state, item));
        }
        let oldest = match self.settings.overflow {
            Overflow::Block | Overflow::CallerRuns => return Err((state, item)),
            Overflow::DiscardNewest => None,
            // There is none if all are delayed: then the new one is given up.
            Overflow::DiscardOldest => state.waiting.pop_front(),
        };
        let (posted, discarded) = match oldest {
            Some(oldest) => (self.put_locked(state, item), oldest),
            None => {
                drop(state);
                (PostResult::Taken, item)
            }
        };
        self.cancel_items([discarded], CancelReason::Discarded);
        Ok(posted)
    }

    fn put_locked(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, item: PendingDelivery<E>) -> PostResult {
        state.waiting.push_back(item);
        let posted = self.spend_if_once(&mut state);
        self.send_ticket_if_needed(state);
        posted
    }

    /// Waits until there may be room, or makes room; returns whether this thread can do either. See rule 6.
    fn make_room(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, patient: bool) -> bool {
        if context::is_worker_of(self.shared.engine.id()) {
            if context::depth() >= context::MAX_INLINE_DEPTH || !self.can_run(&state) {
                return false;
            }
            state.runners += 1;
            drop(state);
            self.run(Stint::Deliveries(1));
        } else if patient {
            // Publisher and handler work in long turns, rather than wake each other for each event.
            state.wait_for_half += 1;
            state = self.half_room.wait_until(state, Deadline::after(PATIENCE).instant());
            state.wait_for_half -= 1;
        } else {
            state.wait_for_room += 1;
            state = self.room.wait_until(state, None);
            state.wait_for_room -= 1;
        }
        true
    }

    /// Takes a delivery back whose event was not taken in.
    pub(super) fn refuse(&self, item: PendingDelivery<E>, outcome: Option<DeliveryOutcome>) -> PostResult {
        let posted = if outcome.is_some() { PostResult::Taken } else { PostResult::NotWanted };
        self.shared.engine.executor.refuse(&self.info(&item));
        let PendingDelivery { envelope, index, .. } = item;
        envelope.land(&self.shared, index, outcome);
        posted
    }

    /// A subscription that listens once takes nothing more in.
    pub(super) fn spend_if_once(&self, state: &mut State<E>) -> PostResult {
        if !self.settings.once {
            return PostResult::Taken;
        }
        state.spent = true;
        // ORDERING: Release pairs with the Acquire of `offer`.
        self.open.store(false, Ordering::Release);
        PostResult::Spent
    }
}
