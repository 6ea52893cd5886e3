//! Changes to a run in progress: more or fewer slots, a pause and its end.
//!
//! | change | running jobs | jobs that have not started | requests |
//! |---|---|---|---|
//! | more slots | continue | continue | for more jobs, at once |
//! | fewer slots | continue to their end | the excess is returned, the newest first | are withdrawn, and sent again for as many as fit |
//! | pause | continue to their end | are returned | are withdrawn |
//! | end of a pause | continue | | for as many as fit |
//!
//! A returned job is delivered again at once, here or elsewhere, without counting an attempt.

use std::time::Duration;

use super::state::{State, WorkerRun};
use crate::error::CancelReason;
use crate::nats::worker::job_task::Disposition;
use crate::sync::Arc;

impl WorkerRun {
    /// Changes the number of slots.
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.context.counters.change_slots(self.credit.slots(), slots);
        let asked_too_much = self.credit.set_slots(slots, self.in_flight.not_acking());
        if !self.is_open() {
            return;
        }
        let mut excess = (self.in_flight.with_pool() + self.pending.len()).saturating_sub(slots);
        while excess > 0
            && let Some(number) = self.pending.pop_back()
        {
            self.queue_outcome(number, Disposition::Nak(Duration::ZERO));
            excess -= 1;
        }
        let tasks = self.in_flight.tasks();
        for task in tasks.iter().rev() {
            if excess > 0 && task.cancel(CancelReason::Requested, &self.context.executor) {
                let jobs = tasks.iter().filter(|other| Arc::ptr_eq(other, task)).count();
                excess = excess.saturating_sub(jobs); // a batch is one task
            }
        }
        if asked_too_much && matches!(self.state, State::Open(_)) {
            self.prepare_again();
        }
    }

    /// Starts or ends a pause.
    pub(crate) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        if !is_paused || !self.is_open() {
            return;
        }
        self.return_queued();
        self.cancel_solo();
        if matches!(self.state, State::Open(_)) {
            self.prepare_again(); // no further job arrives by the current inbox
        }
    }
}
