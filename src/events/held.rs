//! The deliveries that a future holds until their mailboxes have room.
//!
//! Rules:
//! 1. A future may never be polled again, so the pool waits for no future. A held delivery is a
//!    suspended task, as in `pool::spawn_async`: neither `wait_idle` nor a shutdown waits for it.
//!    Closing the pool cancels it.
//! 2. A poll takes the deliveries out and admits their tasks. It suspends and puts back those for
//!    which there was no room, and then checks the shutdown token. Closing first cancels the token
//!    and then looks for the deliveries. So one of the two cancels them.
//! 3. The publishing of the event ends when no delivery is held, by the poll, by the drop of the
//!    future, or by closing. It ends once.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use super::delivery::PendingDelivery;
use super::envelope::Envelope;
use super::progress::{DeliveryOutcome, PUBLISHING};
use super::registry::Recipients;
use super::room_wait::Full;
use crate::cancel::token::CancelGuard;
use crate::error::CancelReason;
use crate::nesting;
use crate::sync::{Arc, Mutex};
use crate::task::executor::Executor;
use crate::unwind;

/// The held deliveries by the index of their mailbox.
pub(super) type Deliveries<E> = BTreeMap<usize, PendingDelivery<E>>;

/// An event that is not yet in every mailbox.
pub(super) struct Held<E> {
    /// The event.
    pub(super) envelope: Arc<Envelope<E>>,
    /// Its recipients.
    pub(super) recipients: Arc<Recipients<E>>,
    state: Mutex<State<E>>,
}

/// What the lock guards.
struct State<E> {
    /// The deliveries, whose tasks are suspended, except while a poll has taken them.
    deliveries: Deliveries<E>,
    /// Woken when the pool is closed.
    waker: Option<Waker>,
    /// How many deliveries closing the pool has cancelled.
    cancelled: usize,
    /// Whether the publishing has ended; see rule 3.
    has_ended: bool,
}

impl<E: Send + Sync + 'static> Held<E> {
    /// Holds deliveries whose tasks are admitted.
    pub(super) fn new(
        envelope: Arc<Envelope<E>>,
        recipients: Arc<Recipients<E>>,
        deliveries: Deliveries<E>,
    ) -> Arc<Self> {
        let state = State { deliveries, waker: None, cancelled: 0, has_ended: false };
        let held = Self { envelope, recipients, state: Mutex::new(state) };
        (0..held.len()).for_each(|_| held.executor().suspend());
        Arc::new(held)
    }

    fn executor(&self) -> &Executor {
        &self.recipients.mailboxes[0].inner.pool.executor // an event with recipients has at least one
    }

    /// Returns the mailboxes whose deliveries are held, and the keys of these.
    pub(super) fn full(&self) -> Vec<Full<E>> {
        let state = self.state.lock();
        let mailbox = |index: usize| Arc::clone(&self.recipients.mailboxes[index]);
        state.deliveries.iter().map(|(index, delivery)| (mailbox(*index), delivery.key.clone())).collect()
    }

    /// Returns the number of held deliveries.
    pub(super) fn len(&self) -> usize {
        self.state.lock().deliveries.len()
    }

    /// Returns how many deliveries closing the pool has cancelled.
    pub(super) fn cancelled(&self) -> usize {
        self.state.lock().cancelled
    }

    /// Takes the deliveries out and admits their tasks, to try them. Stores the waker for the
    /// shutdown token. Cancels the deliveries if the pool is closed.
    pub(super) fn take(&self, waker: Waker) -> Deliveries<E> {
        let (admitted, suspended): (Deliveries<E>, Deliveries<E>) =
            self.take_suspended(waker).into_iter().partition(|_| self.executor().readmit());
        if !suspended.is_empty() {
            self.state.lock().cancelled += suspended.len();
            self.cancel(suspended);
        }
        admitted
    }

    /// Takes the deliveries out.
    fn take_suspended(&self, waker: Waker) -> Deliveries<E> {
        let mut state = self.state.lock();
        let old = state.waker.replace(waker);
        let deliveries = mem::take(&mut state.deliveries);
        drop(state);
        unwind::discard(old);
        deliveries
    }

    /// Suspends the tasks of deliveries and puts the deliveries back; keeps rule 2.
    pub(super) fn put_back(self: &Arc<Self>, deliveries: Deliveries<E>, guard: &mut Option<CancelGuard>) {
        if deliveries.is_empty() {
            return;
        }
        (0..deliveries.len()).for_each(|_| self.executor().suspend());
        self.state.lock().deliveries = deliveries;
        let token = &self.recipients.mailboxes[0].inner.pool.shutdown_token;
        guard.get_or_insert_with(|| {
            let held = Arc::clone(self);
            token.on_cancel(move || held.close().into_iter().for_each(nesting::wake))
        });
        if token.is_cancelled() {
            unwind::discard(self.close());
        }
    }

    /// Cancels the deliveries because the pool is closed. Returns the waker of the future.
    fn close(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        let deliveries = mem::take(&mut state.deliveries);
        if deliveries.is_empty() {
            return None;
        }
        state.cancelled += deliveries.len();
        let waker = state.waker.take();
        drop(state);
        self.cancel(deliveries);
        waker
    }

    /// Cancels deliveries that were counted as cancelled, and whose tasks are suspended.
    fn cancel(&self, deliveries: Deliveries<E>) {
        self.refuse_suspended(deliveries, &DeliveryOutcome::Cancelled(CancelReason::ShutDown));
        self.end();
    }

    /// Refuses the deliveries, because the future is dropped.
    pub(super) fn refuse(&self) {
        let deliveries = self.take_suspended(Waker::noop().clone());
        self.refuse_suspended(deliveries, &DeliveryOutcome::Refused);
        self.end();
    }

    fn refuse_suspended(&self, deliveries: Deliveries<E>, outcome: &DeliveryOutcome) {
        for (index, delivery) in deliveries {
            self.recipients.mailboxes[index].refuse_suspended(delivery, outcome.clone());
        }
    }

    /// Ends the publishing, unless it has ended. Returns how many deliveries closing has cancelled.
    pub(super) fn end(&self) -> usize {
        let mut state = self.state.lock();
        let (waker, cancelled) = (state.waker.take(), state.cancelled);
        let ends = !mem::replace(&mut state.has_ended, true);
        drop(state);
        unwind::discard(waker);
        if ends {
            self.envelope.complete(&self.recipients.mailboxes[0].inner, PUBLISHING, None);
        }
        cancelled
    }
}
