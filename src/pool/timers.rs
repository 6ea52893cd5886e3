//! The timer methods of a pool: closures that run later, once or repeatedly.
//!
//! A delayed task is an ordinary task. It is admitted at once, and waits in the timer heap before
//! it waits in the queue. A periodic timer is a source of tasks. The timer thread queues both; how
//! it does so is not known here.

use std::io;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::worker_pool::WorkerPool;
use crate::error::TimerError;
use crate::observe::task_origin::TaskOrigin;
use crate::priority::Priority;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;
use crate::time::deadline::Deadline;
use crate::timer::delayed::DelayedTask;
use crate::timer::handle::TimerHandle;
use crate::timer::period::Period;
use crate::timer::periodic::Periodic;
use crate::timer::schedule::Schedule;
use crate::timer::thread::{TimerRefused, TimerThread};
use crate::timer::tick::TickResult;

/// # Timers
///
/// Closures that run on the workers when they are due. The first timer of a pool starts one more
/// thread, which sleeps until a timer is due. A pending timer costs some 200 bytes of memory and no
/// time. At most 1,048,576 timers may be pending at once.
///
/// A timer that is due waits for a free worker, but not for room in the queue, so a full queue does
/// not delay it. Due timers start in the order in which they are due. A worker alternates between
/// due timers, groups and queued jobs, so none of them starves. The
/// [order of tasks](crate#order-of-tasks) says how long each can wait. A timer never starts before
/// its time, and may start later. [`timer`](Self::timer) sets timers of another
/// [class](crate::Priority).
///
/// Every way to close the pool cancels pending timers. Delayed tasks then count as cancelled, also
/// in the [`ShutdownReport`](crate::ShutdownReport). To let them run, call
/// [`wait_idle`](Self::wait_idle) first.
impl WorkerPool {
    /// Runs a closure on a worker once, after `delay`.
    ///
    /// The task is accepted now and counts as queued while it waits, so
    /// [`wait_idle`](Self::wait_idle) waits for it. `Duration::MAX` means never. This method never
    /// blocks, and takes logarithmic time in the number of pending timers.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the pool is shut down, if too many timers are pending,
    /// or if the timer thread could not be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let since = Instant::now();
    /// let delay = Duration::from_millis(20);
    /// pool.execute_after(delay, move || assert!(since.elapsed() >= delay))?;
    /// pool.wait_idle();
    /// assert_eq!(pool.metrics().tasks_succeeded, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_after<F>(&self, delay: Duration, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.set_timer(Due::After(delay), Priority::Normal, f, Location::caller())
    }

    /// Like [`execute_after`](Self::execute_after), but runs the closure at the time `due`. A time
    /// in the past means at once.
    ///
    /// # Errors
    ///
    /// Those of [`execute_after`](Self::execute_after).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (sender, receiver) = channel();
    /// let due = Instant::now() + Duration::from_millis(20);
    /// pool.execute_at(due, move || sender.send(Instant::now()).unwrap())?;
    /// assert!(receiver.recv()? >= due);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_at<F>(&self, due: Instant, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.set_timer(Due::At(due), Priority::Normal, f, Location::caller())
    }

    /// Spawns a task that starts after `delay`, and returns the handle for its result.
    ///
    /// The task is accepted now and counts as queued while it waits, so
    /// [`wait_idle`](Self::wait_idle) waits for it. `Duration::MAX` means never. This method never
    /// blocks.
    ///
    /// [`cancel`](JoinHandle::cancel) ends the delay at once, and drops the closure.
    /// [`join`](JoinHandle::join) waits out the delay. On a worker of the pool it then runs the
    /// task itself if no other worker does, so a pool of one worker is enough. Dropping the handle
    /// detaches the task, which still runs.
    ///
    /// # Errors
    ///
    /// Those of [`execute_after`](Self::execute_after).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let soon = pool.spawn_after(Duration::from_millis(20), || 6 * 7)?;
    /// let late = pool.spawn_after(Duration::from_secs(3_600), || 6 * 9)?;
    /// assert_eq!(soon.join()?, 42);
    /// assert!(late.cancel()); // it never runs, and its closure is gone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_after<F, T>(&self, delay: Duration, f: F) -> Result<JoinHandle<T>, TimerError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.set_task(Due::After(delay), Priority::Normal, f, Location::caller())
    }

    /// Like [`spawn_after`](Self::spawn_after), but the task starts at the time `due`. A time in
    /// the past means at once.
    ///
    /// # Errors
    ///
    /// Those of [`execute_after`](Self::execute_after).
    #[track_caller]
    pub fn spawn_at<F, T>(&self, due: Instant, f: F) -> Result<JoinHandle<T>, TimerError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.set_task(Due::At(due), Priority::Normal, f, Location::caller())
    }

    /// Runs a closure on a worker repeatedly at a fixed rate: first after one `period`, then at
    /// every multiple of it. A [`Period`] can set the first run to another time, such as at once.
    ///
    /// Runs of one timer never overlap. Multiples that pass while the timer runs, while it waits
    /// for a worker, or while the machine sleeps, are skipped. A late timer makes at most one run
    /// to catch up, never a burst, and the next run is at a multiple again.
    ///
    /// Each run is a task of its own, submitted when a worker takes it: between two runs the pool
    /// may be idle. A panic is contained like that of any task, and the timer continues.
    ///
    /// [`TimerHandle::cancel`] and the end of the pool end the timer. So does a closure that
    /// returns [`ControlFlow::Break`](std::ops::ControlFlow::Break); a closure that returns `()`
    /// never does. A period of `Duration::MAX` means never.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the period is zero, and as for
    /// [`execute_after`](Self::execute_after).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (sender, ticks) = channel();
    /// let period = Duration::from_millis(2);
    /// let timer = pool.execute_every(period, move || sender.send("tick").unwrap_or(()))?;
    /// assert_eq!(ticks.iter().take(3).collect::<Vec<_>>(), ["tick"; 3]);
    /// timer.cancel();
    /// assert!(pool.execute_every(Duration::ZERO, || ()).unwrap_err().is_zero_period());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A timer that runs at once, and ends itself:
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use workcrew::Period;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(1).build()?;
    /// let (sender, ticks) = channel();
    /// let mut left = 3;
    /// pool.execute_every(Period::new(Duration::from_millis(2)).at_once(), move || {
    ///     left -= 1;
    ///     sender.send(left).unwrap();
    ///     if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    /// })?;
    /// // The closure is gone after its last run.
    /// assert_eq!(ticks.iter().collect::<Vec<_>>(), [2, 1, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_every<F, R>(&self, period: impl Into<Period>, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() -> R + Send + 'static,
        R: TickResult,
    {
        let period = period.into();
        self.repeat(Schedule::FixedRate, (period, Priority::Normal), f, Location::caller())
    }

    /// Runs a closure like [`execute_every`](Self::execute_every), but `delay` is the time from the
    /// end of one run to the start of the next.
    ///
    /// # Errors
    ///
    /// [`TimerError`] with the closure, if the delay is zero, and as for
    /// [`execute_after`](Self::execute_after).
    #[track_caller]
    pub fn execute_with_fixed_delay<F, R>(&self, delay: impl Into<Period>, f: F) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() -> R + Send + 'static,
        R: TickResult,
    {
        let period = delay.into();
        self.repeat(Schedule::FixedDelay, (period, Priority::Normal), f, Location::caller())
    }

    /// Sets a delayed task without a result.
    pub(super) fn set_timer<F>(
        &self,
        due: Due,
        class: Priority,
        f: F,
        location: &'static Location<'static>,
    ) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let task = self.set_task(due, class, f, location)?;
        Ok(TimerHandle::once(task, Arc::clone(&self.inner().executor)))
    }

    /// Sets a delayed task.
    pub(super) fn set_task<F, T>(
        &self,
        due: Due,
        class: Priority,
        f: F,
        location: &'static Location<'static>,
    ) -> Result<JoinHandle<T>, TimerError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let timers = match self.timers() {
            Ok(timers) => timers,
            Err(source) => return Err(TimerError::no_thread(source, f)),
        };
        let executor = &self.inner().executor;
        let due = match due {
            Due::After(delay) => Deadline::after_instant(timers.clock().now(), delay),
            Due::At(instant) => Deadline::at(instant),
        };
        let Some(id) = executor.admit(location, None) else { return Err(TimerError::shut_down(f)) };
        self.inner().use_class(class);
        match DelayedTask::set(f, (due, class), (id, location), timers) {
            Ok(task) => Ok(JoinHandle::new(task, Arc::clone(executor))),
            Err((refusal, f)) => {
                executor.refuse(&TaskOrigin { id, location, label: None });
                Err(timer_error(refusal, f))
            }
        }
    }

    /// Starts a periodic timer.
    pub(super) fn repeat<F, R>(
        &self,
        schedule: impl FnOnce(Duration) -> Schedule,
        (period, class): (Period, Priority),
        f: F,
        location: &'static Location<'static>,
    ) -> Result<TimerHandle, TimerError<F>>
    where
        F: FnMut() -> R + Send + 'static,
        R: TickResult,
    {
        let schedule = schedule(period.distance());
        if schedule.distance().is_zero() {
            return Err(TimerError::zero_period(f));
        }
        let timers = match self.timers() {
            Ok(timers) => timers,
            Err(source) => return Err(TimerError::no_thread(source, f)),
        };
        let first = period.first(timers.clock().now());
        let carried = self.inner().executor.capture();
        self.inner().use_class(class);
        match Periodic::set((f, carried), (schedule, first, class), location, timers) {
            Ok(timer) => Ok(TimerHandle::periodic(timer, Arc::clone(&self.inner().executor))),
            Err((refusal, f)) => Err(timer_error(refusal, f)),
        }
    }

    /// Returns the timers of the pool. Starts their thread if it is not running.
    pub(crate) fn timers(&self) -> io::Result<&Arc<TimerThread>> {
        let timers = &self.inner().timers;
        timers.start_named()?;
        Ok(timers)
    }
}

/// The time at which a delayed task is due.
#[derive(Clone, Copy)]
pub(super) enum Due {
    After(Duration),
    At(Instant),
}

/// Returns the error for a closure that the timer thread refused.
pub(crate) fn timer_error<F>(refusal: TimerRefused, closure: F) -> TimerError<F> {
    match refusal {
        TimerRefused::Full => TimerError::full(closure),
        TimerRefused::Closed => TimerError::shut_down(closure),
    }
}
