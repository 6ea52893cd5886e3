//! The outcomes of the deliveries of one event, and how many deliveries have not ended.

use std::task::Waker;

use super::handler::BoxError;
use crate::error::CancelReason;
use crate::retry::RetryError;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};
use crate::task::wakers::{WakerKey, Wakers};
use crate::time::deadline::Deadline;
use crate::unwind;

/// The outcome of a delivery.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeliveryOutcome {
    /// The handler returned `()` or `Ok`, in the first attempt or a later one.
    Handled,
    /// The handler failed or panicked, and the subscription's policy allowed no further attempt.
    /// The dead-letter hook, if there is one, has returned.
    Failed(Arc<RetryError<BoxError>>),
    /// The handler was not called: the overflow policy discarded the event, the subscription ended,
    /// or the pool was shut down.
    Cancelled(CancelReason),
    /// The handler was not called: its mailbox was full, and the publisher could not wait for room.
    /// It was a worker that could [not make room](crate::events::EventBus#inside-a-handler), a task
    /// that the handler waits for, or a future that was dropped while it waited.
    Refused,
    /// The delivery has not ended: a [timed shutdown](crate::WorkerPool::shutdown_timeout) of the
    /// pool stopped waiting for the handler, which may still run.
    /// [`Receipt::is_finished`](crate::events::Receipt::is_finished) returns `true` when it has
    /// ended.
    LeftBehind,
}

/// The progress of the deliveries of one event.
pub(super) struct Progress {
    /// The number of deliveries that have not ended, plus one until the event is published.
    remaining: AtomicUsize,
    /// Which of the first 64 deliveries have ended; one bit each.
    ended: AtomicU64,
    /// The same for the other deliveries, 64 a word.
    ended_rest: Box<[AtomicU64]>,
    state: Mutex<State>,
    /// Notified when all deliveries have ended.
    finished: Condvar,
}

/// What the lock guards.
#[derive(Default)]
struct State {
    /// The deliveries that ended in another way than handled; `None` for those that were not
    /// needed.
    not_handled: Vec<(usize, Option<DeliveryOutcome>)>,
    /// The futures that wait for the end of all deliveries.
    wakers: Wakers,
}

/// The index of the publishing, which counts like a delivery.
pub(super) const PUBLISHING: usize = usize::MAX;

impl Progress {
    /// Creates the progress of an event that is about to be published to `recipients`
    /// subscriptions.
    pub(super) fn new(recipients: usize) -> Self {
        let rest = recipients.div_ceil(WORD).saturating_sub(1);
        Self {
            remaining: AtomicUsize::new(recipients + 1),
            ended: AtomicU64::new(0),
            ended_rest: (0..rest).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::default(),
            finished: Condvar::new(),
        }
    }

    /// Records the outcome of one delivery. Returns `true` if it was the last.
    #[must_use]
    pub(super) fn complete(&self, index: usize, outcome: Option<DeliveryOutcome>) -> bool {
        if index != PUBLISHING {
            if !matches!(outcome, Some(DeliveryOutcome::Handled)) {
                self.state.lock().not_handled.push((index, outcome));
            }
            // ORDERING: Release pairs with the Acquire of `has_ended`.
            self.word(index).fetch_or(1 << (index % WORD), Ordering::Release);
        }
        // ORDERING: SeqCst. A thread that finds none remaining sees what all deliveries did. It is
        // also a change that workers wait for, by the rule of `notify`, like the load of
        // `is_finished`.
        let was_last = self.remaining.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last {
            self.wake();
        }
        was_last
    }

    /// Wakes the threads and futures that wait, so that they check their condition again.
    pub(super) fn wake(&self) {
        // A waiter has checked before and sleeps or stored its waker, or checks after.
        let wakers = self.state.lock().wakers.take();
        self.finished.notify_all();
        wakers.wake();
    }

    /// Stores the waker of a future, which checks its condition afterwards.
    pub(super) fn announce(&self, key: WakerKey, waker: &Waker) {
        let waker = waker.clone();
        let old = self.state.lock().wakers.set(key, waker);
        unwind::discard(old);
    }

    /// Removes a future that no longer waits.
    pub(super) fn withdraw(&self, key: WakerKey) {
        let waker = self.state.lock().wakers.remove(key);
        unwind::discard(waker);
    }

    /// Returns `true` if this delivery has ended.
    pub(super) fn has_ended(&self, index: usize) -> bool {
        self.word(index).load(Ordering::Acquire) & (1 << (index % WORD)) != 0
    }

    /// Returns `true` if all deliveries have ended.
    pub(super) fn is_finished(&self) -> bool {
        // ORDERING: SeqCst, as in `complete`.
        self.remaining.load(Ordering::SeqCst) == 0
    }

    /// Blocks until all deliveries have ended, the deadline has passed, or `is_over` returns `true`
    /// after [`wake`](Self::wake). Returns `true` if all have ended.
    pub(super) fn wait_unless(&self, is_over: impl Fn() -> bool, deadline: Deadline) -> bool {
        drop(self.finished.wait_while(self.state.lock(), deadline, |_| !self.is_finished() && !is_over()));
        self.is_finished()
    }

    /// Returns the deliveries that ended in another way than handled, in the order of the
    /// recipients.
    pub(super) fn not_handled(&self) -> Vec<(usize, Option<DeliveryOutcome>)> {
        let mut not_handled = self.state.lock().not_handled.clone();
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
