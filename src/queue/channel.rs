//! The engine of the product: a bounded crossbeam channel.
//!
//! Two more channels carry no message at all: the closing of each is the signal. `select!` waits for room or an item together with
//! the signal. It is used only after a direct try has failed, so it costs nothing while the queue is neither full nor empty.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::PushError;
use crate::deadline::Deadline;
use crate::sync::Mutex;

/// A bounded multi-producer, multi-consumer queue.
pub(crate) struct Queue<T> {
    /// The end that takes items in.
    sender: Sender<T>,
    /// The end that hands items out.
    receiver: Receiver<T>,
    /// Ends blocked pushes.
    closed: Signal,
    /// Ends blocked pops.
    stopped: Signal,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self { sender, receiver, closed: Signal::new(), stopped: Signal::new() }
    }

    /// Takes the item in, or gives it back if there is no room.
    pub(crate) fn try_push(&self, item: T) -> Result<(), T> {
        self.sender.try_send(item).map_err(TrySendError::into_inner)
    }

    /// Takes the item in, waiting for room.
    pub(crate) fn push(&self, item: T, deadline: Deadline) -> Result<(), PushError<T>> {
        let left = match deadline.instant() {
            Some(instant) => instant.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        select! {
            send(self.sender, item) -> sent => {
                sent.expect("the queue holds a receiver, so the channel is connected");
                Ok(())
            }
            recv(self.closed.raised) -> _ => Err(PushError::Closed(item)),
            default(left) => Err(PushError::Timeout(item)),
        }
    }

    /// Hands out the oldest item, if there is one.
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Hands out the oldest item, waiting for one; `None` once the queue is stopped.
    pub(crate) fn pop(&self) -> Option<T> {
        select! {
            recv(self.receiver) -> item => item.ok(),
            recv(self.stopped.raised) -> _ => None,
        }
    }

    /// Refuses pushes that are blocked, now and later.
    pub(crate) fn close(&self) {
        self.closed.raise();
    }

    /// Ends pops that are blocked, now and later.
    pub(crate) fn stop(&self) {
        self.stopped.raise();
    }

    /// How many items it holds; out of date when it arrives, but never above the capacity.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.receiver.capacity().expect("the channel is bounded")
    }
}

/// Raised once, seen by any number of `select!`s.
struct Signal {
    /// Dropped to raise the signal.
    held: Mutex<Option<Sender<Infallible>>>,
    /// Disconnected, hence always ready, once the signal is raised.
    raised: Receiver<Infallible>,
}

impl Signal {
    fn new() -> Self {
        let (sender, raised) = bounded(0);
        Self { held: Mutex::new(Some(sender)), raised }
    }

    fn raise(&self) {
        let sender = self.held.lock().take();
        drop(sender);
    }
}
