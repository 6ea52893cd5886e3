//! Runs a job alone that may end the process.
//!
//! A job that was delivered more often than its policy allows attempts left some attempts without
//! an outcome. Either it ends its process, or it ran beside a job that does. So it runs while no
//! other job of this run is in flight. Then only the culprit approaches `max_deliveries`, and its
//! neighbours finish.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | *none* | a job with too many deliveries | *waiting* |
//! | *waiting* | the end of all other jobs, for at most `ack_wait`; no jobs are requested | *running*; *none*, the job is returned |
//! | *running* | the end of the job; no jobs are requested | *none* |
//!
//! Jobs that arrive meanwhile are returned, and so are jobs that the pool has not started.

use std::time::{Duration, Instant};

use super::state::Solo;
use super::state::{State, WorkerRun};
use crate::nats::worker::job_task::Disposition;

impl WorkerRun {
    /// Has a delivery run alone, or returns it if another one does.
    pub(crate) fn run_alone(&mut self, number: u64) {
        if !self.solo.is_none() {
            return self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        }
        self.solo = Solo::Waiting { number, until: Instant::now().checked_add(self.context.preparer.ack_wait) };
        self.return_queued();
        if matches!(self.state, State::Open(_)) {
            self.prepare_again(); // no further job arrives by the current inbox
        }
    }

    /// Starts the job that is to run alone, if all others have ended.
    pub(crate) fn start_solo(&mut self) {
        let Solo::Waiting { number, .. } = self.solo else { return };
        let others = self.in_flight.len() - self.in_flight.stuck();
        if others == 1 && self.closing.is_empty() && self.is_open() && self.take_turn(number) {
            self.solo = Solo::Running { number };
            self.start(number);
        }
    }

    /// Returns the job that waits to run alone, if it has waited too long.
    pub(crate) fn expire_solo(&mut self, now: Instant) {
        if self.solo.next_due().is_some_and(|moment| moment <= now) {
            self.return_solo(self.pause_of_return());
        }
    }

    /// Returns the job that waits to run alone: the run drains or pauses.
    pub(crate) fn cancel_solo(&mut self) {
        self.return_solo(Duration::ZERO);
    }

    fn return_solo(&mut self, delay: Duration) {
        if let Solo::Waiting { number, .. } = self.solo {
            self.solo = Solo::Running { number };
            self.queue_outcome(number, Disposition::Nak(delay));
        }
    }
}
