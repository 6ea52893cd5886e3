//! Jobs that must not be refused and may not wait: a second queue beside the bounded one.
//!
//! Into it go the tickets of groups, and jobs that a worker submits into its own full queue when its stack is too deep to run
//! them at once. Tickets are bounded by groups times workers; the jobs by what tasks at the deepest nesting submit.
//!
//! Rules:
//! 1. Only what found the bounded queue full is spilled, and right after that the front of the spill is offered to the
//!    bounded queue again, with the spill locked.
//! 2. A worker looks into the spill, under its lock, before it parks.
//!
//! So no job lies here while a worker sleeps: if the worker looked before the job came, what it took out of the bounded queue before
//! is visible to the offer of rule 1, which then finds room there and wakes it; else the worker finds the job.

use std::collections::VecDeque;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// An unbounded queue that is nearly always empty.
pub(crate) struct Spill<T> {
    items: Mutex<VecDeque<T>>,
    /// The number of items, for a look without the lock. Out of date when it arrives.
    len: AtomicUsize,
}

impl<T> Spill<T> {
    pub(crate) fn new() -> Self {
        Self { items: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
    }

    /// Whether it seems empty. For hints only; rule 2 needs [`pop`](Self::pop).
    pub(crate) fn seems_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Takes the item in. Rule 1 asks for an [`offer`](Self::offer) afterwards.
    pub(crate) fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push_back(item);
        self.len.store(items.len(), Ordering::Relaxed);
    }

    /// Gives what is in front to `take`, as long as that takes it. `take` is called with the spill locked.
    pub(crate) fn offer(&self, take: impl Fn(T) -> Result<(), T>) {
        let mut items = self.items.lock();
        while let Some(front) = items.pop_front() {
            if let Err(refused) = take(front) {
                items.push_front(refused);
                break;
            }
        }
        self.len.store(items.len(), Ordering::Relaxed);
    }

    /// Hands out the oldest item.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut items = self.items.lock();
        let item = items.pop_front();
        self.len.store(items.len(), Ordering::Relaxed);
        item
    }
}
