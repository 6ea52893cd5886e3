//! The builder of timers of a class.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::timers::Due;
use super::worker_pool::WorkerPool;
use crate::error::TimerError;
use crate::priority::Priority;
use crate::task::handle::JoinHandle;
use crate::timer::handle::TimerHandle;
use crate::timer::period::Period;
use crate::timer::schedule::Schedule;
use crate::timer::tick::TickResult;

/// A builder of timers of a [class](Priority). Returned by [`WorkerPool::timer`].
///
/// A timer that is due waits for a worker like the other tasks of its class. The methods behave
/// like those of [`WorkerPool`] with the same names, and have the same errors. A builder is
/// reusable.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use workcrew::{Priority, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(2).background_workers(1).build()?;
/// let batch = pool.timer().priority(Priority::Background);
/// let nightly = batch.execute_every(Duration::from_secs(86_400), || println!("compacting"))?;
/// let soon = batch.spawn_after(Duration::from_millis(1), || 6 * 7)?;
/// assert_eq!(soon.join()?, 42);
/// assert!(nightly.cancel());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing before it sets a timer"]
#[derive(Clone, Debug)]
pub struct TimerBuilder<'pool> {
    pool: &'pool WorkerPool,
    priority: Priority,
}

/// # Timers with settings
impl WorkerPool {
    /// Returns a builder for timers of a [class](Priority).
    pub fn timer(&self) -> TimerBuilder<'_> {
        TimerBuilder { pool: self, priority: Priority::Normal }
    }
}

impl TimerBuilder<'_> {
    /// Sets the class of the timers. *Default: [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Runs a closure once, after `delay`; see [`WorkerPool::execute_after`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_after`].
    #[track_caller]
    pub fn execute_after<F>(&self, delay: Duration, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.pool.set_timer(Due::After(delay), self.priority, f, Location::caller())
    }

    /// Runs a closure once, at the time `due`; see [`WorkerPool::execute_at`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_after`].
    #[track_caller]
    pub fn execute_at<F>(&self, due: Instant, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.pool.set_timer(Due::At(due), self.priority, f, Location::caller())
    }

    /// Spawns a task that starts after `delay`; see [`WorkerPool::spawn_after`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_after`].
    #[track_caller]
    pub fn spawn_after<F, T>(&self, delay: Duration, f: F) -> Result<JoinHandle<T>, TimerError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool.set_task(Due::After(delay), self.priority, f, Location::caller())
    }

    /// Spawns a task that starts at the time `due`; see [`WorkerPool::spawn_at`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_after`].
    #[track_caller]
    pub fn spawn_at<F, T>(&self, due: Instant, f: F) -> Result<JoinHandle<T>, TimerError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool.set_task(Due::At(due), self.priority, f, Location::caller())
    }

    /// Runs a closure repeatedly at a fixed rate; see [`WorkerPool::execute_every`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_every`].
    #[track_caller]
    pub fn execute_every<F, R>(&self, period: impl Into<Period>, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() -> R + Send + 'static,
        R: TickResult,
    {
        self.pool.repeat(Schedule::FixedRate, (period.into(), self.priority), f, Location::caller())
    }

    /// Runs a closure repeatedly, with a fixed delay after each run; see
    /// [`WorkerPool::execute_with_fixed_delay`].
    ///
    /// # Errors
    ///
    /// Those of [`WorkerPool::execute_with_fixed_delay`].
    #[track_caller]
    pub fn execute_with_fixed_delay<F, R>(&self, delay: impl Into<Period>, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() -> R + Send + 'static,
        R: TickResult,
    {
        self.pool.repeat(Schedule::FixedDelay, (delay.into(), self.priority), f, Location::caller())
    }
}
