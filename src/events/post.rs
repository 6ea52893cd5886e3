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
use super::mailbox::{Budget, Mailbox, Mode, PendingDelivery, State};
use super::progress::DeliveryOutcome;
use super::watcher::{Watch, Watcher};
use crate::error::CancelReason;
use crate::pool::overflow::Overflow;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::time::deadline::Deadline;

/// How long a publisher waits for half of the room before it wants the first there is.
const LOW_WATER_WAIT: Duration = Duration::from_millis(1);

/// What became of an event that was result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum PostResult {
    /// It has a delivery, which has ended or will.
    Accepted,
    /// The same, and the subscription listens no more.
    Exhausted,
    /// The subscription had ended, or was exhausted.
    Declined,
}

/// What became of an event that was offered.
#[must_use]
pub(super) enum Offered<E> {
    /// The mailbox has decided.
    Decided(PostResult),
    /// The mailbox is full, and its policy is to wait for room.
    Held(PendingDelivery<E>),
    /// The handler is to be called on this thread.
    Inline(PendingDelivery<E>),
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Offers an event; never waits.
    pub(super) fn offer(
        self: &Arc<Self>,
        envelope: &Arc<Envelope<E>>,
        index: usize,
        location: &'static Location<'static>,
    ) -> Offered<E> {
        // ORDERING: Acquire pairs with the Release of `exhaust_if_once` and `close`; the lock decides.
        if !self.open.load(Ordering::Acquire) {
            let ended_with_pool = self.state.lock().closed == Some(CancelReason::ShutDown);
            let outcome = ended_with_pool.then_some(DeliveryOutcome::Cancelled(CancelReason::ShutDown));
            let result = if ended_with_pool { PostResult::Accepted } else { PostResult::Declined };
            envelope.complete(&self.inner, index, outcome);
            return Offered::Decided(result);
        }
        let executor = &self.inner.pool.executor;
        let Some(id) = executor.admit(location, Some(&self.settings.name)) else {
            envelope.complete(&self.inner, index, Some(DeliveryOutcome::Cancelled(CancelReason::ShutDown)));
            return Offered::Decided(PostResult::Accepted);
        };
        let has_timeout = self.settings.policy.as_ref().is_some_and(RetryPolicy::has_timeout);
        let delivery = PendingDelivery {
            envelope: Arc::clone(envelope),
            index,
            id,
            location,
            queued_at: executor.now_if_timing(),
            published_at: has_timeout.then(|| self.inner.pool.timers.clock().now()),
            retry: None,
        };
        match self.settings.mode {
            Mode::Synchronous => Offered::Inline(delivery),
            Mode::Ordered | Mode::Concurrent(_) => match self.put(delivery) {
                Ok(result) => Offered::Decided(result),
                Err((_, delivery)) => Offered::Held(delivery),
            },
        }
    }

    /// Puts a held delivery into the mailbox, or leaves the watch there and gives the delivery back.
    pub(super) fn put_or_watch(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
        watch: Watch,
    ) -> Result<PostResult, PendingDelivery<E>> {
        self.put(delivery).map_err(|(mut state, delivery)| {
            state.watches.push_back(watch);
            delivery
        })
    }

    /// Puts a held delivery into the mailbox if there is room now; else gives it back.
    pub(super) fn put_now(self: &Arc<Self>, delivery: PendingDelivery<E>) -> Result<PostResult, PendingDelivery<E>> {
        self.put(delivery).map_err(|(_, delivery)| delivery)
    }

    /// Takes the watches of a publisher back that watches no more.
    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>) {
        self.state.lock().watches.retain(|watch| !Arc::ptr_eq(&watch.watcher, watcher));
    }

    /// Puts a held delivery into the mailbox: waits until there is room, or makes it; rule 6.
    pub(super) fn put_blocking(self: &Arc<Self>, delivery: PendingDelivery<E>) -> PostResult {
        let (mut delivery, mut first_wait) = (delivery, true);
        loop {
            let (state, held) = match self.put(delivery) {
                Ok(result) => return result,
                Err(full) => full,
            };
            if !self.make_room(state, mem::take(&mut first_wait)) {
                return self.refuse(held, Some(DeliveryOutcome::Refused));
            }
            delivery = held;
        }
    }

    /// Puts a delivery into the mailbox, or does with it what the overflow policy says. Where that is to wait
    /// for room, gives it back, with the lock under which the mailbox was found full.
    fn put(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
    ) -> Result<PostResult, (MutexGuard<'_, State<E>>, PendingDelivery<E>)> {
        let mut state = self.state.lock();
        if !state.accepts_events() {
            drop(state);
            return Ok(self.refuse(delivery, None));
        }
        if state.occupied() < self.settings.capacity {
            return Ok(self.put_locked(state, delivery));
        }
        let oldest = match self.settings.overflow {
            Overflow::Block | Overflow::CallerRuns => return Err((state, delivery)),
            Overflow::DiscardNewest => None,
            // There is none if all are delayed: then the new one is given up.
            Overflow::DiscardOldest => state.waiting.pop_front(),
        };
        let (result, discarded) = match oldest {
            Some(oldest) => (self.put_locked(state, delivery), oldest),
            None => {
                drop(state);
                (PostResult::Accepted, delivery)
            }
        };
        self.cancel_deliveries([discarded], CancelReason::Discarded);
        Ok(result)
    }

    fn put_locked(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, delivery: PendingDelivery<E>) -> PostResult {
        state.waiting.push_back(delivery);
        let result = self.exhaust_if_once(&mut state);
        self.send_ticket_if_needed(state);
        result
    }

    /// Waits until there may be room, or makes room; returns whether this thread can do either. See rule 6.
    fn make_room(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, first_wait: bool) -> bool {
        if context::is_worker_of(self.inner.pool.id()) {
            if context::depth() >= context::MAX_INLINE_DEPTH || !self.can_run(&state) {
                return false;
            }
            state.runners += 1;
            drop(state);
            self.run(Budget::Deliveries(1));
        } else if first_wait {
            // Publisher and handler work in long turns, rather than wake each other for each event.
            state.low_water_waiters += 1;
            state = self.low_water.wait_until(state, Deadline::after(LOW_WATER_WAIT).instant());
            state.low_water_waiters -= 1;
        } else {
            state.room_waiters += 1;
            state = self.room.wait_until(state, None);
            state.room_waiters -= 1;
        }
        true
    }

    /// Takes a delivery back whose event was not taken in.
    pub(super) fn refuse(&self, delivery: PendingDelivery<E>, outcome: Option<DeliveryOutcome>) -> PostResult {
        let result = if outcome.is_some() { PostResult::Accepted } else { PostResult::Declined };
        self.inner.pool.executor.refuse(&self.info(&delivery));
        let PendingDelivery { envelope, index, .. } = delivery;
        envelope.complete(&self.inner, index, outcome);
        result
    }

    /// A subscription that listens once takes nothing more in.
    pub(super) fn exhaust_if_once(&self, state: &mut State<E>) -> PostResult {
        if !self.settings.once {
            return PostResult::Accepted;
        }
        state.exhausted = true;
        // ORDERING: Release pairs with the Acquire of `offer`.
        self.open.store(false, Ordering::Release);
        PostResult::Exhausted
    }
}
