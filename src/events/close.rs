//! How deliveries and subscriptions end, by the rules 5 and 7 of `mailbox`.

use std::mem;

use super::dead_letter::DeadLetter;
use super::delivery::PendingDelivery;
use super::envelope::Envelope;
use super::handler::BoxError;
use super::mailbox::Mailbox;
use super::progress::DeliveryOutcome;
use crate::error::CancelReason;
use crate::observe::task_info::TaskOutcome;
use crate::observe::worker_counters::WorkerCounters;
use crate::retry::{GiveUpReason, RetryError};
use crate::sync::{Arc, Ordering};
use crate::task::context;
use crate::task::propagation::Part;
use crate::unwind;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Closes the subscription: no handler is called any more. Cancels its waiting and delayed
    /// deliveries before it returns.
    pub(super) fn close(&self, reason: CancelReason) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        // ORDERING: Release pairs with the Acquire of `offer`, and of `call`.
        self.open.store(false, Ordering::Release);
        self.closed.store(true, Ordering::Release);
        let (waiting, key_of) = state.queue.take_all();
        let delayed = mem::take(&mut state.delayed);
        self.stop_linger(&mut state);
        let handlers = (state.handler.take(), state.batch_handler.take());
        let ending = waiting.len() + delayed.len();
        state.ending += ending;
        self.room.wake_all();
        let (watches, futures) = (mem::take(&mut state.watches), state.futures.take());
        drop(state);
        watches.notify_all();
        // Another thread may be requeuing one that is delayed, so this thread does not stand for
        // the end of those.
        self.as_closer(waiting.len(), |_| {
            futures.wake();
            self.cancel_deliveries(waiting, reason);
            for (delayed, place) in delayed.into_values() {
                let removed = self.inner.pool.timers.remove(place);
                drop(removed);
                // A thread that is requeuing it finds the subscription closed.
                self.cancel_deliveries(delayed.take().map(|(delivery, _)| delivery), reason);
            }
        });
        self.state.lock().ending -= ending;
        self.stopped.notify_all();
        self.inner.steps.notify();
        // Last, because a destructor may wait for the deliveries.
        self.as_closer(0, |_| {
            unwind::discard(handlers.0);
            unwind::discard(handlers.1);
            unwind::discard(key_of);
        });
    }

    /// Cancels deliveries that will not start, or not again.
    pub(super) fn cancel_deliveries(
        &self,
        deliveries: impl IntoIterator<Item = PendingDelivery<E>>,
        reason: CancelReason,
    ) {
        for delivery in deliveries {
            self.as_closer(0, |counters| self.cancel_delivery(counters, delivery, reason));
        }
    }

    /// Cancels a delivery that will not start, or not again. Called by members only.
    pub(super) fn cancel_delivery(
        &self,
        counters: &WorkerCounters,
        mut delivery: PendingDelivery<E>,
        reason: CancelReason,
    ) {
        let rest = delivery.retry.as_mut().map(|retry| mem::take(&mut retry.rest));
        let (executor, outcome) = (&self.inner.pool.executor, TaskOutcome::Cancelled(reason));
        executor.cancelled_only(counters, &self.origin(&delivery), reason);
        let tried = delivery.retry.take().and_then(|retry| retry.give_up(GiveUpReason::Cancelled(reason)));
        match tried {
            Some(error) => self.complete_failed(counters, delivery, error, outcome),
            None => {
                executor.end_context(delivery.id, outcome);
                self.complete(counters, delivery, DeliveryOutcome::Cancelled(reason));
            }
        }
        for delivery in rest.into_iter().flatten() {
            self.cancel_delivery(counters, delivery, reason);
        }
    }

    /// Completes a delivery: its last step. Called by members only.
    pub(super) fn complete(&self, counters: &WorkerCounters, delivery: PendingDelivery<E>, outcome: DeliveryOutcome) {
        let PendingDelivery { envelope, index, id, key, .. } = delivery;
        self.end_delivery(&envelope, index, Some(outcome));
        context::set_item(0); // the address may be reused from here on
        drop(envelope);
        self.release_key(key, id);
        self.inner.pool.executor.task_done(counters, 1);
        if self.settings.once {
            self.close(CancelReason::Requested);
        }
    }

    /// Counts the outcome of a delivery, and then tells it to the event. An `outcome` of `None`
    /// stands for a delivery that was not needed.
    pub(super) fn end_delivery(&self, envelope: &Envelope<E>, index: usize, outcome: Option<DeliveryOutcome>) {
        if let Some(outcome) = &outcome {
            self.counters.count(outcome);
        }
        envelope.complete(&self.inner, index, outcome);
    }

    /// Completes a delivery whose last attempt has failed. The hook for dead letters is called in
    /// the context of the delivery. Called by members only.
    pub(super) fn complete_failed(
        &self,
        counters: &WorkerCounters,
        delivery: PendingDelivery<E>,
        error: RetryError<BoxError>,
        outcome: TaskOutcome,
    ) {
        let (error, executor) = (Arc::new(error), &self.inner.pool.executor);
        if let Some(on_dead_letter) = &self.inner.hooks.on_dead_letter {
            let (envelope, subscription) = (Arc::clone(&delivery.envelope) as _, Arc::clone(&self.settings.name));
            let dead_letter = DeadLetter { envelope, subscription, error: Arc::clone(&error) };
            executor.in_context(Some(delivery.id), Part::Hooks, || {
                self.inner.call_hook(delivery.envelope.generation(), || on_dead_letter(dead_letter));
            });
        }
        executor.end_context(delivery.id, outcome);
        self.complete(counters, delivery, DeliveryOutcome::Failed(error));
    }
}

impl<E> Drop for Mailbox<E> {
    fn drop(&mut self) {
        self.inner.members.lock().remove(self.group);
        self.inner.pool.groups.deregister(&self.registration);
        let state = self.state.get_mut();
        unwind::discard(state.handler.take());
        unwind::discard(state.batch_handler.take());
    }
}
