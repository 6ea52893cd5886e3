//! Waits for a future on a thread that has no runtime.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{Arc, Condvar, Mutex};
use crate::task::waits;
use crate::time::deadline::Deadline;

/// Blocks until the future is ready or the deadline has passed. The future is dropped then. Without
/// a deadline, returns `None` only where waits are nested too deep in callbacks.
pub(crate) fn block_on<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    block_on_unless(future, &Arc::new(ThreadWaker::default()), || false, deadline)
}

/// Like [`block_on`], but also returns, without an output, if `is_over` returns `true` after
/// [`notify`](ThreadWaker::notify).
pub(super) fn block_on_unless<F: Future>(
    future: F,
    thread_waker: &Arc<ThreadWaker>,
    is_over: impl Fn() -> bool,
    deadline: Deadline,
) -> Option<F::Output> {
    let waker = Waker::from(Arc::clone(thread_waker));
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if is_over() || !thread_waker.wait(deadline) {
            return None;
        }
    }
}

/// A waker that unblocks the waiting thread.
#[derive(Default)]
pub(super) struct ThreadWaker {
    /// Whether the future was woken since its last poll.
    notified: Mutex<bool>,
    /// Notified when `notified` is set.
    changed: Condvar,
}

impl ThreadWaker {
    /// Wakes the thread.
    pub(super) fn notify(&self) {
        *self.notified.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for a wake-up. Returns `false` if the deadline passed first, or waits are nested too
    /// deep.
    fn wait(&self, deadline: Deadline) -> bool {
        if waits::prepare(deadline).is_err() {
            return false;
        }
        let mut notified = self.changed.wait_while(self.notified.lock(), deadline, |notified| !notified);
        mem::take(&mut *notified)
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }
}
