//! The turns of a worker with a rate, shared by its runs.
//!
//! A turn is the right to begin one job. It is reserved when the job is requested. It is spent when
//! the handler starts, and released if the job does not start here. So a run requests no job that
//! it may not begin.
//!
//! | turn | counted in | next |
//! |---|---|---|
//! | *requested* | `Credit::requested` | *in hand*, when a job arrives, or with an order when one starts; released, if the request ends without one |
//! | *in hand* | `InFlight::turns` | spent, when the handler starts; released, if the job has an outcome without that |
//!
//! The two counts are the truth. `RateTurns::held` follows them after each step of the run. What it
//! holds beyond them is released, and the other runs are notified.

use std::time::{Duration, Instant};

use super::command::Command;
use super::control::Control;
use crate::sync::{Arc, Mutex};
use crate::time::rate::Rate;

/// The rate that all runs of a worker share.
pub(crate) struct SharedRate {
    rate: Mutex<Rate>,
    /// The runs that are notified of released turns.
    control: Arc<Control>,
}

impl SharedRate {
    pub(crate) fn new(jobs: usize, period: Duration, control: &Arc<Control>) -> Self {
        Self { rate: Mutex::new(Rate::new(jobs, period)), control: Arc::clone(control) }
    }
}

/// The turns that one run has reserved.
pub(crate) struct RateTurns {
    shared: Arc<SharedRate>,
    held: usize,
    /// When a turn is free again, if the last look found none; `None` also if that depends on
    /// another run.
    next_free_at: Option<Instant>,
}

impl RateTurns {
    pub(crate) fn new(shared: Arc<SharedRate>) -> Self {
        Self { shared, held: 0, next_free_at: None }
    }

    /// Reserves as many turns as `wanted` returns of those that are free. Returns how many.
    pub(crate) fn reserve(&mut self, now: Instant, wanted: impl FnOnce(usize) -> usize) -> usize {
        let mut rate = self.shared.rate.lock();
        let most = wanted(rate.free(now));
        let turns = rate.reserve(most, now);
        self.next_free_at = if rate.free(now) == 0 { rate.next_free_at() } else { None };
        self.held += turns;
        turns
    }

    /// Takes a turn for a job beside these that are in use: one that is held already, or a free
    /// one.
    pub(crate) fn take(&mut self, in_use: usize, now: Instant) -> bool {
        self.held > in_use || self.reserve(now, |_| 1) == 1
    }

    /// Spends a turn on a job whose handler started at this time.
    pub(crate) fn spend(&mut self, at: Instant) {
        self.held = self.held.saturating_sub(1);
        self.shared.rate.lock().begin_reserved(at);
        // Another run may wait for it, and can tell only now until when.
        self.shared.control.notify_runs(|| Command::TurnsChanged);
    }

    /// Releases the turns beyond those that are in use.
    pub(crate) fn settle(&mut self, in_use: usize) {
        let surplus = self.held.saturating_sub(in_use);
        if surplus > 0 {
            self.held -= surplus;
            self.shared.rate.lock().release(surplus);
            self.shared.control.notify_runs(|| Command::TurnsChanged);
        }
    }

    /// Returns when to look for free turns again, if the last look found none.
    pub(crate) fn next_free_at(&self) -> Option<Instant> {
        self.next_free_at
    }
}

/// The turns of a run that has ended are free for others.
impl Drop for RateTurns {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mpsc;

    const PERIOD: Duration = Duration::from_secs(60);

    /// Fault 644.
    #[test]
    fn a_run_requests_no_more_than_it_may_begin_and_knows_when_that_changes() {
        let (control, now) = (Arc::new(Control::new(None)), Instant::now());
        let shared = Arc::new(SharedRate::new(3, PERIOD, &control));
        let mut turns = RateTurns::new(Arc::clone(&shared));
        assert_eq!(turns.reserve(now, |free| free - 1), 2, "one stays free");
        assert_eq!(turns.next_free_at(), None, "a turn is free now");
        assert_eq!(turns.reserve(now, |free| free + 7), 1);
        assert_eq!(turns.next_free_at(), None, "the turns are reserved, not spent");
        (0..3).for_each(|_| turns.spend(now));
        assert_eq!((turns.reserve(now, |_| 1), turns.next_free_at()), (0, Some(now + PERIOD)));
        assert_eq!(turns.reserve(now + PERIOD, |free| free), 3, "all are free again");
    }

    /// Fault 644.
    #[test]
    fn a_turn_that_is_not_used_is_free_for_the_other_runs_which_are_notified() {
        let (control, now) = (Arc::new(Control::new(None)), Instant::now());
        let shared = Arc::new(SharedRate::new(3, PERIOD, &control));
        let (own, mut told) = mpsc::unbounded_channel();
        let (other, _other_told) = mpsc::unbounded_channel();
        for run in [&own, &other] {
            control.join(run);
        }
        let [mut first, mut second] = [(); 2].map(|()| RateTurns::new(Arc::clone(&shared)));
        assert_eq!(first.reserve(now, |free| free), 3);
        assert!(!second.take(0, now), "the other run has them");
        assert!(first.take(2, now) && !first.take(3, now), "two are in use, so one is held and none is free");
        first.settle(3);
        assert!(told.try_recv().is_err(), "all are in use");
        first.settle(1);
        assert!(matches!(told.try_recv(), Ok(Command::TurnsChanged)));
        assert!(second.take(0, now) && second.take(0, now), "one free turn, which is held then");
        assert!(second.take(1, now) && !second.take(2, now));
        assert!(!first.take(1, now), "what it released is not its own");
        first.spend(now);
        assert!(matches!(told.try_recv(), Ok(Command::TurnsChanged)), "only now is known until when it is spent");
        drop(second);
        assert!(matches!(told.try_recv(), Ok(Command::TurnsChanged)));
        assert_eq!(first.reserve(now, |free| free), 2, "a run that has ended holds none");
    }
}
