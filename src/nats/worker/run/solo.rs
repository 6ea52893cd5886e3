//! A job that runs alone, since it may end the process.
//!
//! A job that was delivered more often than its policy has attempts has ended no attempt in some of
//! them. Either it ends its process, or it was beside one that does. So it runs while this run has no other
//! job in its in_flight: only the culprit gets nearer to `max_deliveries`, and its neighbours finish.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | *none* | a job that has come too often | *waiting* |
//! | *waiting* | all other jobs to end, for `ack_wait` at most; nothing is asked for | *running*; *none*, the job is given back |
//! | *running* | the job's end; nothing is asked for | *none* |
//!
//! What comes meanwhile is given back, and what the pool has not begun is, too.

use std::time::{Duration, Instant};

use super::state::{State, WorkerRun};
use crate::nats::worker::job_task::Disposition;
use crate::nats::worker::run::state::Solo;

impl WorkerRun {
    /// Has a delivery run alone, or gives it back if another one does.
    pub(crate) fn run_alone(&mut self, number: u64) {
        if !self.solo.is_none() {
            return self.queue_outcome(number, Disposition::Nak(self.pause_of_return()));
        }
        self.solo = Solo::Waiting { number, until: Instant::now().checked_add(self.context.acker.ack_wait) };
        self.return_queued();
        if matches!(self.state, State::Open(_)) {
            self.prepare_again(); // nothing more comes by the inbox that is asked for jobs
        }
    }

    /// Begins the job that is to run alone, if it is alone.
    pub(crate) fn start_solo(&mut self) {
        let Solo::Waiting { number, .. } = self.solo else { return };
        let others = self.in_flight.len() - self.in_flight.stuck();
        if others == 1 && self.old.is_empty() && self.is_open() {
            self.solo = Solo::Running { number };
            self.start(number);
        }
    }

    /// Gives the job back that waits to be alone, if it has waited for too long.
    pub(crate) fn expire_solo(&mut self, now: Instant) {
        if self.solo.next_due().is_some_and(|moment| moment <= now) {
            self.return_solo(self.pause_of_return());
        }
    }

    /// A drain has begun: a job that waits to be alone is given back.
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
