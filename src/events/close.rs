//! How subscriptions end, by rule 5 of `mailbox`.

use std::mem;

use super::mailbox::Mailbox;
use crate::error::CancelReason;
use crate::sync::Ordering;
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
