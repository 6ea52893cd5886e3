//! How events get into a mailbox, by the rules 1 and 6 of `mailbox`.
//!
//! The publisher first *offers* the event to each mailbox, which never blocks. If a mailbox is full
//! and its policy is to block, the publisher *holds* the delivery. Afterwards it puts the
//! deliveries that it holds into their mailboxes in one of three ways:
//!
//! - A worker of the pool makes room.
//! - A thread that has no tasks on its stack and holds a single delivery blocks on that mailbox.
//! - Any other thread leaves a *watch* in each mailbox of its held deliveries, and is notified by
//!   each that has room.

use std::panic::Location;
use std::task::Waker;

use super::delivery::PendingDelivery;
use super::envelope::Envelope;
use super::mailbox::{Mailbox, Mode, State};
use super::progress::DeliveryOutcome;
use super::watcher::{Watch, WatchKey};
use crate::error::{CancelReason, CycleKind, CycleTarget};
use crate::nesting;
use crate::pool::overflow::Overflow;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::task::context;
use crate::task::room::RoomWait;
use crate::task::sleepers;
use crate::task::wakers::{WakerKey, Wakers};
use crate::time::deadline::Deadline;
use crate::unwind;

/// The result of posting an event to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum PostResult {
    /// There is a delivery, which has ended or will end.
    Posted,
    /// As above, and the subscription accepts no more events.
    Exhausted,
    /// The subscription is closed or exhausted.
    Declined,
}

impl PostResult {
    /// Returns the result for a delivery that was never in the mailbox; an outcome counts as one.
    fn of_withdrawn(outcome: Option<&DeliveryOutcome>) -> Self {
        if outcome.is_some() { Self::Posted } else { Self::Declined }
    }
}

/// Returns the outcome of an event that found its subscription closed for this reason; `None` if it
/// has none, because the subscription ended before the pool did.
pub(super) fn end_with_pool(closed: Option<CancelReason>) -> Option<DeliveryOutcome> {
    closed.filter(|reason| *reason == CancelReason::ShutDown).map(DeliveryOutcome::Cancelled)
}

/// The result of offering an event.
#[must_use]
pub(super) enum Offered<E> {
    /// The mailbox has decided.
    Decided(PostResult),
    /// The mailbox is full, and its policy is to wait for room.
    Held(PendingDelivery<E>),
    /// The handler is to be called on this thread.
    Inline(PendingDelivery<E>),
}

/// Whether a place for a delivery was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Reserved {
    /// It was.
    Place,
    /// The delivery needs none, because it never makes the publisher wait.
    NotNeeded,
    /// There is no room.
    Full,
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Offers an event; never blocks.
    pub(super) fn offer(
        self: &Arc<Self>,
        envelope: &Arc<Envelope<E>>,
        index: usize,
        location: &'static Location<'static>,
    ) -> Offered<E> {
        let delivery = match self.admit(envelope, index, location) {
            Ok(delivery) => delivery,
            Err(result) => return Offered::Decided(result),
        };
        match self.settings.mode {
            Mode::Synchronous => Offered::Inline(delivery),
            Mode::Ordered | Mode::OrderedBy | Mode::Concurrent(_) => match self.put(delivery) {
                Ok(result) => Offered::Decided(result),
                Err((_, delivery)) => Offered::Held(delivery),
            },
        }
    }

    /// Admits a delivery, or decides that there is none.
    pub(super) fn admit(
        &self,
        envelope: &Arc<Envelope<E>>,
        index: usize,
        location: &'static Location<'static>,
    ) -> Result<PendingDelivery<E>, PostResult> {
        // ORDERING: Acquire pairs with the Release of `exhaust_if_once` and `close`; the lock
        // decides.
        if !self.open.load(Ordering::Acquire) {
            let outcome = end_with_pool(self.state.lock().closed);
            let result = PostResult::of_withdrawn(outcome.as_ref());
            self.end_delivery(envelope, index, outcome);
            return Err(result);
        }
        let executor = &self.inner.pool.executor;
        let Some(id) = executor.admit(location, Some(&self.settings.name)) else {
            self.end_delivery(envelope, index, Some(DeliveryOutcome::Cancelled(CancelReason::ShutDown)));
            return Err(PostResult::Posted);
        };
        let has_timeout = self.settings.policy.as_ref().is_some_and(RetryPolicy::has_timeout);
        let mut delivery = PendingDelivery {
            envelope: Arc::clone(envelope),
            index,
            id,
            location,
            queued_at: executor.now_if_timing(),
            published_at: has_timeout.then(|| self.inner.pool.timers.clock().now()),
            key: None,
            retry: None,
        };
        if self.settings.mode == Mode::OrderedBy {
            if context::depth() >= context::MAX_HELP_DEPTH {
                return Err(self.refuse(delivery, Some(DeliveryOutcome::Refused)));
            }
            delivery.key = self.keep_key(envelope);
        }
        Ok(delivery)
    }

    /// Puts a held delivery into the mailbox. If the mailbox is full, leaves the watch there and
    /// returns the delivery with the key of the watch.
    pub(super) fn put_or_watch(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
        watch: Watch,
    ) -> Result<PostResult, (PendingDelivery<E>, WatchKey)> {
        self.put(delivery).map_err(|(mut state, delivery)| (delivery, state.watches.add(watch)))
    }

    /// Puts a held delivery into the mailbox. If the mailbox is full, stores the waker of the
    /// future there and returns the delivery.
    pub(super) fn poll_put(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
        key: WakerKey,
        waker: Waker,
    ) -> Result<PostResult, PendingDelivery<E>> {
        let (result, unused) = match self.put(delivery) {
            Ok(result) => (Ok(result), Some(waker)),
            Err((mut state, delivery)) => (Err(delivery), state.futures.set(key, waker)),
        };
        unwind::discard(unused);
        result
    }

    /// Removes the waker of a future that no longer waits.
    pub(super) fn stop_polling(&self, key: WakerKey) {
        let waker = self.state.lock().futures.remove(key);
        unwind::discard(waker);
    }

    /// Reserves a place for a delivery, if the mailbox would hold the publisher up without one.
    pub(super) fn reserve(&self, delivery: &PendingDelivery<E>) -> Reserved {
        let waits = matches!(self.settings.overflow, Overflow::Block | Overflow::CallerRuns);
        let mut state = self.state.lock();
        if self.settings.mode == Mode::Synchronous || !waits || !state.accepts_events() {
            Reserved::NotNeeded
        } else if self.has_room(&state, delivery.key.as_ref()) {
            state.reserved += 1;
            state.queue.count_reserved(delivery, true);
            Reserved::Place
        } else {
            Reserved::Full
        }
    }

    /// Gives a reserved place back. Returns the futures that wait for it, for the caller to wake.
    #[must_use]
    pub(super) fn release_place(&self, delivery: &PendingDelivery<E>) -> Option<Wakers> {
        let mut state = self.state.lock();
        state.reserved -= 1;
        state.queue.count_reserved(delivery, false);
        self.notify_publishers(&mut state)
    }

    /// Puts a delivery into its reserved place. Returns it if the subscription accepts no events
    /// any more. Runs no user code.
    pub(super) fn put_reserved(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
    ) -> Result<PostResult, PendingDelivery<E>> {
        let mut state = self.state.lock();
        state.reserved -= 1;
        state.queue.count_reserved(&delivery, false);
        if state.accepts_events() { Ok(self.put_locked(state, delivery)) } else { Err(delivery) }
    }

    /// Puts a held delivery into the mailbox, or returns it if there is no room now.
    pub(super) fn put_now(self: &Arc<Self>, delivery: PendingDelivery<E>) -> Result<PostResult, PendingDelivery<E>> {
        self.put(delivery).map_err(|(_, delivery)| delivery)
    }

    /// Removes the watch of a publisher that no longer waits.
    pub(super) fn unwatch(&self, watch: WatchKey) {
        self.state.lock().watches.remove(watch);
    }

    /// Puts a held delivery into the mailbox; waits for room or makes it, by rule 6.
    pub(super) fn put_blocking(self: &Arc<Self>, delivery: PendingDelivery<E>) -> PostResult {
        let (mut delivery, mut wait) = (delivery, None);
        loop {
            let (state, held) = match self.put(delivery) {
                Ok(result) => return result,
                Err(full) => full,
            };
            if !self.make_room(state, &held, &mut wait) {
                return self.refuse(held, Some(DeliveryOutcome::Refused));
            }
            delivery = held;
        }
    }

    /// Puts a delivery into the mailbox, or does what the overflow policy says.
    ///
    /// If the policy is to wait for room, returns the delivery, with the lock under which the
    /// mailbox was found full.
    fn put(
        self: &Arc<Self>,
        delivery: PendingDelivery<E>,
    ) -> Result<PostResult, (MutexGuard<'_, State<E>>, PendingDelivery<E>)> {
        let mut state = self.state.lock();
        if !state.accepts_events() {
            let outcome = end_with_pool(state.closed);
            drop(state);
            return Ok(self.refuse(delivery, outcome));
        }
        if self.has_room(&state, delivery.key.as_ref()) {
            return Ok(self.put_locked(state, delivery));
        }
        let oldest = match self.settings.overflow {
            Overflow::Block | Overflow::CallerRuns => return Err((state, delivery)),
            Overflow::DiscardNewest => None,
            // If all are delayed, there is none to discard, so the new one is discarded.
            Overflow::DiscardOldest => {
                let key = self.full_key(&state, delivery.key.as_ref());
                state.queue.remove_oldest(key)
            }
        };
        let (result, discarded) = match oldest {
            Some(oldest) => (self.put_locked(state, delivery), oldest),
            None => {
                drop(state);
                (PostResult::Posted, delivery)
            }
        };
        self.cancel_deliveries([discarded], CancelReason::Discarded);
        Ok(result)
    }

    fn put_locked(self: &Arc<Self>, mut state: MutexGuard<'_, State<E>>, delivery: PendingDelivery<E>) -> PostResult {
        state.queue.push_back(delivery);
        let result = self.exhaust_if_once(&mut state);
        if let Some(batch) = self.settings.batch
            && state.queue.len() == 1
        {
            self.start_linger(&mut state, batch.linger);
        }
        self.send_ticket_if_needed(state);
        result
    }

    /// Waits until there may be room, or makes room. Returns `false` if this thread can do neither;
    /// see rule 6.
    fn make_room(
        self: &Arc<Self>,
        state: MutexGuard<'_, State<E>>,
        held: &PendingDelivery<E>,
        wait: &mut Option<RoomWait>,
    ) -> bool {
        if context::is_worker_of(self.inner.pool.id()) {
            if context::depth() >= context::MAX_INLINE_DEPTH {
                return false;
            }
            let key = self.full_key(&state, held.key.as_ref());
            return self.run_one(state, key);
        } else if nesting::has_pending() {
            drop(state);
            return nesting::call_pending();
        } else {
            let wait = *wait.get_or_insert_with(RoomWait::begin);
            let target = || CycleTarget::new(CycleKind::Mailbox).label(Some(&self.settings.name));
            let list = || sleepers::list(target(), self.inner.pool.id(), Deadline::NEVER);
            drop(self.room.sleep(state, wait, Deadline::NEVER, Some(&list), |state| &mut state.room_waiters));
        }
        true
    }

    /// Withdraws a delivery whose event was not accepted.
    pub(super) fn refuse(&self, delivery: PendingDelivery<E>, outcome: Option<DeliveryOutcome>) -> PostResult {
        let result = PostResult::of_withdrawn(outcome.as_ref());
        self.inner.pool.executor.refuse(&self.origin(&delivery));
        let PendingDelivery { envelope, index, id, key, .. } = delivery;
        self.release_key(key, id);
        self.end_delivery(&envelope, index, outcome);
        result
    }

    /// Refuses a delivery whose task is suspended.
    pub(super) fn refuse_suspended(&self, delivery: PendingDelivery<E>, outcome: DeliveryOutcome) {
        self.inner.pool.executor.refuse_suspended(&self.origin(&delivery));
        let PendingDelivery { envelope, index, id, key, .. } = delivery;
        self.release_key(key, id);
        self.end_delivery(&envelope, index, Some(outcome));
    }

    /// Closes a `once` subscription to further events.
    pub(super) fn exhaust_if_once(&self, state: &mut State<E>) -> PostResult {
        if !self.settings.once {
            return PostResult::Posted;
        }
        state.exhausted = true;
        // ORDERING: Release pairs with the Acquire of `offer`.
        self.open.store(false, Ordering::Release);
        PostResult::Exhausted
    }
}
