//! Awaiting the cancellation of a token, by the standard library alone.
//!
//! Rules:
//! 1. The future leaves a *cell* with the token, as a callback. The cell holds the last waker that polled.
//! 2. A poll leaves its waker first and looks at the token then; a cancellation marks the token first and rings then. So
//!    either the poll sees the mark, or the cell rings the waker that the poll has left.
//! 3. The callback goes with the future: one that is dropped leaves nothing behind.
//!
//! It knows no clock: see [`CancellationToken::cancelled`] about deadlines.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::token::{CancelGuard, CancellationToken};
use crate::error::CancelReason;
use crate::sync::{Arc, Mutex};
use crate::unwind;

impl CancellationToken {
    /// A future that is ready, with the reason, when the token is cancelled. Works in any runtime; polled again after it
    /// was ready, it is ready again.
    ///
    /// As anywhere, no thread watches the clock: a token with a [deadline](Self::deadline) that nobody looks at does not
    /// wake this future when the time has come. Async code races it against a timer of its runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use workcrew::{CancelReason, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// let canceller = std::thread::spawn({
    ///     let token = token.clone();
    ///     move || token.cancel()
    /// });
    /// assert_eq!(block_on(token.cancelled()), CancelReason::Requested);
    /// # canceller.join().unwrap();
    /// ```
    pub fn cancelled(&self) -> WaitForCancellation {
        WaitForCancellation { token: self.clone(), registration: None }
    }
}

/// Waits for the cancellation of a token. From [`CancellationToken::cancelled`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForCancellation {
    token: CancellationToken,
    /// Left with the token by the first poll.
    registration: Option<Registration>,
}

/// A cell and the right to take it back.
struct Registration {
    cell: Arc<WakerCell>,
    _guard: CancelGuard,
}

impl Future for WaitForCancellation {
    type Output = CancelReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CancelReason> {
        if self.token.reason().is_none() {
            match &self.registration {
                Some(registration) => registration.cell.register(context.waker()),
                None => {
                    let cell = Arc::new(WakerCell { waker: Mutex::new(Some(context.waker().clone())) });
                    let cancelled = Arc::clone(&cell);
                    let _guard = self.token.on_cancel(move || cancelled.wake());
                    self.registration = Some(Registration { cell, _guard });
                }
            }
        }
        // The second look of rule 2.
        match self.token.reason() {
            Some(reason) => {
                self.registration = None;
                Poll::Ready(reason)
            }
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for WaitForCancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitForCancellation").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Wakes who polled last. Wakers are foreign code: they are cloned, called and dropped under no lock.
struct WakerCell {
    waker: Mutex<Option<Waker>>,
}

impl WakerCell {
    /// Ties the cell to this waker instead of the one before.
    fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.waker.lock().replace(waker);
        unwind::discard(old);
    }

    fn wake(&self) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for WakerCell {
    fn drop(&mut self) {
        let waker = self.waker.lock().take();
        unwind::discard(waker);
    }
}
