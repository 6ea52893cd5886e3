//! The settings of retries: whether and when a failed task is retried.

use std::fmt;
use std::time::{Duration, Instant};

use super::budget::RetryBudget;
use crate::sync::Arc;

/// The default number of attempts, the first included.
const DEFAULT_ATTEMPTS: u32 = 5;
/// The default first delay of an exponential policy.
const DEFAULT_BASE_DELAY: Duration = Duration::from_millis(100);
/// The default longest delay of an exponential policy.
const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(30);

/// A policy that says when a failed task is retried, and when it is given up.
///
/// Clones of a policy serve many tasks and share its [budget](Self::budget). By default a task has
/// five attempts, every error and every panic is retried, and there is no timeout.
///
/// The compiler infers `E` from the task. A policy without a task needs its name, as in
/// `RetryPolicy::<io::Error>::exponential()`. For a delay that depends on the error, see
/// [`ErrorClass::RetryAfter`].
///
/// # Examples
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use std::time::Duration;
/// use workcrew::retry::RetryPolicy;
///
/// let policy = RetryPolicy::exponential()
///     .base_delay(Duration::from_millis(50)) // 50 ms, 100 ms, 200 ms …, each with jitter
///     .max_delay(Duration::from_secs(5))
///     .max_attempts(8)
///     .timeout(Duration::from_secs(60))
///     .retry_if(|error: &Error| error.kind() == ErrorKind::ConnectionRefused);
/// # let _ = policy;
/// ```
#[must_use = "a policy does nothing by itself"]
pub struct RetryPolicy<E> {
    /// How delays grow.
    pub(super) backoff: Backoff,
    /// The longest delay, jitter included.
    pub(super) max_delay: Duration,
    /// The number of attempts, the first included; not zero.
    pub(super) max_attempts: u32,
    /// The time for all attempts and delays together; `None` for no limit.
    pub(super) timeout: Option<Duration>,
    /// The time for one attempt; `None` for no limit.
    pub(super) attempt_timeout: Option<Duration>,
    /// Classifies errors; `None` if all are transient.
    pub(super) classify: Option<Classify<E>>,
    /// Limits the retries of all clones together.
    pub(super) budget: Option<RetryBudget>,
}

/// A function that classifies errors. User code.
pub(super) type Classify<E> = Arc<dyn Fn(&E) -> ErrorClass + Send + Sync>;

/// The growth of delays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The first delay.
    pub(super) base_delay: Duration,
    /// The ratio of a delay to the one before; one for a fixed delay.
    pub(super) factor: f32,
    /// Whether a random part of a delay is added to it.
    pub(super) jitter: bool,
}

/// The class of an error, which decides whether another attempt follows.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::retry::{ErrorClass, GiveUpReason, RetryPolicy};
///
/// #[derive(Debug)]
/// enum Refusal { NotFound, Busy { retry_after: Duration } }
///
/// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
/// let policy = RetryPolicy::exponential().classify(|refusal| match refusal {
///     Refusal::NotFound => ErrorClass::Permanent,
///     Refusal::Busy { retry_after } => ErrorClass::RetryAfter(*retry_after),
/// });
/// let page = pool.spawn_with_retry(policy, |attempt| match attempt.number() {
///     1 => Err::<(), _>(Refusal::Busy { retry_after: Duration::from_millis(1) }),
///     _ => Err(Refusal::NotFound),
/// })?;
/// let error = page.join()?.unwrap_err();
/// assert_eq!((error.attempts(), error.reason()), (2, GiveUpReason::Permanent));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Another attempt would fail as well.
    Permanent,
    /// Another attempt may succeed, after the policy's delay.
    Transient,
    /// Another attempt may succeed after this delay, which replaces the delay of the policy. Use it
    /// if, for example, a server has asked for a delay.
    RetryAfter(Duration),
}

impl<E> RetryPolicy<E> {
    /// Returns a policy whose delays double from 100 ms up to 30 s, with jitter.
    pub fn exponential() -> Self {
        Self::with_backoff(Backoff { base_delay: DEFAULT_BASE_DELAY, factor: 2.0, jitter: true }, DEFAULT_MAX_DELAY)
    }

    /// Returns a policy whose delays are always the same, without jitter.
    pub fn fixed(delay: Duration) -> Self {
        Self::with_backoff(Backoff { base_delay: delay, factor: 1.0, jitter: false }, Duration::MAX)
    }

    fn with_backoff(backoff: Backoff, max_delay: Duration) -> Self {
        let (max_attempts, timeout, attempt_timeout) = (DEFAULT_ATTEMPTS, None, None);
        Self { backoff, max_delay, max_attempts, timeout, attempt_timeout, classify: None, budget: None }
    }

    /// Sets the number of attempts, the first included. Zero counts as one, because an accepted
    /// task is run. *Default: 5.*
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// Sets the first delay. *Default: 100 ms, or the delay of [`fixed`](Self::fixed).*
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.backoff.base_delay = delay;
        self
    }

    /// Sets the longest delay, jitter included. Does not shorten the delay of an
    /// [`ErrorClass::RetryAfter`]. *Default: 30 s, or no limit for [`fixed`](Self::fixed).*
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets whether a random part of each delay is added to it, so that tasks that failed together
    /// are not retried together. A delay that would exceed the longest delay is halved. So once
    /// delays have grown to the longest delay, they lie between half of it and all of it. *Default:
    /// yes, or no for [`fixed`](Self::fixed).*
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.backoff.jitter = jitter;
        self
    }

    /// Sets the time for all attempts and delays together, from the submission on. A delay that
    /// would end later is not begun: the failure is final at once. A running attempt is not
    /// stopped, but its [token](crate::retry::Attempt::token) is cancelled. *Default: no limit.*
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time for one attempt, after which its [token](crate::retry::Attempt::token) is
    /// cancelled. An event handler that takes no [`Attempt`](crate::retry::Attempt) does not see
    /// it. *Default: no limit.*
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets which errors are retried. Replaces the function of [`classify`](Self::classify).
    /// *Default: all.*
    pub fn retry_if(self, f: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.classify(move |error| if f(error) { ErrorClass::Transient } else { ErrorClass::Permanent })
    }

    /// Sets the function that classifies errors. Replaces the function of
    /// [`retry_if`](Self::retry_if).
    ///
    /// The function is called after an attempt, on the thread that made the attempt:
    /// - a worker;
    /// - the publishing thread, for a synchronous event handler;
    /// - the I/O thread, for a remote call, where it must not block.
    ///
    /// A panic of the function counts as a panic of the attempt.
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

impl<E> RetryPolicy<E> {
    /// Classifies an error. Calls user code.
    pub(crate) fn class_of(&self, error: &E) -> ErrorClass {
        self.classify.as_ref().map_or(ErrorClass::Transient, |classify| classify(error))
    }

    /// Records that a task has succeeded.
    pub(crate) fn note_success(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Returns `true` if the user has set a function that classifies errors.
    #[cfg(feature = "grpc")]
    pub(crate) fn has_classifier(&self) -> bool {
        self.classify.is_some()
    }

    /// Returns the number of attempts, the first included.
    #[cfg(feature = "nats")]
    pub(crate) fn attempt_limit(&self) -> u32 {
        self.max_attempts
    }

    /// Returns when the time for all attempts together is over, if the first began at `begun`;
    /// `None` for never.
    pub(crate) fn deadline(&self, begun: Instant) -> Option<Instant> {
        self.timeout.and_then(|timeout| begun.checked_add(timeout))
    }

    /// Lowers the time for all attempts together to `timeout`, if it is longer.
    #[cfg(feature = "grpc")]
    pub(crate) fn with_timeout_at_most(mut self, timeout: Duration) -> Self {
        self.timeout = Some(self.timeout.map_or(timeout, |own| own.min(timeout)));
        self
    }

    /// Returns the time for one attempt, and the time for all of them together.
    #[cfg(feature = "grpc")]
    pub(crate) fn times(&self) -> (Option<Duration>, Option<Duration>) {
        (self.attempt_timeout, self.timeout)
    }

    /// Returns `true` if the time of a task's submission matters.
    #[cfg(feature = "events")]
    pub(crate) fn has_timeout(&self) -> bool {
        self.timeout.is_some()
    }
}

// Written by hand, because a derive would require `E: Clone`.
impl<E> Clone for RetryPolicy<E> {
    fn clone(&self) -> Self {
        Self { classify: self.classify.clone(), budget: self.budget.clone(), ..*self }
    }
}

impl<E> fmt::Debug for RetryPolicy<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("backoff", &self.backoff)
            .field("max_delay", &self.max_delay)
            .field("max_attempts", &self.max_attempts)
            .field("timeout", &self.timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
