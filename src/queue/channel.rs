//! The bounded lane in production: a bounded crossbeam channel. Only its non-blocking methods are
//! used.
//!
//! It keeps the contract of bounded lanes. The channel moves its head and its tail by a `SeqCst`
//! compare-and-exchange. It has a `SeqCst` fence before it reports that it is full or empty. The
//! channel's own blocking methods rely on the same.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// A bounded multi-producer, multi-consumer lane.
pub(super) struct Lane<T> {
    /// The end that items are pushed to.
    sender: Sender<T>,
    /// The end that items are popped from.
    receiver: Receiver<T>,
}

impl<T> Lane<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver }
    }

    /// Pushes the item, or returns it if the lane is full.
    #[inline]
    pub(super) fn try_push(&self, item: T) -> Result<(), T> {
        self.sender.try_send(item).map_err(TrySendError::into_inner)
    }

    /// Pops the oldest item, if there is one.
    #[inline]
    pub(super) fn try_pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Returns the number of items, which never exceeds the capacity; may be stale when it returns.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.receiver.capacity().expect("the channel is bounded")
    }
}
