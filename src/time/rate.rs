//! A limit on how many things begin in a period.
//!
//! The limit is strict: within every period, wherever it starts, at most `limit` things begin. So
//! this is a *sliding window log* and not a token bucket. A bucket of `limit` tokens, the GCRA of
//! ITU-T I.371 with that tolerance, and a fixed window let almost twice as many begin in one
//! period: a full bucket, and what is refilled meanwhile. A bucket of one token is strict, but
//! paces at `period / limit`, which is finer than the timers of the I/O thread.
//!
//! A log of each beginning would grow with the limit. So the log has *marks*: one for up to a
//! 64th of the limit, with the time of the last beginning that it stands for. A mark makes its
//! beginnings look later than they were, never earlier. So the limit stays strict.
//!
//! This module reads no clock: callers pass the time. Callers take turns in two steps if the
//! beginning comes later than the decision: a turn is *reserved*, and then *begun* or *released*.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many full marks a log has at most.
const MAX_MARKS: usize = 64;

/// The beginnings within the last period, and the turns that are reserved.
#[derive(Debug)]
pub(crate) struct Rate {
    /// How many may begin within a period. At least one.
    limit: usize,
    /// How long a beginning counts. Forever if the clock cannot hold its end.
    period: Duration,
    /// The beginnings that count, the oldest first.
    marks: VecDeque<Mark>,
    /// The number of beginnings of all marks.
    begun: usize,
    /// The number of turns that are reserved.
    reserved: usize,
}

/// Some beginnings, counted as if all had the time of the last.
#[derive(Debug)]
struct Mark {
    at: Instant,
    count: usize,
}

impl Rate {
    /// Creates a limit. A limit of zero counts as one.
    pub(crate) fn new(limit: usize, period: Duration) -> Self {
        Self { limit: limit.max(1), period, marks: VecDeque::new(), begun: 0, reserved: 0 }
    }

    /// Returns the number of turns that are free at `now`.
    pub(crate) fn free(&mut self, now: Instant) -> usize {
        while let Some(oldest) = self.marks.front()
            && oldest.at.checked_add(self.period).is_some_and(|end| end <= now)
        {
            self.begun -= oldest.count;
            self.marks.pop_front();
        }
        self.limit.saturating_sub(self.begun + self.reserved)
    }

    /// Returns when the oldest beginnings no longer count; `None` for never, or if there are none.
    pub(crate) fn next_free_at(&self) -> Option<Instant> {
        self.marks.front()?.at.checked_add(self.period)
    }

    /// Reserves free turns, at most `most`. Returns how many.
    pub(crate) fn reserve(&mut self, most: usize, now: Instant) -> usize {
        let turns = self.free(now).min(most);
        self.reserved += turns;
        turns
    }

    /// Releases reserved turns.
    pub(crate) fn release(&mut self, turns: usize) {
        self.reserved = self.reserved.saturating_sub(turns);
    }

    /// Notes that what has a reserved turn has begun at this time.
    pub(crate) fn begin_reserved(&mut self, at: Instant) {
        self.release(1);
        let per_mark = self.limit.div_ceil(MAX_MARKS);
        self.begun += 1;
        match self.marks.back_mut() {
            Some(last) if last.count < per_mark => (last.at, last.count) = (last.at.max(at), last.count + 1),
            last => {
                // Beginnings may be noted out of order: one that looks later is safe.
                let at = last.map_or(at, |last| last.at.max(at));
                self.marks.push_back(Mark { at, count: 1 });
            }
        }
    }

    /// Takes a free turn and begins at once. Returns `false` if none is free.
    #[cfg(any(feature = "grpc", test))]
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let has_turn = self.reserve(1, now) == 1;
        if has_turn {
            self.begin_reserved(now);
        }
        has_turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// Begins all that may begin now.
    fn begin_all(rate: &mut Rate, clock: &Clock) -> usize {
        std::iter::from_fn(|| rate.begin(clock.now()).then_some(())).count()
    }

    #[test]
    fn a_full_burst_begins_at_once_and_the_next_after_the_whole_period() {
        let (mut rate, clock) = (Rate::new(5, SECOND), Clock::manual());
        assert_eq!(begin_all(&mut rate, &clock), 5);
        clock.advance(SECOND - Duration::from_nanos(1));
        assert_eq!(begin_all(&mut rate, &clock), 0);
        assert_eq!(rate.next_free_at(), Some(clock.now() + Duration::from_nanos(1)));
        clock.advance(Duration::from_nanos(1));
        assert_eq!(begin_all(&mut rate, &clock), 5);
    }

    #[test]
    fn within_every_period_at_most_the_limit_begins_and_the_limit_is_reached() {
        // A pseudo-random walk of the clock, for limits with marks of one and of several.
        for limit in [1, 3, 64, 65, 1_000] {
            let (mut rate, clock, mut random) = (Rate::new(limit, SECOND), Clock::manual(), 7_u64);
            let (mut begun, start) = (Vec::new(), clock.now());
            for _ in 0..2_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                clock.advance(Duration::from_micros((random >> 33) % 20_000));
                let wanted = usize::try_from((random >> 50) % 64).unwrap_or(0).min(limit);
                (0..wanted).filter(|_| rate.begin(clock.now())).for_each(|_| begun.push(clock.now()));
            }
            for window in begun.windows(limit + 1) {
                assert!(window[limit] - window[0] >= SECOND, "limit {limit}");
            }
            assert!(rate.marks.len() <= MAX_MARKS + 1, "limit {limit}: {} marks", rate.marks.len());
            let periods = usize::try_from((clock.now() - start).as_secs()).unwrap_or(0);
            if limit <= 64 {
                // What is always wanted gets all but a small part of the limit.
                assert!(begun.len() * 10 >= periods * limit * 9, "limit {limit}: {} in {periods} s", begun.len());
            }
        }
    }

    #[test]
    fn a_turn_that_is_reserved_counts_until_it_is_released_and_from_its_beginning_on() {
        let (mut rate, clock) = (Rate::new(3, SECOND), Clock::manual());
        assert_eq!(rate.reserve(99, clock.now()), 3);
        assert_eq!((rate.free(clock.now()), rate.next_free_at()), (0, None));
        rate.release(1);
        assert_eq!(rate.free(clock.now()), 1);
        clock.advance(10 * SECOND);
        assert_eq!(rate.free(clock.now()), 1, "a reserved turn does not expire");
        rate.begin_reserved(clock.now());
        clock.advance(SECOND);
        assert_eq!(rate.free(clock.now()), 2);
    }

    #[test]
    fn beginnings_that_are_noted_late_or_out_of_order_count_as_the_later_ones() {
        let (mut rate, clock) = (Rate::new(2, SECOND), Clock::manual());
        let early = clock.now();
        clock.advance(SECOND / 2);
        assert_eq!(rate.reserve(2, clock.now()), 2);
        rate.begin_reserved(clock.now());
        rate.begin_reserved(early);
        clock.advance(SECOND / 2);
        assert_eq!(rate.free(clock.now()), 0, "also a clock that went back lets nothing begin too early");
        clock.advance(SECOND / 2);
        assert_eq!(rate.free(clock.now()), 2);
    }

    #[test]
    fn turns_become_free_when_their_beginnings_leave_the_period_one_by_one_or_in_portions() {
        // Marks of one beginning, and of two.
        for (limit, portion) in [(2, 1), (128, 2)] {
            let (mut rate, clock) = (Rate::new(limit, SECOND), Clock::manual());
            (0..portion).for_each(|_| assert!(rate.begin(clock.now())));
            clock.advance(SECOND / 2);
            assert_eq!(begin_all(&mut rate, &clock), limit - portion);
            clock.advance(SECOND / 2);
            assert_eq!(rate.free(clock.now()), portion, "limit {limit}");
            clock.advance(SECOND / 2);
            assert_eq!(rate.free(clock.now()), limit);
        }
        let (mut rate, clock) = (Rate::new(128, SECOND), Clock::manual());
        let early = clock.now();
        clock.advance(SECOND / 2);
        assert_eq!(rate.reserve(2, clock.now()), 2);
        rate.begin_reserved(clock.now());
        rate.begin_reserved(early); // in the same portion, which counts as the later one
        clock.advance(SECOND / 2);
        assert_eq!(rate.free(clock.now()), 126);
    }

    #[test]
    fn no_limit_and_no_period_panics() {
        let clock = Clock::manual();
        for (limit, period, expected) in [
            (0, SECOND, 1),
            (1, Duration::MAX, 1),
            (7, Duration::MAX, 7),
            (7, Duration::ZERO, 7),
            (usize::MAX, Duration::MAX, 9),
        ] {
            let mut rate = Rate::new(limit, period);
            let begun = (0..9).filter(|_| rate.reserve(1, clock.now()) == 1).count();
            assert_eq!(begun, expected.min(9), "{limit} in {period:?}");
            (0..begun).for_each(|_| rate.begin_reserved(clock.now()));
            if period == Duration::MAX {
                clock.advance(Duration::from_secs(1 << 40));
                assert_eq!((rate.free(clock.now()), rate.next_free_at()), (limit - begun, None), "never again");
            }
        }
    }
}
