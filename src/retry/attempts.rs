//! The course of one task under a policy: which attempt is next, after which delay, or why there is none.
//!
//! It reads no clock and knows no pool: whoever drives it says what time it is. So it serves tasks, handlers of events and
//! calls to other machines alike.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::budget::RetryBudget;
use super::error::GiveUpReason;
use super::policy::{ErrorClass, RetryPolicy};
use crate::cancel::token::CancellationToken;

/// A delay longer than any that is meant, which all arithmetic can bear: some hundred years.
const LONGEST: Duration = Duration::from_secs(3_155_760_000);

/// After so many delays a schedule that doubles has grown from a nanosecond past [`LONGEST`].
#[cfg(feature = "nats")]
const MOST_GROWN: u32 = 64;

/// One attempt, as the task sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    number: u32,
    max: u32,
    token: CancellationToken,
}

impl Attempt {
    /// Which attempt it is, counted from one.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether the policy allows no attempt after this one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.number >= self.max
    }

    /// Tells the attempt to stop: when its deadline or that of the whole task passes, or when the task is cancelled. An
    /// attempt that stops for it returns an error.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// Another attempt, after so long.
    After(Duration),
    /// Nothing, for this reason.
    GiveUpReason(GiveUpReason),
}

/// The attempts of one task.
pub(crate) struct Attempts<E> {
    policy: RetryPolicy<E>,
    /// Grows to the cap, and jitter may carry it past that.
    delays: ExponentialBackoff,
    /// The longest delay of the schedule.
    cap: Duration,
    /// How many attempts have begun.
    made: u32,
    /// When the time for all attempts together is over; `None`: never.
    deadline: Option<Instant>,
}

impl<E> Attempts<E> {
    /// The attempts of a task that is submitted at `now`.
    pub(crate) fn new(policy: RetryPolicy<E>, now: Instant) -> Self {
        // The first delay is the base: the schedule's cap does not concern it, so the base is capped here. Zero as a cap
        // would be grown past.
        let cap = policy.max_delay.min(LONGEST);
        let schedule = policy.schedule;
        let base = schedule.base_delay.min(cap);
        // What is at its own cap is not multiplied, in floating point, by one.
        let top = if schedule.factor > 1.0 { cap } else { base };
        let builder = ExponentialBuilder::new()
            .with_min_delay(base)
            .with_max_delay(top)
            .with_factor(schedule.factor)
            .without_max_times();
        let delays = if schedule.jitter { builder.with_jitter() } else { builder }.build();
        let deadline = policy.timeout.and_then(|timeout| now.checked_add(timeout));
        Self { policy, delays, cap, made: 0, deadline }
    }

    /// The attempts of a task of which so many have been made elsewhere. The delays go on where those have left off.
    #[cfg(feature = "nats")]
    pub(crate) fn resume(policy: RetryPolicy<E>, submitted: Instant, made: u32) -> Self {
        let mut attempts = Self::new(policy, submitted);
        // Each delay of the schedule that grows is longer than the one before, so after so many it grows no more.
        for _ in 0..made.min(MOST_GROWN) {
            let _ = attempts.delays.next();
        }
        attempts.made = made;
        attempts
    }

    /// How many attempts have begun.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// When the time for all attempts together is over; `None`: never.
    #[cfg(feature = "grpc")]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Counts an attempt that needs no token.
    pub(crate) fn count(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// Begins the next attempt, whose token is a child of `parent`.
    pub(crate) fn begin(&mut self, parent: &CancellationToken, now: Instant) -> Attempt {
        self.count();
        let own = self.policy.attempt_timeout.and_then(|timeout| now.checked_add(timeout));
        let deadline = own.into_iter().chain(self.deadline).min();
        let token = deadline.map_or_else(|| parent.child_token(), |deadline| parent.child_with_deadline(deadline));
        Attempt { number: self.made, max: self.policy.max_attempts, token }
    }

    /// What an error means. Calls what the user gave.
    pub(crate) fn classify(&self, error: &E) -> ErrorClass {
        self.policy.class_of(error)
    }

    /// The attempt that was begun has succeeded.
    pub(crate) fn succeeded(&self) {
        self.policy.note_success();
    }

    /// The attempt that was begun has failed; what follows? A panic counts as transient.
    pub(crate) fn failed(&mut self, class: ErrorClass, now: Instant) -> Next {
        let asked_for = match class {
            ErrorClass::Permanent => return Next::GiveUpReason(GiveUpReason::Permanent),
            ErrorClass::Transient => None,
            ErrorClass::RetryAfter(delay) => Some(delay),
        };
        if self.made >= self.policy.max_attempts {
            return Next::GiveUpReason(GiveUpReason::Attempts);
        }
        let delay = asked_for.unwrap_or_else(|| self.next_delay());
        let in_time = |deadline: Instant| now.checked_add(delay).is_some_and(|due| due < deadline);
        if !self.deadline.is_none_or(in_time) {
            return Next::GiveUpReason(GiveUpReason::Deadline);
        }
        if !self.policy.budget.as_ref().is_none_or(RetryBudget::withdraw) {
            return Next::GiveUpReason(GiveUpReason::Budget);
        }
        Next::After(delay)
    }

    /// The next delay of the schedule. Jitter less than doubles it, so what it has carried past the cap lies between half of
    /// the cap and all of it when halved: at the cap, too, delays differ.
    fn next_delay(&mut self) -> Duration {
        let delay = self.delays.next().unwrap_or(self.cap);
        if delay > self.cap { delay / 2 } else { delay }
    }
}
