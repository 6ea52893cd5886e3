//! The place for the timer of a task, which is reserved before the task is accepted.

use crate::error::TimerError;
use crate::pool::timers;
use crate::sync::Arc;
use crate::timer::thread::{Reservation, TimerThread};

/// Reserves a place for a timer. Starts the timer thread if it is not running.
pub(super) fn reserve<F>(timers: &Arc<TimerThread>, closure: F) -> Result<(Reservation, F), TimerError<F>> {
    if let Err(source) = timers.start_named() {
        return Err(TimerError::no_thread(source, closure));
    }
    match timers.reserve() {
        Ok(reservation) => Ok((reservation, closure)),
        Err(refusal) => Err(timers::timer_error(refusal, closure)),
    }
}

/// Reserves a place for a timer if there is one, for a task that is made in any case. Without a
/// place, no attempt follows the first; see [`GiveUpReason::NoTimer`](super::GiveUpReason::NoTimer).
pub(super) fn reserve_if_free(timers: &Arc<TimerThread>) -> Option<Reservation> {
    timers.start_named().ok()?;
    timers.reserve().ok()
}
