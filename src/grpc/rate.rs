//! The turns of the calls of a caller with a rate.
//!
//! Attempts wait for their turn in one line, in the order in which they joined it. Only the first
//! in line looks at the rate, so a cancelled call uses up no turn. A wait is a future on the I/O
//! thread: it holds the call's slot and no worker.
//!
//! The first in line knows when its turn comes, and leaves at once if that is too late.

use std::time::{Duration, Instant};

use crate::io;
use crate::sync::Mutex;
use crate::time::rate::Rate;

/// The rate that all clones of a caller share.
pub(super) struct TurnQueue {
    /// Held by the first in line until it has its turn. It is fair: the others are in line for it.
    first: io::FairMutex<()>,
    /// Held for the look at the rate only.
    rate: Mutex<Rate>,
}

/// The turn of an attempt does not come in time.
pub(super) struct TooLate;

impl TurnQueue {
    pub(super) fn new(calls: usize, period: Duration) -> Self {
        Self { first: io::FairMutex::new(()), rate: Mutex::new(Rate::new(calls, period)) }
    }

    /// Waits for a turn, which begins when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`TooLate`], at the deadline, or before if it is known then. Also if the turn never comes.
    pub(super) async fn turn(&self, deadline: Option<Instant>) -> Result<(), TooLate> {
        match deadline {
            Some(deadline) => io::timeout_at(deadline.into(), self.wait(Some(deadline))).await.unwrap_or(Err(TooLate)),
            None => self.wait(None).await,
        }
    }

    async fn wait(&self, deadline: Option<Instant>) -> Result<(), TooLate> {
        let _first = self.first.lock().await;
        while let Some(due) = self.begin_or_due()? {
            if deadline.is_some_and(|deadline| deadline <= due) {
                return Err(TooLate);
            }
            io::sleep_until(due.into()).await;
        }
        Ok(())
    }

    /// Begins now and returns `None`, or returns when the next turn is free.
    fn begin_or_due(&self) -> Result<Option<Instant>, TooLate> {
        let mut rate = self.rate.lock();
        if rate.begin(Instant::now()) {
            return Ok(None);
        }
        rate.next_free_at().map(Some).ok_or(TooLate)
    }
}
