//! The retry state of one task under a policy: which attempt is next, after which delay, or why
//! there is none.
//!
//! It reads no clock and knows no pool: the caller passes the time. So it serves tasks, event
//! handlers and remote calls alike.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::budget::RetryBudget;
use super::error::GiveUpReason;
use super::policy::{ErrorClass, RetryPolicy};
use crate::cancel::token::CancellationToken;

/// The longest delay, about a hundred years, so that no arithmetic overflows.
const MAX_DELAY: Duration = Duration::from_secs(3_155_760_000);

/// The number of delays after which a backoff that doubles has grown from a nanosecond past
/// [`MAX_DELAY`].
#[cfg(feature = "nats")]
const MAX_GROWTH_STEPS: u32 = 64;

/// One attempt of a task that is retried.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::retry::RetryPolicy;
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let policy = RetryPolicy::fixed(Duration::ZERO).max_attempts(3);
/// let answer = pool.spawn_with_retry(policy, |attempt| {
///     if attempt.token().is_cancelled() {
///         return Err("no time left");
///     }
///     if attempt.is_last() { Ok(attempt.number()) } else { Err("busy") }
/// })?;
/// assert_eq!(answer.join()?.unwrap(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Attempt {
    number: u32,
    max: u32,
    token: CancellationToken,
}

impl Attempt {
    /// Returns the attempt with this number under a policy. Its token is a child of `parent`, and
    /// expires at the deadline for all attempts, or with the time for one attempt from `now` on.
    pub(crate) fn new<E>(
        number: u32,
        policy: &RetryPolicy<E>,
        deadline: Option<Instant>,
        parent: &CancellationToken,
        now: Instant,
    ) -> Self {
        let own = policy.attempt_timeout.and_then(|timeout| now.checked_add(timeout));
        let deadline = own.into_iter().chain(deadline).min();
        let token = deadline.map_or_else(|| parent.child_token(), |deadline| parent.child_with_deadline(deadline));
        Self { number, max: policy.max_attempts, token }
    }

    /// Returns the number of the attempt, counted from one.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns `true` if the policy allows no attempt after this one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.number >= self.max
    }

    /// Returns the token of the attempt. It is cancelled when the time for the attempt or for the
    /// whole task is over. It is also cancelled with the task, for example by a
    /// [shutdown](crate::WorkerPool#what-a-shutdown-cancels). An attempt that stops because of the
    /// token should return an error.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl<E> RetryPolicy<E> {
    /// Returns the delays between the attempts of a task, in order and without jitter. So a test
    /// can check a policy without waiting.
    ///
    /// There is one delay less than attempts. A [timeout](Self::timeout), a [budget](Self::budget)
    /// or an error that is not retried may end the attempts earlier.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let seconds = Duration::from_secs;
    /// let policy = RetryPolicy::<&str>::exponential().base_delay(seconds(2)).max_delay(seconds(5));
    /// let delays: Vec<_> = policy.max_attempts(4).delays().collect();
    /// assert_eq!(delays, [seconds(2), seconds(4), seconds(5)]);
    /// ```
    pub fn delays(&self) -> impl Iterator<Item = Duration> + use<E> {
        (1..self.max_attempts).zip(self.growth().build()).map(|(_, delay)| delay)
    }

    /// Returns the growth of the delays, without jitter and without end.
    fn growth(&self) -> ExponentialBuilder {
        // `backon` does not apply its cap to the first delay, and grows past a cap of zero. So the
        // base is capped here.
        let max_delay = self.max_delay.min(MAX_DELAY);
        let base = self.backoff.base_delay.min(max_delay);
        // A fixed delay is at its own cap, so `backon` does not multiply it by one in floating
        // point.
        let top = if self.backoff.factor > 1.0 { max_delay } else { base };
        ExponentialBuilder::new()
            .with_min_delay(base)
            .with_max_delay(top)
            .with_factor(self.backoff.factor)
            .without_max_times()
    }
}

/// The decision after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum RetryDecision {
    /// Another attempt follows after this delay.
    After(Duration),
    /// No attempt follows, for this reason.
    GiveUp(GiveUpReason),
}

/// The retry state of one task.
pub(crate) struct RetryState<E> {
    policy: RetryPolicy<E>,
    /// The delays. They grow to `max_delay`; jitter may carry one past it.
    delays: ExponentialBackoff,
    /// The longest delay.
    max_delay: Duration,
    /// How many attempts have begun.
    made: u32,
    /// When the time for all attempts together is over; `None` for never.
    deadline: Option<Instant>,
}

impl<E> RetryState<E> {
    /// Returns the state of a task that is submitted at `now`.
    pub(crate) fn new(policy: RetryPolicy<E>, now: Instant) -> Self {
        let builder = policy.growth();
        let delays = if policy.backoff.jitter { builder.with_jitter() } else { builder }.build();
        let (max_delay, deadline) = (policy.max_delay.min(MAX_DELAY), policy.deadline(now));
        Self { policy, delays, max_delay, made: 0, deadline }
    }

    /// Returns the state of a task of which `made` attempts were made elsewhere. Its delays
    /// continue from there.
    #[cfg(feature = "nats")]
    pub(crate) fn resume(policy: RetryPolicy<E>, submitted: Instant, made: u32) -> Self {
        let mut attempts = Self::new(policy, submitted);
        // A growing backoff at least doubles, so after these delays it has reached its cap.
        for _ in 0..made.min(MAX_GROWTH_STEPS) {
            let _ = attempts.delays.next();
        }
        attempts.made = made;
        attempts
    }

    /// Returns how many attempts have begun.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Returns when the time for all attempts together is over; `None` for never.
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
        Attempt::new(self.made, &self.policy, self.deadline, parent, now)
    }

    /// Classifies an error. Calls user code.
    pub(crate) fn classify(&self, error: &E) -> ErrorClass {
        self.policy.class_of(error)
    }

    /// Records that the last attempt has succeeded.
    pub(crate) fn succeeded(&self) {
        self.policy.note_success();
    }

    /// Records that the last attempt has failed, and decides what follows. A panic counts as
    /// transient.
    pub(crate) fn failed(&mut self, class: ErrorClass, now: Instant) -> RetryDecision {
        let requested = match class {
            ErrorClass::Permanent => return RetryDecision::GiveUp(GiveUpReason::Permanent),
            ErrorClass::Transient => None,
            ErrorClass::RetryAfter(delay) => Some(delay),
        };
        if self.made >= self.policy.max_attempts {
            return RetryDecision::GiveUp(GiveUpReason::Attempts);
        }
        let delay = requested.unwrap_or_else(|| self.next_delay());
        let in_time = |deadline: Instant| now.checked_add(delay).is_some_and(|due| due < deadline);
        if !self.deadline.is_none_or(in_time) {
            return RetryDecision::GiveUp(GiveUpReason::Deadline);
        }
        if !self.policy.budget.as_ref().is_none_or(RetryBudget::withdraw) {
            return RetryDecision::GiveUp(GiveUpReason::Budget);
        }
        RetryDecision::After(delay)
    }

    /// Returns the next delay. Jitter less than doubles a delay. A delay that jitter carried past
    /// the cap is halved, and so lies between half of the cap and the cap. So delays differ at the
    /// cap as well.
    fn next_delay(&mut self) -> Duration {
        let delay = self.delays.next().unwrap_or(self.max_delay);
        if delay > self.max_delay { delay / 2 } else { delay }
    }
}
