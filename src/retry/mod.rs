//! Tasks that are retried: policies, budgets, attempts and errors.
//!
//! A [`RetryPolicy`] says whether and when a failed task is retried. Pass it to
//! [`WorkerPool::spawn_with_retry`], or to the method of the same name of a [task
//! builder](crate::TaskBuilder::spawn_with_retry), a [group](crate::TaskGroup::spawn_with_retry), a
//! spawner, a [scope](crate::Scope::spawn_with_retry) or a
//! [keyed executor](crate::KeyedExecutor::spawn_with_retry). [`WorkerPool::map_with_retry`] and
//! [`WorkerPool::try_map_with_retry`] retry the items of a map. The builders of subscriptions, gRPC
//! callers and NATS workers take a policy, too.

// `policy` has the settings and `attempts` the state of one task. Both know nothing of pools.
// `retried` makes the attempts. `task` is a task of a pool, `group_task` one of a group,
// `keyed_task` one of a key; `reserve` reserves the place for the timer of any of them. `map`
// makes a task of each item: of the pool, or of a group.

mod attempts;
mod budget;
mod reserve;
mod retried;
mod task;
mod group_task;
mod keyed_task;
mod map;
mod error;
mod policy;
#[cfg(test)]
mod tests;

pub use self::attempts::Attempt;
pub use self::budget::RetryBudget;
pub use self::error::{AttemptError, GiveUpReason, RetryError};
pub use self::policy::{ErrorClass, RetryPolicy};

#[cfg(any(feature = "events", feature = "grpc", feature = "nats"))]
pub(crate) use self::attempts::RetryDecision;
pub(crate) use self::attempts::RetryState;
#[cfg(feature = "events")]
pub(crate) use self::error::AttemptErrors;
pub use self::map::RetryMap;
use self::reserve::reserve;
use self::task::RetryTask;
use std::panic::Location;

use crate::cancel::token::CancellationToken;
use crate::error::{Refusal, TimerError};
use crate::pool::submit::{SubmitSettings, WaitMode};
use crate::pool::task_builder::TaskBuilder;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;
use crate::task::limited::TaskLimits;
use crate::time::deadline::Deadline;
use crate::timer::thread::Reservation;

/// # Tasks that are retried
impl WorkerPool {
    /// Spawns a task that is retried when it fails, and returns a handle to wait for its result.
    ///
    /// All attempts are one task, with one identity, one handle and one outcome. While the task
    /// waits for its next attempt, it holds no worker and counts as queued. A panic of `f` is a
    /// failure like an `Err`, and `f` is called again with the same captured values.
    /// [`WorkerPoolBuilder::on_panic`](crate::WorkerPoolBuilder::on_panic) is called for every
    /// panic at once.
    ///
    /// The handle behaves as follows:
    /// - [`cancel`](JoinHandle::cancel) ends a delay at once, and drops the closure. During an
    ///   attempt it returns `false` and cancels the attempt's [token](Attempt::token). If that
    ///   attempt fails, it is the last.
    /// - [`join`](JoinHandle::join) waits for the last attempt. A worker of the pool waits out the
    ///   delays and makes the attempts itself if no other worker does, so a pool of one worker is
    ///   enough. Polling the handle on a worker does the same.
    ///
    /// When the pool is closed, a task that waits for its next attempt is cancelled. A task whose
    /// attempt is running is not retried. An attempt that is queued is still made.
    ///
    /// When the queue is full, this method behaves like [`spawn`](Self::spawn). It may block or run
    /// the closure inline, so hold no [lock](crate#locks-and-submissions) that tasks take.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, if 1,048,576 such tasks and other
    /// timers are pending, or if the timer thread could not be started.
    ///
    /// The handle returns [`RetryError`] with the first and the last error, if the task is given up
    /// or is cancelled after an attempt. It returns
    /// [`JoinError::Cancelled`](crate::JoinError::Cancelled), if the task is cancelled before its
    /// first attempt.
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
    /// assert_eq!(
    ///     error.to_string(),
    ///     "given up after attempt 3, since the attempts are used up: no answer",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the result of the handle holds the result of the task")]
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
        let settings = SubmitSettings::plain(WaitMode::Policy, Location::caller());
        let task = spawn(self, policy, f, settings, no_limits())?;
        Ok(JoinHandle::new(task, Arc::clone(&self.inner().executor)))
    }
}

/// # Tasks that are retried
impl TaskBuilder<'_> {
    /// Spawns a task that is retried when it fails, as [`WorkerPool::spawn_with_retry`] does.
    ///
    /// The settings are those of the task, over all its attempts:
    /// - Each attempt waits for a worker in the class of the task, and has its label.
    /// - The token of an [`Attempt`] is a child of the task's token. Once that is cancelled, no
    ///   further attempt begins. If its [parent](Self::token) is cancelled, a delay ends at once.
    /// - The [`timeout`](Self::timeout) counts from the start of the first attempt, and includes the
    ///   delays.
    /// - [`expires_after`](Self::expires_after) and [`expires_at`](Self::expires_at) limit the wait
    ///   for the first attempt.
    ///
    /// A timeout or deadline that passes during a delay ends the task when the delay is over. The
    /// timeouts of the policy count as well.
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::spawn_with_retry`]. The handle of a task that its token has ended after
    /// an attempt returns a [`RetryError`] whose reason is [`GiveUpReason::Cancelled`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    /// use workcrew::{Priority, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(2).background_workers(1).build()?;
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1));
    /// let upload = pool.task().priority(Priority::Background).label("upload");
    /// let upload = upload.spawn_with_retry(policy, |attempt| {
    ///     if attempt.number() < 3 { Err("busy") } else { Ok(attempt.number()) }
    /// })?;
    /// assert_eq!(upload.join()?.unwrap(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "the result of the handle holds the result of the task")]
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
        let settings = self.settings(WaitMode::Policy, Location::caller());
        let task = spawn(self.pool(), policy, f, settings, self.limits())?;
        let executor = &self.pool().inner().executor;
        if self.has_parent_token() {
            task.watch_token(executor);
        }
        Ok(JoinHandle::new(task, Arc::clone(executor)))
    }
}

/// Returns a token that nothing else cancels, and no label.
fn no_limits() -> TaskLimits {
    TaskLimits { token: CancellationToken::new(), timeout: None, start_by: Deadline::NEVER, label: None }
}

/// Submits a task of a pool that is retried.
fn spawn<F, T, E>(
    pool: &WorkerPool,
    policy: RetryPolicy<E>,
    f: F,
    settings: SubmitSettings<'_>,
    limits: TaskLimits,
) -> Result<Arc<RetryTask<F, T, E>>, TimerError<F>>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (reservation, f) = reserve(&pool.inner().timers, f)?;
    submit(pool, (policy, Some(reservation)), f, settings, limits).map_err(|(_, f)| TimerError::shut_down(f))
}

/// A retried task of a pool, or its closure, which was refused.
type Submitted<F, T, E> = Result<Arc<RetryTask<F, T, E>>, (Refusal, F)>;

/// Submits a task of a pool that is retried if it has a place for the timer.
fn submit<F, T, E>(
    pool: &WorkerPool,
    (policy, reservation): (RetryPolicy<E>, Option<Reservation>),
    f: F,
    settings: SubmitSettings<'_>,
    limits: TaskLimits,
) -> Submitted<F, T, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let timers = &pool.inner().timers;
    let attempts = RetryState::new(policy, timers.clock().now());
    let (location, limits) = (settings.location, (limits, settings.class));
    let make = |f, id, queued_at| {
        RetryTask::new(f, attempts, reservation, Arc::clone(timers), limits, (id, location, queued_at))
    };
    pool.inner().submit_task(f, settings, make, RetryTask::withdraw)
}
