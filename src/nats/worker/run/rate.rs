//! Begins no more jobs than the rate of the worker allows. See `rate_turns`.

use std::time::Instant;

use super::state::WorkerRun;

impl WorkerRun {
    /// Counts at most `most` further jobs as requested, as many as there are slots and turns for.
    pub(crate) fn reserve_requests(&mut self, taken: usize, most: usize) -> usize {
        let credit = &mut self.credit;
        let Some(turns) = &mut self.turns else { return credit.request(taken, most) };
        let requested = turns.reserve(Instant::now(), |free| credit.request(taken, most.min(free)));
        let next_free_at = turns.next_free_at();
        self.look_again(next_free_at);
        requested
    }

    /// Gives a delivery a turn, unless it has one. Returns `false` if none is free.
    ///
    /// With an order, a job takes its turn when it starts, and not when it arrives: a job that
    /// waits would keep the turn from another that may start. It may take the turn of a requested
    /// job, which may never come. If that comes, it waits for another turn.
    pub(crate) fn take_turn(&mut self, number: u64) -> bool {
        let Some(turns) = &mut self.turns else { return true };
        let requested = if self.context.order.is_some() { 0 } else { self.credit.requested() };
        let in_use = requested + self.in_flight.turns();
        if self.in_flight.has_turn(number) {
            return true;
        }
        let has_turn = turns.take(in_use, Instant::now());
        let next_free_at = turns.next_free_at();
        self.look_again(next_free_at);
        has_turn && self.in_flight.give_turn(number)
    }

    /// Spends the turn of a delivery whose handler has started; releases it otherwise.
    pub(crate) fn end_turn(&mut self, number: u64) {
        let Some(turns) = &mut self.turns else { return };
        if self.in_flight.take_turn(number)
            && let Some(at) = self.in_flight.get(number).and_then(|job| job.started.get())
        {
            turns.spend(*at);
        }
    }

    /// Releases the turns that no job needs any more. Called after each step.
    pub(crate) fn settle_turns(&mut self) {
        if let Some(turns) = &mut self.turns {
            turns.settle(self.credit.requested() + self.in_flight.turns());
        }
    }

    /// Spends the turns of started jobs that are left when the run ends.
    pub(crate) fn end_turns(&mut self) {
        if self.turns.is_some() {
            self.in_flight.numbers().into_iter().for_each(|number| self.end_turn(number));
        }
    }
}
