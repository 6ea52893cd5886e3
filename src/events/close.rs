//! How deliveries and subscriptions end, by the rules 5 and 7 of `mailbox`.

use std::mem;

use super::dead_letter::DeadLetter;
use super::handler::BoxError;
use super::mailbox::{Mailbox, PendingDelivery};
use super::progress::DeliveryOutcome;
use super::watcher::Watch;
use crate::error::CancelReason;
use crate::observe::worker_counters::WorkerCounters;
use crate::retry::{GiveUpReason, RetryError};
use crate::sync::{Arc, Ordering};
use crate::task::context;
use crate::unwind;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Ends the subscription: nothing starts any more, and what waits is cancelled before this returns.
    pub(super) fn close(&self, reason: CancelReason) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        // ORDERING: Release pairs with the Acquire of `post`, and of `call`.
        self.open.store(false, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        let waiting = mem::take(&mut state.waiting);
        let delayed = mem::take(&mut state.delayed);
        let handler = state.handler.take();
        self.room.notify_all();
        self.half_room.notify_all();
        let watches = mem::take(&mut state.watches);
        drop(state);
        watches.into_iter().for_each(Watch::call);
        self.enter(|_| unwind::discard(handler));
        self.cancel_items(waiting, reason);
        for (delayed, place) in delayed.into_values() {
            let removed = self.shared.engine.timers.remove(place);
            drop(removed);
            // Whoever is bringing it back finds the subscription closed.
            self.cancel_items(delayed.take(), reason);
        }
        self.quiet.notify_all();
        self.shared.steps.beat();
    }

    /// Ends deliveries that will not start, or not again.
    pub(super) fn cancel_items(&self, items: impl IntoIterator<Item = PendingDelivery<E>>, reason: CancelReason) {
        for item in items {
            self.enter(|record| self.cancel_item(record, item, reason));
        }
    }

    /// Ends a delivery that will not start, or not again. Called by members only.
    pub(super) fn cancel_item(&self, record: &WorkerCounters, mut item: PendingDelivery<E>, reason: CancelReason) {
        self.shared.engine.executor.cancelled(record, &self.info(&item), reason);
        let tried = item.retrying.take().and_then(|retrying| retrying.give_up(GiveUpReason::Cancelled(reason)));
        match tried {
            Some(error) => self.land_failure(record, item, error),
            None => self.land(record, item, DeliveryOutcome::Cancelled(reason)),
        }
    }

    /// The last step of each delivery. Called by members only.
    pub(super) fn land(&self, record: &WorkerCounters, item: PendingDelivery<E>, outcome: DeliveryOutcome) {
        let PendingDelivery { envelope, index, .. } = item;
        envelope.land(&self.shared, index, Some(outcome));
        context::set_item(0); // the address is free from here on
        drop(envelope);
        self.shared.engine.executor.task_done(record, 1);
        if self.settings.once {
            self.close(CancelReason::Requested);
        }
    }

    /// The last step of a delivery that has failed.
    pub(super) fn land_failure(&self, record: &WorkerCounters, item: PendingDelivery<E>, error: RetryError<BoxError>) {
        let error = Arc::new(error);
        if let Some(on_dead_letter) = &self.shared.hooks.on_dead_letter {
            let (envelope, subscription) = (Arc::clone(&item.envelope) as _, Arc::clone(&self.settings.name));
            let letter = DeadLetter { envelope, subscription, error: Arc::clone(&error) };
            self.shared.call_hook(item.envelope.generation(), || on_dead_letter(letter));
        }
        self.land(record, item, DeliveryOutcome::Failed(error));
    }
}

impl<E> Drop for Mailbox<E> {
    fn drop(&mut self) {
        self.shared.members.lock().remove(&self.group);
        self.shared.engine.groups.deregister(&self.registration);
        unwind::discard(self.state.get_mut().handler.take());
    }
}
