//! Deliveries that wait for their next attempt.
//!
//! The delivery lies in a cell of its own, known to the mailbox and, while the delay lasts, to the timekeeper's agenda.
//! Whoever takes it out of the cell decides what becomes of it: the worker that the timekeeper has handed it to, or that
//! waits for it, brings it *back* into the mailbox; the end of the subscription or of the pool cancels it.

use std::time::{Duration, Instant};

use super::mailbox::{Budget, DelayKey, Delayed, Mailbox, Mode, PendingDelivery};
use crate::error::CancelReason;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::{Arc, Mutex};
use crate::task::context;
use crate::task::executor::Executor;
use crate::task::job::Task;
use crate::time::deadline::Deadline;

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Puts a delivery aside until its next attempt. CallResult by mailboxes only.
    pub(super) fn delay(self: &Arc<Self>, counters: &WorkerCounters, delivery: PendingDelivery<E>, delay: Duration) {
        let timers = &self.inner.pool.timers;
        let due = Deadline::after_instant(timers.clock().now(), delay);
        let has_thread = self.inner.start_timer().is_ok();
        let mut state = self.state.lock();
        // What the publisher's thread has tried may find the mailbox full. [Other deliveries had a place there before.]
        let has_room = self.settings.mode != Mode::Synchronous || state.occupied() < self.settings.capacity;
        if state.closed.is_none() && has_thread && has_room {
            let key = (due, state.next_delay);
            let cell = Arc::new(Delayed { key, mailbox: Arc::clone(self), delivery: Mutex::new(Some(delivery)) });
            if let Ok(place) = timers.insert(due, Arc::clone(&cell) as _) {
                state.next_delay += 1;
                state.delayed.insert(key, (cell, place));
                drop(state);
                context::set_item(0); // it is on no stack while it waits
                self.inner.steps.notify(); // who waits for it sleeps until then, and not for ever
                return;
            }
            drop(state);
            let delivery = cell.take().expect("nobody else knows the cell");
            return self.cancel_delay(counters, delivery);
        }
        let closed = state.closed;
        drop(state);
        match closed {
            Some(reason) => self.cancel_delivery(counters, delivery, reason),
            None => self.cancel_delay(counters, delivery),
        }
    }

    /// Ends a delivery whose delay could not be begun.
    fn cancel_delay(&self, counters: &WorkerCounters, delivery: PendingDelivery<E>) {
        let executor = &self.inner.pool.executor;
        let closed = executor.tracker.is_closed();
        let reason = if closed { CancelReason::ShutDown } else { CancelReason::Discarded };
        self.cancel_delivery(counters, delivery, reason);
    }

    /// Brings a delivery back whose delay is over, and makes deliveries if there is no runner too many.
    fn requeue(self: &Arc<Self>, key: DelayKey, delivery: PendingDelivery<E>) {
        let mut state = self.state.lock();
        let cell = state.delayed.remove(&key);
        if let Some(reason) = state.closed {
            drop(state);
            self.cancel_deliveries([delivery], reason);
        } else {
            state.waiting.push_front(delivery);
            if state.runners < self.limit() {
                state.runners += 1;
                drop(state);
                self.run(Budget::Quantum);
            }
        }
        drop(cell);
    }

    /// Brings back the delivery that is due first, if it is due at `now`; else says when it will be.
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
        if let Some(delivery) = cell.take() {
            self.requeue(cell.key, delivery);
        }
        Ok(())
    }
}

impl<E: Send + Sync + 'static> Task for Delayed<E> {
    fn run(&self, _: &Executor) {
        if let Some(delivery) = self.take() {
            self.mailbox.requeue(self.key, delivery);
        }
    }

    fn cancel(&self, reason: CancelReason, _: &Executor) -> bool {
        let Some(delivery) = self.take() else { return false };
        let mut state = self.mailbox.state.lock();
        let cell = state.delayed.remove(&self.key);
        // What it held back can be taken now, and there is room.
        self.mailbox.notify_publishers(&mut state);
        self.mailbox.send_ticket_if_needed(state);
        self.mailbox.inner.steps.notify();
        self.mailbox.cancel_deliveries([delivery], reason);
        drop(cell);
        true
    }
}
