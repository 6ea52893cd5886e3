//! How deliveries end, by rule 7 of `mailbox`: handled, failed for good, or cancelled.

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
use crate::sync::Arc;
use crate::task::context;
use crate::task::propagation::Part;

impl<E: Send + Sync + 'static> Mailbox<E> {
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
