//! Timers: closures that run later, once or again and again.
//!
//! A delayed task is an ordinary task, admitted when it is handed over, that lies in the timekeeper's agenda before it
//! lies in the queue. A periodic timer is a source of tasks. Both reach the queue by the timekeeper's thread, which this
//! module knows nothing of.

use crate::timer::handle::TimerHandle;

use crate::timer::periodic::Periodic;
use crate::timer::schedule::Schedule;
use std::io;
use std::panic::Location;
use std::time::Duration;

use super::worker_pool::WorkerPool;
use crate::error::TimerError;
use crate::observe::observer::TaskInfo;
use crate::sync::Arc;
use crate::sync::thread_name::thread_name;
use crate::task::TaskCell;
use crate::task::handle::JoinHandle;
use crate::timer::heap::Due;
use crate::timer::thread::{TimerRefused, TimerThread};

/// # Timers
///
/// Closures that run on the workers when their time has come. A pool's first timer starts one more thread, which sleeps
/// until something is due: pending timers cost memory (some 200 bytes each) and no time. At most 1,048,576 may be
/// pending at once.
///
/// When its time has come, a closure waits for a free worker, but not for room in the queue: a full queue does not hold
/// it up. Due timers start in the order in which they are due. A worker takes due timers and queued jobs by turns, so
/// a due timer does not wait until the queue is empty, and jobs do not wait until no timer is due. Groups take turns there
/// too; the [order of tasks](crate#in-which-order-do-tasks-start) says how long each can wait. So "when" means "not
/// before".
///
/// When the pool is closed, in whatever way, pending timers are cancelled. Delayed tasks count as cancelled then, in the
/// [`ShutdownReport`](crate::ShutdownReport) too. To let them run first, call [`wait_idle`](Self::wait_idle) before.
impl WorkerPool {
    /// Runs a closure on a worker after `delay`, once.
    ///
    /// The task is accepted now, and counts as queued while it waits; [`wait_idle`](Self::wait_idle) waits for it.
    /// `Duration::MAX` means never. Never blocks. Costs a logarithm of the number of pending timers.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, if too many timers are pending, or if the timer thread
    /// could not be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let since = Instant::now();
    /// pool.execute_after(Duration::from_millis(20), move || assert!(since.elapsed() >= Duration::from_millis(20)))?;
    /// pool.wait_idle();
    /// assert_eq!(pool.metrics().tasks_succeeded, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_after<F>(&self, delay: Duration, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let location = Location::caller();
        let timers = match self.timers() {
            Ok(timers) => timers,
            Err(source) => return Err(TimerError::no_thread(source, f)),
        };
        let executor = &self.inner().executor;
        let due = Due::after(timers.watch().now(), delay);
        let Some(id) = executor.admit(location, None) else { return Err(TimerError::shut_down(f)) };
        let task = Arc::new(TaskCell::new(f, id, location, None));
        match timers.put(due, Arc::clone(&task) as _) {
            Ok(place) => {
                let handle = JoinHandle::new(task, Arc::clone(executor));
                Ok(TimerHandle::once(handle, place, Arc::clone(timers), Arc::clone(executor)))
            }
            Err(refusal) => {
                executor.refuse(&TaskInfo { id, location, label: None });
                Err(no_place(refusal, task.withdraw()))
            }
        }
    }

    /// Runs a closure on a worker again and again, at a fixed rate: the first time after one `period`, then at every
    /// multiple of it.
    ///
    /// Runs of one timer never overlap. Moments that pass while it is running, or while it waits for a worker, or while
    /// the machine sleeps, are left out: what is late is made up by one run at most, never by a burst, and the next one
    /// keeps to the row of multiples.
    ///
    /// Each run is a task of its own, submitted when a worker comes to it: between two runs the pool may be idle. A panic
    /// is contained like any task's, and the timer goes on. It ends by [`TimerHandle::cancel`], or with the pool. `Duration::MAX`
    /// means never.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the period is zero, and as for [`execute_after`](Self::execute_after).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (sender, ticks) = channel();
    /// let timer = pool.execute_every(Duration::from_millis(2), move || sender.send("tick").unwrap_or(()))?;
    /// assert_eq!(ticks.iter().take(3).collect::<Vec<_>>(), ["tick"; 3]);
    /// timer.cancel();
    /// assert!(pool.execute_every(Duration::ZERO, || ()).unwrap_err().is_zero_period());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_every<F>(&self, period: Duration, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() + Send + 'static,
    {
        self.repeat(Schedule::FixedRate(period), f, Location::caller())
    }

    /// Like [`execute_every`](Self::execute_every), but `delay` is the time from the end of one run to the start of the
    /// next, however long a run takes.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the delay is zero, and as for [`execute_after`](Self::execute_after).
    #[track_caller]
    pub fn execute_with_fixed_delay<F>(&self, delay: Duration, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() + Send + 'static,
    {
        self.repeat(Schedule::FixedDelay(delay), f, Location::caller())
    }

    fn repeat<F>(
        &self,
        rhythm: Schedule,
        f: F,
        location: &'static Location<'static>,
    ) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() + Send + 'static,
    {
        if rhythm.is_zero() {
            return Err(TimerError::zero_period(f));
        }
        match self.timers() {
            Err(source) => Err(TimerError::no_thread(source, f)),
            Ok(timers) => match Periodic::set(f, rhythm, location, timers) {
                Ok(timer) => Ok(TimerHandle::periodic(timer, Arc::clone(&self.inner().executor))),
                Err((refusal, f)) => Err(no_place(refusal, f)),
            },
        }
    }

    /// The timekeeper, whose thread runs from now on.
    pub(crate) fn timers(&self) -> io::Result<&Arc<TimerThread>> {
        let timers = &self.inner().timers;
        timers.start(|| thread_name(self.thread_name(), "timer"))?;
        Ok(timers)
    }
}

/// The error for a closure that found no place in the agenda.
pub(crate) fn no_place<F>(refusal: TimerRefused, closure: F) -> TimerError<F> {
    match refusal {
        TimerRefused::Full => TimerError::full(closure),
        TimerRefused::Closed => TimerError::shut_down(closure),
    }
}
