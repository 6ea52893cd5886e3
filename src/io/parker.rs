//! Waiting for a future on a thread that has no runtime.

use std::future::Future;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::{Arc, Condvar, Mutex};
use crate::time::deadline::Deadline;

/// Blocks until the future is ready or the deadline has passed; it is dropped then.
pub(crate) fn wait_for<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if !bell.wait(deadline) {
            return None;
        }
    }
}

/// Wakes the waiting thread.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    /// Notified when it rings.
    ringing: Condvar,
}

impl Bell {
    /// Waits until it rings; returns whether that came before the deadline.
    fn wait(&self, deadline: Deadline) -> bool {
        let mut rung = self.rung.lock();
        while !*rung && !deadline.is_past() {
            rung = self.ringing.wait_until(rung, deadline.instant());
        }
        mem::take(&mut *rung)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock() = true;
        self.ringing.notify_one();
    }
}
