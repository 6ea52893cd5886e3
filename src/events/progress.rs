//! How the deliveries of one event have ended, and how many have not.

use super::handler::BoxError;
use crate::error::CancelReason;
use crate::retry::RetryError;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};
use crate::time::deadline::Deadline;

/// How a delivery ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeliveryOutcome {
    /// The handler returned `()` or `Ok`, in the first attempt or a later one.
    Handled,
    /// The handler failed or panicked, and the subscription's policy allowed no further attempt. The dead-dead_letter handler,
    /// if there is one, has returned.
    Failed(Arc<RetryError<BoxError>>),
    /// The handler was never called: the mailbox gave the event up for a newer one or was full of older ones, the
    /// subscription ended, or the pool did.
    Cancelled(CancelReason),
    /// The handler was never called: its mailbox was full, and the publisher was a worker, which must not wait for room and
    /// could [make none](crate::events::EventBus#inside-a-handler), or a task that the handler waits for.
    Refused,
    /// It has not ended: a [timed shutdown](crate::WorkerPool::shutdown_timeout) of the pool gave up waiting for the
    /// handler, which may still run. [`Receipt::is_finished`] tells when it ends after all.
    LeftBehind,
}

/// How far the deliveries of one event are.
pub(super) struct Progress {
    /// Deliveries that have not ended, and one for the publishing itself.
    remaining: AtomicUsize,
    /// Which deliveries have ended: one bit for each of the first 64, and of the rest.
    ended: AtomicU64,
    ended_rest: Box<[AtomicU64]>,
    /// Deliveries that ended in another way than handled; `None` for those that there was no need of.
    not_handled: Mutex<Vec<(usize, Option<DeliveryOutcome>)>>,
    /// Notified when all deliveries have ended.
    finished: Condvar,
}

/// The index under which the end of the publishing lands.
pub(super) const PUBLISHING: usize = usize::MAX;

impl Progress {
    /// Of an event that is about to be published to so many.
    pub(super) fn new(recipients: usize) -> Self {
        let rest = recipients.div_ceil(WORD).saturating_sub(1);
        Self {
            remaining: AtomicUsize::new(recipients + 1),
            ended: AtomicU64::new(0),
            ended_rest: (0..rest).map(|_| AtomicU64::new(0)).collect(),
            not_handled: Mutex::default(),
            finished: Condvar::new(),
        }
    }

    /// Lets the outcome of one delivery complete; says whether that was the last.
    #[must_use]
    pub(super) fn complete(&self, index: usize, outcome: Option<DeliveryOutcome>) -> bool {
        if index != PUBLISHING {
            if !matches!(outcome, Some(DeliveryOutcome::Handled)) {
                self.not_handled.lock().push((index, outcome));
            }
            // ORDERING: Release pairs with the Acquire of `has_ended`.
            self.word(index).fetch_or(1 << (index % WORD), Ordering::Release);
        }
        // ORDERING: so that who finds none remaining sees what all deliveries did; and SeqCst, like the load of `is_finished`: it is a
        // change that workers watch for, by the rule of `pulse`.
        let was_last = self.remaining.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last {
            self.wake();
        }
        was_last
    }

    pub(super) fn wake(&self) {
        drop(self.not_handled.lock()); // a waiter has looked before, and sleeps, or checks after
        self.finished.notify_all();
    }

    /// Whether this delivery has ended.
    pub(super) fn has_ended(&self, index: usize) -> bool {
        self.word(index).load(Ordering::Acquire) & (1 << (index % WORD)) != 0
    }

    pub(super) fn is_finished(&self) -> bool {
        // ORDERING: SeqCst, as in `complete`.
        self.remaining.load(Ordering::SeqCst) == 0
    }

    /// Waits until all deliveries have ended, or `is_over` says so after [`wake`](Self::wake); returns whether they have
    /// ended before the deadline.
    pub(super) fn wait_unless(&self, is_over: impl Fn() -> bool, deadline: Deadline) -> bool {
        let mut not_handled = self.not_handled.lock();
        while !self.is_finished() && !is_over() && !deadline.is_past() {
            not_handled = self.finished.wait_until(not_handled, deadline.instant());
        }
        drop(not_handled);
        self.is_finished()
    }

    /// In the order of the recipients.
    pub(super) fn not_handled(&self) -> Vec<(usize, Option<DeliveryOutcome>)> {
        let mut not_handled = self.not_handled.lock().clone();
        not_handled.sort_unstable_by_key(|(index, _)| *index);
        not_handled
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        match (index / WORD).checked_sub(1) {
            None => &self.ended,
            Some(rest) => &self.ended_rest[rest],
        }
    }
}

/// How many deliveries have their bit in one word.
const WORD: usize = u64::BITS as usize;
