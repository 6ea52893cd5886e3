//! Changes while a run goes on: more slots or fewer, a pause and its end.
//!
//! | change | what runs | what has not begun | what is asked for |
//! |---|---|---|---|
//! | more slots | goes on | goes on | more, at once |
//! | fewer slots | goes on to its end | what is too much is given back, the newest first | is taken back, and then as many as fit |
//! | pause | goes on to its end | is given back | is taken back |
//! | end of a pause | goes on | | as many as fit |
//!
//! What is given back comes again at once, here or elsewhere, and counts no attempt.

use std::time::Duration;

use super::state::{Course, State};
use crate::error::CancelReason;
use crate::nats::worker::job_task::Verdict;

impl Course {
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.outfit.counters.change_slots(self.credit.slots(), slots);
        let asked_too_much = self.credit.set_slots(slots, self.hands.staying());
        if !self.is_open() {
            return;
        }
        let mut excess = (self.hands.with_pool() + self.line.len()).saturating_sub(slots);
        while excess > 0
            && let Some(number) = self.line.pop_back()
        {
            self.wait_to_tell(number, Verdict::Return(Duration::ZERO));
            excess -= 1;
        }
        let begun_last = self.hands.tasks().into_iter().rev();
        let queued = begun_last.filter(|task| task.cancel(CancelReason::Requested, &self.outfit.executor));
        let _ = queued.take(excess).count();
        if asked_too_much && matches!(self.state, State::Open(_)) {
            self.prepare_anew();
        }
    }

    pub(crate) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        if !is_paused || !self.is_open() {
            return;
        }
        self.return_queued();
        self.solo_is_over();
        if matches!(self.state, State::Open(_)) {
            self.prepare_anew(); // nothing more comes by the inbox that is asked for jobs
        }
    }
}
