//! Retried tasks of groups and scopes.
//!
//! The group delays the task, and drops the task when the group is cancelled; see `group::delayed`.
//! This module makes the attempts.

use std::panic::Location;

use super::attempts::{Attempt, RetryState};
use super::error::RetryError;
use super::policy::RetryPolicy;
use super::reserve::{reserve, reserve_if_free};
use super::retried::{AfterAttempt, Retried};
use crate::cancel::token::CancellationToken;
use crate::error::TimerError;
use crate::group::scope::Scope;
use crate::group::{Attempts, Body, GroupInner, RepeatedBody, Spawner, Step, TaskGroup};
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::task::executor::{Executor, TaskMeta};
use crate::timer::thread::{Reservation, TimerThread};

/// The attempts of one task.
struct GroupAttempts<F, E> {
    retried: Retried<F, E>,
    timers: Arc<TimerThread>,
}

impl<F, T, E> Attempts<Result<T, RetryError<E>>> for GroupAttempts<F, E>
where
    F: FnMut(Attempt) -> Result<T, E> + Send,
    T: Send + 'static,
    E: Send + 'static,
{
    fn make(
        &mut self,
        executor: &Executor,
        counters: &WorkerCounters,
        meta: &TaskMeta<'_>,
        token: &CancellationToken,
    ) -> Step<Result<T, RetryError<E>>> {
        match self.retried.make_attempt(executor, counters, meta, token, self.timers.clock()) {
            AfterAttempt::Succeeded(value) => Step::Ended(Ok(value)),
            AfterAttempt::Again(due) => Step::Again(due),
            AfterAttempt::GivenUp(reason) => {
                let error = self.retried.take_error(reason);
                Step::Ended(Err(error.expect("a task that is given up has failed")))
            }
        }
    }
}

impl<T: Send + 'static, E: Send + 'static> TaskGroup<Result<T, RetryError<E>>> {
    /// Adds a task that is retried when it fails.
    ///
    /// All attempts are one task of the group, with one place among the values and one outcome. The
    /// task fails when it is given up: the error of the group is then the [`RetryError`]. A panic
    /// of `f` is a failure like an `Err`, and `f` is called again with the same captured values.
    /// The token of an [`Attempt`] is a child of the group's token.
    ///
    /// - While the task waits for its next attempt, it holds no worker. It counts neither against
    ///   the group's [limit](Self::limit) nor against its [capacity](Self::capacity). An attempt
    ///   that is due waits in the group's queue, and counts against the limit while it runs.
    /// - A cancellation of the group ends the delay at once, and drops the closure. An attempt that
    ///   runs sees it in its token, and is the last if it fails.
    /// - When the pool is closed, tasks that wait for their next attempt are cancelled.
    /// - [`wait`](Self::wait) waits for the last attempt. A worker of the pool waits out the delays
    ///   and makes attempts itself, so a pool of one worker is enough.
    ///
    /// All tasks of such a group fail with a [`RetryError`]. For a task that must not be retried,
    /// use a policy with one attempt. Otherwise this method behaves like [`spawn`](Self::spawn),
    /// also with regard to locks and to a group that is cancelled.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, if 1,048,576 such tasks and other
    /// timers are pending, or if the timer thread could not be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let policy = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(3);
    /// let group = pool.group().limit(8);
    /// for page in 1..=3 {
    ///     group.spawn_with_retry(policy.clone(), move |attempt| {
    ///         if attempt.number() < page { Err("busy") } else { Ok(page * 10) }
    ///     })?;
    /// }
    /// assert_eq!(group.wait()?, [10, 20, 30]); // in the order of spawning
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_with_retry<F>(&self, policy: RetryPolicy<E>, f: F) -> Result<(), TimerError<F>>
    where
        F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    {
        spawn(self.inner(), policy, f, Location::caller())
    }
}

impl<T: Send + 'static, E: Send + 'static> Spawner<Result<T, RetryError<E>>> {
    /// Adds a task that is retried when it fails; see
    /// [`TaskGroup::spawn_with_retry`](crate::TaskGroup::spawn_with_retry).
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, in the same cases.
    #[track_caller]
    pub fn spawn_with_retry<F>(&self, policy: RetryPolicy<E>, f: F) -> Result<(), TimerError<F>>
    where
        F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    {
        spawn(self.inner(), policy, f, Location::caller())
    }
}

impl<'scope, E: Send + 'static> Scope<'scope, '_, Result<(), RetryError<E>>> {
    /// Adds a task that may borrow, and that is retried when it fails; see
    /// [`TaskGroup::spawn_with_retry`](crate::TaskGroup::spawn_with_retry).
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, in the same cases.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use std::time::Duration;
    /// use workcrew::retry::RetryPolicy;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let attempts = AtomicU32::new(0);
    /// pool.scope(|scope| {
    ///     scope.spawn_with_retry(RetryPolicy::fixed(Duration::from_millis(1)), |_| {
    ///         if attempts.fetch_add(1, Ordering::Relaxed) < 2 { Err("busy") } else { Ok(()) }
    ///     }).is_ok()
    /// })?;
    /// assert_eq!(attempts.into_inner(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_with_retry<F>(&'scope self, policy: RetryPolicy<E>, f: F) -> Result<(), TimerError<F>>
    where
        F: FnMut(Attempt) -> Result<(), E> + Send + 'scope,
    {
        let (attempts, reservation) = prepare(self.group().timers(), policy, f)?;
        self.add_repeated(Box::new(attempts), reservation, Location::caller());
        Ok(())
    }
}

/// Adds a retried task to a group.
fn spawn<F, T, E>(
    group: &Arc<GroupInner<Result<T, RetryError<E>>>>,
    policy: RetryPolicy<E>,
    f: F,
    location: &'static Location<'static>,
) -> Result<(), TimerError<F>>
where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (attempts, reservation) = prepare(group.timers(), policy, f)?;
    let body = RepeatedBody { attempts: Box::new(attempts), reservation: Some(Box::new(reservation)) };
    let _ = group.spawn(|_| Body::Repeated(body), location);
    Ok(())
}

/// Adds a retried task to a group, also if there is no place for a timer. Then no attempt follows
/// the first.
pub(super) fn spawn_in_any_case<F, T, E>(
    group: &TaskGroup<Result<T, RetryError<E>>>,
    policy: RetryPolicy<E>,
    f: F,
    location: &'static Location<'static>,
) where
    F: FnMut(Attempt) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let timers = group.inner().timers();
    let reservation = reserve_if_free(timers);
    let retried = Retried::new(f, RetryState::new(policy, timers.clock().now()));
    let retried = retried.with_timer(reservation.is_some());
    let attempts = Box::new(GroupAttempts { retried, timers: Arc::clone(timers) });
    let body = RepeatedBody { attempts, reservation: reservation.map(Box::new) };
    let _ = group.inner().spawn(|_| Body::Repeated(body), location);
}

/// Reserves a place for the timer, and creates the attempts of a task.
fn prepare<F, E>(
    timers: &Arc<TimerThread>,
    policy: RetryPolicy<E>,
    f: F,
) -> Result<(GroupAttempts<F, E>, Reservation), TimerError<F>> {
    let (reservation, f) = reserve(timers, f)?;
    let state = RetryState::new(policy, timers.clock().now());
    Ok((GroupAttempts { retried: Retried::new(f, state), timers: Arc::clone(timers) }, reservation))
}
