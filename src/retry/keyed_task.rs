//! Retried tasks of keys.
//!
//! The executor delays the key of the task; see `keyed::delay`. This module makes the attempts.

use std::hash::Hash;
use std::panic::Location;

use super::attempts::{Attempt, RetryState};
use super::error::{GiveUpReason, RetryError};
use super::policy::RetryPolicy;
use super::reserve::reserve;
use super::retried::{AfterAttempt, Retried};
use crate::cancel::token::CancellationToken;
use crate::error::{CancelReason, JoinError, TimerError};
use crate::keyed::{KeyedBody, KeyedExecutor, Later, Outcome, Step};
use crate::nesting;
use crate::observe::worker_counters::WorkerCounters;
use crate::pool::submit::WaitMode;
use crate::sync::Arc;
use crate::task::executor::{Executor, TaskMeta};
use crate::task::handle::JoinHandle;
use crate::timer::thread::{Reservation, TimerThread};
use crate::unwind;

/// The attempts of one task.
struct KeyedAttempts<F, E> {
    retried: Retried<F, E>,
    timers: Arc<TimerThread>,
    /// The place for the timer, from the first to the last attempt.
    reservation: Arc<Reservation>,
}

impl<F, T, E> KeyedBody<Result<T, RetryError<E>>> for KeyedAttempts<F, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn call(
        mut self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        token: Option<&CancellationToken>,
    ) -> Step<Self, Result<T, RetryError<E>>> {
        let token = token.expect("a task that is retried has a token");
        match self.retried.make_attempt(executor, counters, meta, token, self.timers.clock()) {
            AfterAttempt::Succeeded(value) => {
                unwind::discard(self);
                Step::Ended(Ok(Ok(value)))
            }
            AfterAttempt::Again(due) => {
                let reservation = Arc::clone(&self.reservation);
                Step::Again(self, Later { due, reservation })
            }
            AfterAttempt::GivenUp(reason) => {
                let error = self.retried.take_error(reason).expect("a task that is given up has failed");
                unwind::discard(self);
                Step::Ended(Ok(Err(error)))
            }
        }
    }

    fn cancel(mut self, reason: CancelReason) -> Outcome<Result<T, RetryError<E>>> {
        let error = self.retried.take_error(GiveUpReason::Cancelled(reason));
        nesting::discard(self);
        error.map_or(Err(JoinError::Cancelled(reason)), |error| Ok(Err(error)))
    }
}

/// # Tasks that are retried
impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutor<K> {
    /// Submits a task of `key` that is retried when it fails, and returns the handle for its
    /// result.
    ///
    /// The task holds its key until its last attempt has ended: no later task of the key starts
    /// before that. While it waits for its next attempt, it holds no worker, and other keys take
    /// their turns. Otherwise the attempts and the handle are those of
    /// [`WorkerPool::spawn_with_retry`](crate::WorkerPool::spawn_with_retry). If the handle cancels
    /// the task, or the pool is closed, during a delay, the next task of the key runs.
    ///
    /// Blocks while the executor or the key is full, as [`spawn`](Self::spawn) does. A task that
    /// waits for its next attempt does not count in the bounds.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, too many timers are pending, or
    /// the timer thread could not be started. A pool has at most 1,048,576 pending timers, such
    /// tasks included.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let (executor, (sender, receiver)) = (pool.keyed(), channel());
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    /// let first = executor.spawn_with_retry("alice", policy, |attempt| {
    ///     if attempt.number() < 3 { Err("busy") } else { Ok(attempt.number()) }
    /// })?;
    /// executor.execute("alice", move || sender.send("after the last attempt").unwrap())?;
    /// assert_eq!(first.join()?.unwrap(), 3);
    /// assert_eq!(receiver.recv()?, "after the last attempt");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the result of the handle holds the result of the task")]
    pub fn spawn_with_retry<F, T, E>(
        &self,
        key: K,
        policy: RetryPolicy<E>,
        f: F,
    ) -> Result<JoinHandle<Result<T, RetryError<E>>>, TimerError<F>>
    where
        F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let location = Location::caller();
        let timers = &self.pool().timers;
        let (reservation, f) = reserve(timers, f)?;
        let retried = Retried::new(f, RetryState::new(policy, timers.clock().now()));
        let body = KeyedAttempts { retried, timers: Arc::clone(timers), reservation: Arc::new(reservation) };
        self.submit_body(key, (body, Some(CancellationToken::new())), WaitMode::Policy, location)
            .map_err(|(_, body)| TimerError::shut_down(body.retried.into_closure()))
    }
}
