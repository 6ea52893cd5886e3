//! Whether and when to try again, as users say it.

use std::fmt;
use std::time::Duration;

use super::budget::RetryBudget;
use crate::sync::Arc;

/// Tries unless told otherwise, the first included.
const DEFAULT_ATTEMPTS: u32 = 5;
/// The first delay of an exponential policy unless told otherwise.
const DEFAULT_BASE: Duration = Duration::from_millis(100);
/// The longest delay unless told otherwise.
const DEFAULT_CAP: Duration = Duration::from_secs(30);

/// When a task that failed is tried again, and when it is given up.
///
/// One policy serves many tasks, by clones, which share its [budget](Self::budget). Unless told otherwise a task is tried
/// five times in all, any error and any panic counts as worth another attempt, and there is no deadline.
///
/// # Examples
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use std::time::Duration;
/// use workcrew::retry::RetryPolicy;
///
/// let policy = RetryPolicy::exponential() // 100 ms, 200 ms, 400 ms …
///     .base_delay(Duration::from_millis(50))
///     .max_delay(Duration::from_secs(5))
///     .max_attempts(8)
///     .timeout(Duration::from_secs(60))
///     .retry_if(|error: &Error| error.kind() == ErrorKind::ConnectionRefused);
/// # let _ = policy;
/// ```
#[must_use = "a policy does nothing by itself"]
pub struct RetryPolicy<E> {
    pub(super) schedule: Schedule,
    /// The longest delay, jitter included.
    pub(super) max_delay: Duration,
    /// In all, the first included; not zero.
    pub(super) max_attempts: u32,
    /// For all attempts and delays together.
    pub(super) timeout: Option<Duration>,
    /// For one attempt.
    pub(super) attempt_timeout: Option<Duration>,
    /// Tells what an error means; `None`: all are worth another attempt.
    pub(super) classify: Option<Classify<E>>,
    pub(super) budget: Option<RetryBudget>,
}

/// Tells what an error means.
pub(super) type Classify<E> = Arc<dyn Fn(&E) -> ErrorClass + Send + Sync>;

/// How delays grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) base_delay: Duration,
    /// By what a delay is longer than the one before.
    pub(super) factor: f32,
    /// Whether a delay is lengthened by a random part of itself.
    pub(super) jitter: bool,
}

/// What an error means for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Another attempt would fail as well.
    Permanent,
    /// Another attempt may succeed, after the policy's delay.
    Transient,
    /// Another attempt may succeed after this delay, which takes the place of the policy's, as when a server says so.
    RetryAfter(Duration),
}

impl<E> RetryPolicy<E> {
    /// Delays that double from 100 ms up to 30 s, with jitter.
    pub fn exponential() -> Self {
        Self::by(Schedule { base_delay: DEFAULT_BASE, factor: 2.0, jitter: true }, DEFAULT_CAP)
    }

    /// Delays that are always the same, without jitter.
    pub fn fixed(delay: Duration) -> Self {
        Self::by(Schedule { base_delay: delay, factor: 1.0, jitter: false }, Duration::MAX)
    }

    fn by(schedule: Schedule, max_delay: Duration) -> Self {
        let (max_attempts, timeout, attempt_timeout) = (DEFAULT_ATTEMPTS, None, None);
        Self { schedule, max_delay, max_attempts, timeout, attempt_timeout, classify: None, budget: None }
    }

    /// The most attempts, the first included. Zero counts as one: a task that was accepted is tried.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// The first delay.
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.schedule.base_delay = delay;
        self
    }

    /// The longest delay, jitter included. Does not shorten what [`ErrorClass::RetryAfter`] asks for.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Whether each delay is lengthened by a random part of itself, so that what failed together is not tried again
    /// together. What that would carry past the longest delay is halved: once delays have grown to the longest, they lie
    /// anywhere between half of it and all of it.
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.schedule.jitter = jitter;
        self
    }

    /// The time for all attempts and delays together, from the submission on. A delay that would end later is not begun:
    /// the failure is final at once. An attempt that is under way is not stopped; it can see the deadline in its
    /// [token](crate::retry::Attempt::token).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The time for one attempt, which can see it in its [token](crate::retry::Attempt::token). Where attempts have no token, as
    /// handlers of events, it has no effect.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Which errors are worth another attempt. Takes the place of what [`classify`](Self::classify) was given.
    pub fn retry_if(self, f: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.classify(move |error| if f(error) { ErrorClass::Transient } else { ErrorClass::Permanent })
    }

    /// What each error means. Called after the attempt, on the thread that made it: a worker, or the publisher's, if the handler
    /// of an event is synchronous, or the I/O thread, if it was a remote call, where it must not block. Its panic counts as one
    /// of the attempt. Takes the place of what [`retry_if`](Self::retry_if) was given.
    pub fn classify(mut self, f: impl Fn(&E) -> ErrorClass + Send + Sync + 'static) -> Self {
        self.classify = Some(Arc::new(f));
        self
    }

    /// Limits the retries of all tasks of this policy and its clones together.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }
}

/// For those who keep to a policy.
impl<E> RetryPolicy<E> {
    /// What an error means. Calls what the user gave.
    pub(crate) fn class_of(&self, error: &E) -> ErrorClass {
        self.classify.as_ref().map_or(ErrorClass::Transient, |classify| classify(error))
    }

    /// A task has succeeded.
    pub(crate) fn note_success(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Whether the user says what an error means.
    #[cfg(feature = "grpc")]
    pub(crate) fn has_classifier(&self) -> bool {
        self.classify.is_some()
    }

    /// The most attempts, the first included.
    #[cfg(feature = "nats")]
    pub(crate) fn most_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The same policy, with a deadline that is not later than this.
    #[cfg(feature = "grpc")]
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(timeout, |own| own.min(timeout)));
        self
    }

    /// The time for one attempt, and the time for all of them together.
    #[cfg(feature = "grpc")]
    pub(crate) fn times(&self) -> (Option<Duration>, Option<Duration>) {
        (self.attempt_timeout, self.timeout)
    }

    /// Whether it matters when a task was submitted.
    #[cfg(feature = "events")]
    pub(crate) fn has_timeout(&self) -> bool {
        self.timeout.is_some()
    }
}

// By hand, since it needs no `E: Clone`.
impl<E> Clone for RetryPolicy<E> {
    fn clone(&self) -> Self {
        Self { classify: self.classify.clone(), budget: self.budget.clone(), ..*self }
    }
}

impl<E> fmt::Debug for RetryPolicy<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("schedule", &self.schedule)
            .field("max_delay", &self.max_delay)
            .field("max_attempts", &self.max_attempts)
            .field("timeout", &self.timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
