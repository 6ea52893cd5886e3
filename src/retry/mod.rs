//! Tasks that are tried again.
//!
//! `policy` says whether and when, `attempts` keeps count for one task; both know nothing of pools. `cell` is the task.

mod attempts;
mod budget;
mod cell;
mod error;
mod policy;
#[cfg(test)]
mod tests;

pub use self::attempts::Attempt;
pub use self::budget::RetryBudget;
pub use self::error::{AttemptError, GiveUpReason, RetryError};
pub use self::policy::{ErrorClass, RetryPolicy};

pub(crate) use self::attempts::Attempts;
#[cfg(any(feature = "events", feature = "grpc", feature = "nats"))]
pub(crate) use self::attempts::Next;
use self::cell::RetryCell;
#[cfg(feature = "events")]
pub(crate) use self::error::Errors;
use std::panic::Location;

use crate::error::TimerError;
use crate::pool::submit::WaitMode;
use crate::pool::timers;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;
use crate::task::job::Job;

/// # Tasks that are tried again
impl WorkerPool {
    /// Hands over a task that is tried again when it fails, and returns the handle to wait for its result.
    ///
    /// It is one task over all attempts: one identity, one handle, one fate. While it waits for the next attempt it holds
    /// no worker and counts as queued. A panic of `f` is a failure like an `Err`, and `f` is called again on the same
    /// captured values. Every panic is told to [`WorkerPoolBuilder::on_panic`](crate::WorkerPoolBuilder::on_panic) at once.
    ///
    /// The handle does what it always does:
    /// - [`cancel`](JoinHandle::cancel) ends a delay at once, and frees the closure. During an attempt it returns `false`
    ///   and cancels the attempt's [token](Attempt::token); if that attempt fails, it is the last.
    /// - [`join`](JoinHandle::join) waits for the last attempt. On a worker of the pool it makes the attempts itself when
    ///   nobody else does, delays included: a pool of one worker is enough. So does polling the handle on a worker.
    ///
    /// When the pool is closed, a task that waits for another attempt is cancelled; one that is being tried is not tried
    /// again. An attempt that is queued is still made.
    ///
    /// When the queue is full, this does what [`spawn`](Self::spawn) does: it may wait, or run the closure in place, so
    /// hold no [lock](crate#may-i-hold-a-lock-while-i-submit) that tasks take.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, if 1,048,576 such tasks and other timers are pending, or
    /// if the timer thread could not be started.
    ///
    /// The handle yields [`RetryError`], with the first and the last error, when the task is given up or is cancelled after
    /// an attempt; [`JoinError::Cancelled`](crate::JoinError::Cancelled), when it was never tried.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    /// use workcrew::retry::{GiveUpReason, RetryPolicy};
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    ///
    /// let flaky = pool.spawn_with_retry(policy.clone(), |attempt| {
    ///     if attempt.number() < 3 { Err("no answer") } else { Ok(attempt.number()) }
    /// })?;
    /// assert_eq!(flaky.join()?.unwrap(), 3);
    ///
    /// let hopeless = pool.spawn_with_retry(policy, |_| Err::<(), _>("no answer"))?;
    /// let error = hopeless.join()?.unwrap_err();
    /// assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Attempts));
    /// assert_eq!(error.to_string(), "given up after attempt 3, since the attempts are used up: no answer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the handle's result is the task's result, whose error is the retry's")]
    pub fn spawn_with_retry<F, T, E>(
        &self,
        policy: RetryPolicy<E>,
        f: F,
    ) -> Result<JoinHandle<Result<T, RetryError<E>>>, TimerError<F>>
    where
        F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let location = Location::caller();
        let timers = match self.timers() {
            Ok(timers) => timers,
            Err(source) => return Err(TimerError::no_thread(source, f)),
        };
        let reservation = match timers.reserve() {
            Ok(reservation) => reservation,
            Err(refusal) => return Err(timers::timer_error(refusal, f)),
        };
        let attempts = Attempts::new(policy, timers.watch().now());
        let mut body = Some((f, attempts, reservation));
        let mut task = None;
        let executor = &self.inner().executor;
        let queued_at = executor.now_if_timing();
        let submitted = self.inner().submit(WaitMode::Policy, location, |id| {
            let (f, attempts, reservation) = body.take().expect("a task is made once");
            let cell = RetryCell::new(f, attempts, reservation, Arc::clone(timers), (id, location, queued_at));
            Job::Task(Arc::clone(task.insert(cell)) as _)
        });
        match (submitted, task) {
            (Ok(()), Some(task)) => Ok(JoinHandle::new(task, Arc::clone(executor))),
            (Err(_), Some(task)) => Err(TimerError::shut_down(task.withdraw())),
            (_, None) => Err(TimerError::shut_down(body.expect("a task that was not made leaves the closure").0)),
        }
    }
}
