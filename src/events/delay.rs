//! Deliveries that wait for their next attempt.
//!
//! A delayed delivery is kept in a cell of its own. The mailbox has a reference to the cell, and so
//! has the timer heap until the delay is over. The thread that takes the delivery out of the cell
//! decides about it:
//!
//! - A worker that got the cell from the timer thread, or that helps, puts the delivery back into
//!   the mailbox.
//! - The end of the subscription or of the pool cancels it.

use std::time::{Duration, Instant};

use super::delivery::PendingDelivery;
use super::mailbox::{Budget, DelayKey, Delayed, Mailbox, Mode};
use crate::error::CancelReason;
use crate::nesting;
use crate::observe::worker_counters::WorkerCounters;
use crate::priority::Priority;
use crate::snapshot::TimerSnapshot;
use crate::sync::Arc;
use crate::task::context;
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::task::wakers::Wakers;
use crate::time::deadline::Deadline;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Delays a delivery until its next attempt, or cancels it if that is not possible. Called by
    /// members only.
    pub(super) fn delay(self: &Arc<Self>, counters: &WorkerCounters, delivery: PendingDelivery<E>, delay: Duration) {
        let timers = &self.inner.pool.timers;
        let due = Deadline::after_instant(timers.clock().now(), delay);
        let has_thread = self.inner.start_timer().is_ok();
        let mut state = self.state.lock();
        // A synchronous delivery had no place in the mailbox before, which may be full now. Other
        // deliveries had one.
        let has_room = self.settings.mode != Mode::Synchronous || state.occupied() < self.settings.capacity;
        if state.closed.is_none() && has_thread && has_room {
            let key = (due, state.next_delay);
            let (name, item) = (delivery.key.clone(), delivery.item());
            let cell = Delayed::new(key, Arc::clone(self), delivery);
            if let Ok(place) = timers.insert(due, Arc::clone(&cell) as _) {
                state.next_delay += 1;
                state.delayed.insert(key, (cell, place));
                if let (Some(queues), Some(name)) = (state.queue.by_key_mut(), &name) {
                    queues.delay(name, item, due);
                }
                drop(state);
                drop(name); // the delivery has another reference
                context::set_item(0); // it is on no stack while it is delayed
                self.inner.steps.notify(); // its waiters now know when it is due
                return;
            }
            drop(state);
            let (delivery, _) = cell.take().expect("no other thread has a reference to the cell");
            self.cancel_delay(counters, delivery);
            return;
        }
        let closed = state.closed;
        drop(state);
        match closed {
            Some(reason) => self.cancel_delivery(counters, delivery, reason),
            None => self.cancel_delay(counters, delivery),
        }
    }

    /// Cancels a delivery that could not be delayed.
    fn cancel_delay(&self, counters: &WorkerCounters, delivery: PendingDelivery<E>) {
        let executor = &self.inner.pool.executor;
        let closed = executor.tracker.is_closed();
        let reason = if closed { CancelReason::ShutDown } else { CancelReason::Discarded };
        self.cancel_delivery(counters, delivery, reason);
    }

    /// Puts a delivery whose delay is over back into the mailbox. Then makes deliveries as a
    /// runner, if the limit of runners allows it.
    fn requeue(self: &Arc<Self>, key: DelayKey, delivery: PendingDelivery<E>) {
        let mut state = self.state.lock();
        let cell = state.delayed.remove(&key);
        if let Some(reason) = state.closed {
            drop(state);
            self.cancel_deliveries([delivery], reason);
        } else {
            state.queue.push_front(delivery);
            if state.tickets.runners() < self.limit() {
                state.tickets.start_runner();
                drop(state);
                self.run(Budget::Quantum);
            }
        }
        drop(cell);
    }

    /// Requeues the delivery that is due first, if it is due at `now`. Otherwise returns when it
    /// will be due; `None` if there is none.
    pub(super) fn requeue_due(self: &Arc<Self>, now: Instant) -> Result<(), Option<Deadline>> {
        let state = self.state.lock();
        let Some((&(due, _), (cell, place))) = state.delayed.first_key_value() else { return Err(None) };
        if due > Deadline::at(now) {
            return Err(Some(due));
        }
        let (cell, place) = (Arc::clone(cell), *place);
        drop(state);
        let removed = self.inner.pool.timers.remove(place);
        drop(removed);
        if let Some((delivery, _)) = cell.take() {
            self.requeue(cell.key, delivery);
        }
        Ok(())
    }
}

impl<E: Send + Sync + 'static> Task for Delayed<E> {
    fn run(&self, _: &Executor) {
        if let Some((delivery, mailbox)) = self.take() {
            mailbox.requeue(self.key, delivery);
        }
    }

    fn cancel(&self, reason: CancelReason, _: &Executor) -> bool {
        let Some((delivery, mailbox)) = self.take() else { return false };
        let mut state = mailbox.state.lock();
        let cell = state.delayed.remove(&self.key);
        let removed = match (state.queue.by_key_mut(), &delivery.key) {
            (Some(queues), Some(name)) => queues.end_delay(name, delivery.item()),
            _ => None,
        };
        // Deliveries that this one held back can be taken now, and there is room.
        let futures = mailbox.notify_publishers(&mut state);
        mailbox.send_ticket_if_needed(state);
        futures.into_iter().for_each(Wakers::wake);
        mailbox.inner.steps.notify();
        nesting::discard(removed);
        mailbox.cancel_deliveries([delivery], reason);
        drop(cell);
        true
    }

    fn is_finished(&self) -> bool {
        self.is_taken()
    }

    fn describe_timer(&self) -> TimerSnapshot {
        self.shown.clone()
    }

    fn class(&self) -> Priority {
        self.class
    }
}
