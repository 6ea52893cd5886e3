//! Timers: closures that run later, once or again and again.
//!
//! A delayed task is an ordinary task, admitted when it is handed over, that lies in the timekeeper's agenda before it
//! lies in the queue. A periodic timer is a source of tasks. Both reach the queue by the timekeeper's thread, which this
//! module knows nothing of.

mod handle;
mod periodic;
mod rhythm;
#[cfg(test)]
pub(crate) mod tests;

pub use self::handle::TimerHandle;

use self::periodic::Periodic;
use self::rhythm::Rhythm;
use std::io;
use std::panic::Location;
use std::time::Duration;

use crate::agenda::Due;
use crate::error::TimerError;
use crate::handle::JoinHandle;
use crate::observer::TaskInfo;
use crate::pool::WorkerPool;
use crate::sync::Arc;
use crate::task::TaskCell;
use crate::thread_name::thread_name;
use crate::timekeeper::{NoPlace, Timekeeper};

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
        let timekeeper = match self.timekeeper() {
            Ok(timekeeper) => timekeeper,
            Err(source) => return Err(TimerError::no_thread(source, f)),
        };
        let supervisor = &self.engine().supervisor;
        let due = Due::after(timekeeper.watch().now(), delay);
        let Some(id) = supervisor.admit(location, None) else { return Err(TimerError::shut_down(f)) };
        let task = Arc::new(TaskCell::new(f, id, location, None));
        match timekeeper.put(due, Arc::clone(&task) as _) {
            Ok(place) => {
                let handle = JoinHandle::new(task, Arc::clone(supervisor));
                Ok(TimerHandle::once(handle, place, Arc::clone(timekeeper), Arc::clone(supervisor)))
            }
            Err(refusal) => {
                supervisor.withdrawn(&TaskInfo { id, location, label: None });
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
        self.repeat(Rhythm::Rate(period), f, Location::caller())
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
        self.repeat(Rhythm::Pause(delay), f, Location::caller())
    }

    fn repeat<F>(
        &self,
        rhythm: Rhythm,
        f: F,
        location: &'static Location<'static>,
    ) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() + Send + 'static,
    {
        if rhythm.is_zero() {
            return Err(TimerError::zero_period(f));
        }
        match self.timekeeper() {
            Err(source) => Err(TimerError::no_thread(source, f)),
            Ok(timekeeper) => match Periodic::set(f, rhythm, location, timekeeper) {
                Ok(timer) => Ok(TimerHandle::periodic(timer, Arc::clone(&self.engine().supervisor))),
                Err((refusal, f)) => Err(no_place(refusal, f)),
            },
        }
    }

    /// The timekeeper, whose thread runs from now on.
    pub(crate) fn timekeeper(&self) -> io::Result<&Arc<Timekeeper>> {
        let timekeeper = &self.engine().timekeeper;
        timekeeper.start(|| thread_name(self.thread_name(), "timer"))?;
        Ok(timekeeper)
    }
}

/// The error for a closure that found no place in the agenda.
pub(crate) fn no_place<F>(refusal: NoPlace, closure: F) -> TimerError<F> {
    match refusal {
        NoPlace::Full => TimerError::full(closure),
        NoPlace::Closed => TimerError::shut_down(closure),
    }
}
