//! A future that waits for the cancellation of a token, with the standard library alone.
//!
//! Rules:
//! 1. The future registers a callback with the token. The callback wakes the last waker that polled
//!    the future, which is kept in a [`WakerCell`].
//! 2. A poll first stores its waker and then checks the token; a cancellation first sets the reason
//!    and then wakes. So either the poll sees the reason, or the cancellation wakes the waker of
//!    the poll.
//! 3. Dropping the future removes the callback.
//!
//! It reads no clock; see [`CancellationToken::cancelled`] about deadlines.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::token::{CancelGuard, CancellationToken};
use crate::error::CancelReason;
use crate::sync::{Arc, Mutex};
use crate::unwind;

impl CancellationToken {
    /// Returns a future that completes with the reason when the token is cancelled.
    ///
    /// It works in any runtime. If it is polled again after it has completed, it completes again.
    ///
    /// No thread watches the clock, so a passed [deadline](Self::deadline) alone does not wake this
    /// future. Async code should race it against a timer of its runtime.
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

/// A future that waits for the cancellation of a token, from [`CancellationToken::cancelled`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForCancellation {
    token: CancellationToken,
    /// Made by the first poll.
    registration: Option<Registration>,
}

/// The waker cell, and the guard of the callback that wakes it.
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
        // The check of rule 2.
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

/// A cell with the waker of the last poll. Wakers are user code: they are cloned, called and
/// dropped with no lock held.
struct WakerCell {
    waker: Mutex<Option<Waker>>,
}

impl WakerCell {
    /// Replaces the waker.
    fn register(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.waker.lock().replace(waker);
        unwind::discard(old);
    }

    /// Wakes and removes the waker, if there is one.
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
