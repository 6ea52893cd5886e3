//! The deliveries that a future holds until their mailboxes have room.
//!
//! Rules:
//! 1. Closing the pool cancels held deliveries at once, because the future may never be polled
//!    again. So a pool drains however many futures have been forgotten.
//! 2. A poll takes the deliveries out, puts back those for which there was no room, and then checks
//!    the shutdown token. Closing first cancels the token and then looks for the deliveries. So one
//!    of the two cancels them.
//! 3. The publishing of the event ends when no delivery is held, by the poll, by the drop of the
//!    future, or by closing. It ends once.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use super::envelope::Envelope;
use super::mailbox::{Mailbox, PendingDelivery};
use super::progress::{DeliveryOutcome, PUBLISHING};
use super::registry::Recipients;
use crate::cancel::token::CancelGuard;
use crate::error::CancelReason;
use crate::nesting;
use crate::sync::{Arc, Mutex};
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
    /// The deliveries, except while a poll has taken them.
    deliveries: Deliveries<E>,
    /// Woken when the pool is closed.
    waker: Option<Waker>,
    /// How many deliveries closing the pool has cancelled.
    cancelled: usize,
    /// Whether the publishing has ended; see rule 3.
    has_ended: bool,
}

impl<E: Send + Sync + 'static> Held<E> {
    pub(super) fn new(
        envelope: Arc<Envelope<E>>,
        recipients: Arc<Recipients<E>>,
        deliveries: Deliveries<E>,
    ) -> Arc<Self> {
        let state = State { deliveries, waker: None, cancelled: 0, has_ended: false };
        Arc::new(Self { envelope, recipients, state: Mutex::new(state) })
    }

    /// Returns the mailboxes whose deliveries are held.
    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox<E>>> {
        let indices: Vec<usize> = self.state.lock().deliveries.keys().copied().collect();
        indices.into_iter().map(|index| Arc::clone(&self.recipients.mailboxes[index])).collect()
    }

    /// Returns the number of held deliveries.
    pub(super) fn len(&self) -> usize {
        self.state.lock().deliveries.len()
    }

    /// Returns how many deliveries closing the pool has cancelled.
    pub(super) fn cancelled(&self) -> usize {
        self.state.lock().cancelled
    }

    /// Takes the deliveries out, to try them. Stores the waker for the shutdown token.
    pub(super) fn take(&self, waker: Waker) -> Deliveries<E> {
        let mut state = self.state.lock();
        let old = state.waker.replace(waker);
        let deliveries = mem::take(&mut state.deliveries);
        drop(state);
        unwind::discard(old);
        deliveries
    }

    /// Puts deliveries back; keeps rule 2.
    pub(super) fn put_back(self: &Arc<Self>, deliveries: Deliveries<E>, guard: &mut Option<CancelGuard>) {
        if deliveries.is_empty() {
            return;
        }
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
        self.refuse(deliveries, &DeliveryOutcome::Cancelled(CancelReason::ShutDown));
        self.end();
        waker
    }

    /// Refuses deliveries.
    pub(super) fn refuse(&self, deliveries: Deliveries<E>, outcome: &DeliveryOutcome) {
        for (index, delivery) in deliveries {
            let _ = self.recipients.mailboxes[index].refuse(delivery, Some(outcome.clone()));
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
