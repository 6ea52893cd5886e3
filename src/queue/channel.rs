//! The engine of the product: a bounded crossbeam channel, of which only the forms that do not block are used.
//!
//! It keeps the contract of the engines because it moves its head and its tail by `SeqCst` compare-and-exchange, and
//! has a `SeqCst` fence before it calls itself full or empty; the channel's own blocking forms rely on the same.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// A bounded multi-producer, multi-consumer lane.
pub(super) struct Lane<T> {
    /// The end that takes items in.
    sender: Sender<T>,
    /// The end that hands items out.
    receiver: Receiver<T>,
}

impl<T> Lane<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver }
    }

    /// Takes the item in, or gives it back if there is no room.
    #[inline]
    pub(super) fn try_push(&self, item: T) -> Result<(), T> {
        self.sender.try_send(item).map_err(TrySendError::into_inner)
    }

    /// Hands out the oldest item, if there is one.
    #[inline]
    pub(super) fn try_pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// How many items it holds; out of date when it arrives, but never above the capacity.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.receiver.capacity().expect("the channel is bounded")
    }
}
