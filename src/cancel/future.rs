//! A future that waits for the cancellation of a token, with the standard library alone.
//!
//! Rules:
//! 1. The future registers a callback with the token. The callback wakes the last waker that polled
//!    the future, which is kept in a [`WakerCell`].
//! 2. A poll first stores its waker and then checks the token; a cancellation first sets the reason
//!    and then wakes. So either the poll sees the reason, or the cancellation wakes the waker of
//!    the poll.
//! 3. If the token has a deadline, the first poll that finds it live also sets an alarm for that
//!    time. The alarm only wakes. The poll that follows finds the deadline passed, and cancels the
//!    token.
//! 4. Dropping the future removes the callback and the alarm.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::alarm::Alarm;
use super::token::{CancelGuard, CancellationToken};
use super::waker_cell::WakerCell;
use crate::error::CancelReason;
use crate::sync::Arc;

impl CancellationToken {
    /// Returns a future that completes with the reason when the token is cancelled.
    ///
    /// The future works in any runtime. If it is polled again after it has completed, it completes
    /// again.
    ///
    /// A passed [deadline](Self::deadline) wakes the future too, without any pool. One thread for
    /// the whole process does that. The thread starts when a future of a token with a deadline is
    /// first polled, and ends a second after the last such future is gone. If the system refuses
    /// the thread, the future wakes its executor at once, and so is polled until the deadline has
    /// passed.
    ///
    /// The poll that finds the deadline passed cancels the token. So it calls the callbacks of
    /// [`on_cancel`](Self::on_cancel), on the thread that polls.
    ///
    /// Dropping the future has no effect on the token.
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
    ///
    /// let token = CancellationToken::with_timeout(std::time::Duration::from_millis(5));
    /// assert_eq!(block_on(token.cancelled()), CancelReason::Expired);
    /// ```
    pub fn cancelled(&self) -> WaitForCancellation {
        WaitForCancellation { token: self.clone(), registration: None }
    }
}

/// A future that waits for the cancellation of a token. Returned by
/// [`CancellationToken::cancelled`].
#[must_use = "a future does nothing until it is polled"]
pub struct WaitForCancellation {
    token: CancellationToken,
    /// Made by the first poll.
    registration: Option<Registration>,
}

/// The waker cell, and what wakes it.
struct Registration {
    cell: Arc<WakerCell>,
    /// The callback.
    _guard: CancelGuard,
    /// The alarm, if the token has a deadline.
    alarm: Option<Alarm>,
}

impl Registration {
    fn new(token: &CancellationToken, cell: WakerCell) -> Self {
        let cell = Arc::new(cell);
        let cancelled = Arc::clone(&cell);
        let _guard = token.on_cancel(move || cancelled.wake());
        Self { cell, _guard, alarm: None }
    }

    /// Keeps rule 3. Without an alarm the future must be polled again.
    fn set_alarm(&mut self, token: &CancellationToken) {
        if let Some(deadline) = token.deadline()
            && self.alarm.is_none()
        {
            self.alarm = Alarm::set(deadline, Arc::clone(&self.cell)).ok();
            if self.alarm.is_none() {
                self.cell.wake();
            }
        }
    }
}

impl Future for WaitForCancellation {
    type Output = CancelReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CancelReason> {
        if self.token.reason().is_none() {
            let this = &mut *self;
            match &this.registration {
                Some(registration) => registration.cell.register(context.waker()),
                None => this.registration = Some(Registration::new(&this.token, WakerCell::new(context.waker()))),
            }
            this.registration.iter_mut().for_each(|registration| registration.set_alarm(&this.token));
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
