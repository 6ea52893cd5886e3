//! Timers with a manual clock. The tests act as the workers: they pop jobs from the queue and run
//! them, so they control each step.

use std::time::{Duration, Instant};

use super::handle::Repeating;
use super::period::Period;
use super::periodic::Periodic;
use super::schedule::Schedule;
use super::thread::{MAX_TIMERS, TimerRefused, TimerThread};
use crate::error::CancelReason;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::queue::{PopCursor, Queue};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, thread};
use crate::task::cell::TaskCell;
use crate::task::executor::{Executor, Hooks};
use crate::task::job::{Job, Task};
use crate::time::clock::Clock;
use crate::time::deadline::Deadline;
use std::panic::Location;

const SECOND: Duration = Duration::from_secs(1);

/// The timers and the queue of a pool without workers, with a manual clock.
pub(crate) struct Bench {
    pub(crate) clock: Clock,
    pub(crate) queue: Arc<Queue<Job>>,
    pub(crate) timers: Arc<TimerThread>,
    pub(crate) executor: Executor,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (clock, queue) = (Clock::manual(), Arc::new(Queue::new(1)));
        let timers = Arc::new(TimerThread::with_clock(clock.clone(), &queue));
        timers.start(|| "bench-timer".to_owned()).expect("a thread can be started");
        Self { clock, queue, timers, executor: Executor::new(Hooks::default(), false) }
    }

    /// Advances the clock.
    pub(crate) fn advance(&self, time: Duration) {
        self.clock.advance(time);
        self.timers.wake();
    }

    /// Takes the next job that is fired.
    fn take(&self) -> Job {
        loop {
            if let Some(job) = self.queue.pop(&mut PopCursor::default(), || false) {
                return job;
            }
        }
    }

    /// Runs the tasks that are due now and returns their number. It adds a task of its own, which
    /// is fired after them and so shows that all of them were fired.
    pub(crate) fn run_due(&self) -> usize {
        let ran = Arc::default();
        let last = RecordRun(0, Arc::clone(&ran));
        self.timers.insert(Deadline::at(self.clock.now()), Arc::new(last)).expect("there is room");
        for jobs in 0.. {
            self.take().run(&self.executor);
            if !ran.lock().is_empty() {
                assert!(self.queue.is_empty());
                return jobs;
            }
        }
        unreachable!("the last task is fired")
    }

    fn every<F: FnMut() + Send + 'static>(&self, schedule: Schedule, f: F) -> Arc<Periodic<F>> {
        let first = Period::new(schedule.distance()).first(self.clock.now());
        Periodic::set((f, None), (schedule, first, Priority::Normal), Location::caller(), &self.timers)
            .ok()
            .expect("there is room")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for task in self.timers.close() {
            task.cancel(CancelReason::ShutDown, &self.executor);
        }
        self.timers.join();
    }
}

/// Records its number when it runs.
struct RecordRun(usize, Arc<Mutex<Vec<usize>>>);

impl Task for RecordRun {
    fn run(&self, _: &Executor) {
        self.1.lock().push(self.0);
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn cancel(&self, _: CancelReason, _: &Executor) -> bool {
        false
    }
}

/// Fault 126.
#[test]
fn tasks_are_fired_by_deadline_ties_in_order_of_insertion_and_far_ones_delay_none() {
    let bench = Bench::new();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let delays = [Duration::MAX, SECOND * 1_000_000_000, SECOND * 2, SECOND, SECOND, Duration::ZERO, SECOND * 3];
    for (number, delay) in delays.into_iter().enumerate() {
        let due = Deadline::after_instant(bench.clock.now(), delay);
        bench.timers.insert(due, Arc::new(RecordRun(number, Arc::clone(&ran)))).expect("there is room");
    }
    assert_eq!((bench.run_due(), ran.lock().clone()), (1, vec![5]));
    bench.advance(2 * SECOND);
    assert_eq!((bench.run_due(), ran.lock().clone()), (3, vec![5, 3, 4, 2]));
    bench.advance(SECOND);
    assert_eq!((bench.run_due(), bench.timers.len()), (1, 2));
}

/// Fault 128.
#[test]
fn a_hundred_missed_periods_are_made_up_by_one_run_and_the_grid_is_kept() {
    let bench = Bench::new();
    let start = bench.clock.now();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let (clock, times) = (bench.clock.clone(), Arc::clone(&ran));
    let timer = bench.every(Schedule::FixedRate(SECOND), move || times.lock().push(clock.now() - start));
    let steps = [Duration::from_millis(100_500), Duration::from_millis(499), Duration::from_millis(1), SECOND];
    for (step, runs) in steps.into_iter().zip([1, 0, 1, 1]) {
        bench.advance(step);
        assert_eq!((bench.run_due(), bench.timers.len()), (runs, 1), "after {step:?}");
    }
    let expected = [100_500, 101_000, 102_000].map(Duration::from_millis);
    assert_eq!(*ran.lock(), expected);
    assert!(timer.cancel(CancelReason::Requested, &bench.executor));
}

/// Fault 129.
#[test]
fn a_fixed_rate_counts_from_start_to_start_and_a_fixed_delay_from_end_to_start() {
    for (schedule, expected) in [
        (Schedule::FixedRate(SECOND), [1_000, 4_000, 7_000, 10_000]),
        (Schedule::FixedDelay(SECOND), [1_000, 4_300, 7_600, 10_900]),
    ] {
        let bench = Bench::new();
        let start = bench.clock.now();
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (clock, noted) = (bench.clock.clone(), Arc::clone(&starts));
        let _timer = bench.every(schedule, move || {
            noted.lock().push((clock.now() - start).as_millis());
            clock.advance(Duration::from_millis(2_300)); // as long as a run takes
        });
        for due in expected {
            let left = start + Duration::from_millis(due as u64) - bench.clock.now();
            bench.advance(left - Duration::from_nanos(1));
            assert_eq!(bench.run_due(), 0);
            bench.advance(Duration::from_nanos(1));
            assert_eq!(bench.run_due(), 1);
        }
        assert_eq!(*starts.lock(), expected, "{schedule:?}");
    }
}

/// Fault 129.
/// The first run is due after one period, so cycles <= elapsed / period < cycles + 1.
#[test]
fn short_runs_at_a_fixed_rate_never_fall_behind() {
    let bench = Bench::new();
    let _timer = bench.every(Schedule::FixedRate(SECOND), || ());
    let mut cycles = 0;
    for step in 1..=200_u32 {
        bench.advance(SECOND / 4);
        cycles += bench.run_due();
        assert_eq!(cycles as u32, step / 4);
    }
}

#[test]
fn the_next_time_of_a_grid_is_the_first_that_has_not_passed() {
    let last = Instant::now();
    for period in [1, 2, 3, 7, 1_000, 999_999_999, u64::MAX / 4].map(Duration::from_nanos) {
        for late in [0, 1, 6, 7, 8, 1_000_000_007].map(Duration::from_nanos) {
            let next =
                Schedule::FixedRate(period).next(Deadline::at(last), last + late).instant().expect("the period fits");
            assert!(next > last + late, "{period:?} {late:?}");
            assert!(next - (last + late) <= period, "{period:?} {late:?}");
            assert_eq!((next - last).as_nanos() % period.as_nanos(), 0, "{period:?} {late:?}");
        }
    }
    for schedule in [Schedule::FixedRate(Duration::MAX), Schedule::FixedDelay(Duration::MAX)] {
        assert_eq!(Period::new(schedule.distance()).first(last), Deadline::NEVER);
        assert_eq!(schedule.next(Deadline::at(last), last), Deadline::NEVER);
        assert_eq!(schedule.next(Deadline::NEVER, last), Deadline::NEVER);
    }
}

#[test]
fn a_cancelled_timer_frees_its_closure_and_its_slot_at_once() {
    let bench = Bench::new();
    let held = Arc::new(());
    let captured = Arc::clone(&held);
    let timer = bench.every(Schedule::FixedRate(SECOND), move || drop(Arc::clone(&captured)));
    assert!(!timer.is_stopped());
    assert!(timer.cancel(CancelReason::Requested, &bench.executor));
    assert_eq!((Arc::strong_count(&held), bench.timers.len()), (1, 0));
    assert!(timer.is_stopped() && !timer.cancel(CancelReason::Requested, &bench.executor));
    bench.advance(10 * SECOND);
    assert_eq!(bench.run_due(), 0);
}

#[test]
fn a_timer_that_is_cancelled_in_the_queue_does_not_run() {
    let bench = Bench::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let timer = bench.every(Schedule::FixedDelay(SECOND), move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    bench.advance(SECOND);
    let mut job = bench.take();
    assert!(timer.cancel(CancelReason::Requested, &bench.executor));
    job.run(&bench.executor);
    assert_eq!((runs.load(Ordering::SeqCst), bench.timers.len()), (0, 0));
}

#[test]
fn delayed_tasks_that_are_cancelled_in_the_queue_do_not_pile_up() {
    let bench = Bench::new();
    for _ in 0..1_000 {
        let location = Location::caller();
        let id = bench.executor.admit(location, None).expect("the pool is not closed");
        let task = Arc::new(TaskCell::new(|| (), id, location, None));
        bench.timers.insert(Deadline::at(bench.clock.now()), Arc::clone(&task) as _).expect("there is room");
        while bench.timers.len() > 0 {
            thread::yield_now();
        }
        assert!(task.cancel(CancelReason::Requested, &bench.executor));
    }
    let left = bench.queue.unbounded_len();
    assert!(left < 200, "{left} of a thousand tasks are left");
}

#[test]
#[cfg(panic = "unwind")]
fn a_timer_that_outlives_its_pool_frees_its_closure_and_contains_its_panic() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a bomb in a timer");
        }
    }
    let bench = Bench::new();
    let gone_off = Arc::new(AtomicUsize::new(0));
    let bomb = Bomb(Arc::clone(&gone_off));
    let timer = bench.every(Schedule::FixedRate(SECOND), move || assert_eq!(bomb.0.load(Ordering::SeqCst), 0));
    let left_behind = bench.timers.close();
    drop(timer);
    assert_eq!((left_behind.len(), gone_off.load(Ordering::SeqCst)), (1, 0));
    drop(left_behind); // drops the closure too
    assert_eq!(gone_off.load(Ordering::SeqCst), 1);
}

#[test]
fn the_thread_has_ended_after_join_and_none_starts_after_close() {
    for _ in 0..50 {
        let bench = Bench::new();
        let timers = Arc::clone(&bench.timers);
        drop(bench); // closes and joins
        assert_eq!(Arc::strong_count(&timers), 1);
    }
    let timers = Arc::new(TimerThread::new(&Arc::new(Queue::new(1))));
    assert!(timers.close().is_empty());
    timers.start(|| "late-timer".to_owned()).expect("no thread is started");
    assert_eq!(Arc::strong_count(&timers), 1);
}

#[test]
fn pending_timers_are_bounded_and_a_released_slot_is_free_again() {
    let bench = Bench::new();
    let mut reserved: Vec<_> = (0..MAX_TIMERS - 1).map(|_| bench.timers.reserve().ok()).collect();
    let task = || Arc::new(RecordRun(0, Arc::default()));
    let key = bench.timers.insert(Deadline::NEVER, task()).expect("there is one slot left");
    assert_eq!(bench.timers.insert(Deadline::NEVER, task()).err(), Some(TimerRefused::Full));
    assert_eq!(bench.timers.reserve().err(), Some(TimerRefused::Full));
    assert!(bench.timers.remove(key).is_some());
    let reservation = bench.timers.reserve().expect("there is one slot left again");
    // A reserved slot can be used even when all slots are taken.
    assert!(reservation.insert(Deadline::NEVER, task()).is_ok());
    reserved.clear();
    assert!(bench.timers.reserve().is_ok());
    assert_eq!(bench.timers.close().len(), 1);
    assert_eq!(reservation.insert(Deadline::NEVER, task()).err(), Some(TimerRefused::Closed));
    assert_eq!(bench.timers.insert(Deadline::NEVER, task()).err(), Some(TimerRefused::Closed));
}

#[test]
fn fired_tasks_count_as_pending_until_a_worker_takes_them() {
    let bench = Bench::new();
    let reserved: Vec<_> = (0..MAX_TIMERS - 1).map(|_| bench.timers.reserve().ok()).collect();
    let task = || Arc::new(RecordRun(0, Arc::default()));
    bench.timers.insert(Deadline::at(bench.clock.now()), task()).expect("there is one slot left");
    while bench.queue.is_empty() {
        thread::yield_now();
    }
    assert_eq!((bench.timers.len(), bench.timers.reserve().err()), (0, Some(TimerRefused::Full)));
    assert_eq!(bench.timers.insert(Deadline::NEVER, task()).err(), Some(TimerRefused::Full));
    bench.take().run(&bench.executor);
    assert!(bench.timers.insert(Deadline::NEVER, task()).is_ok());
    drop(reserved);
}

#[test]
fn a_pool_without_a_free_timer_slot_returns_each_closure_and_its_counts_add_up() {
    let pool = WorkerPool::builder().workers(1).build().expect("it can be built");
    let timers = pool.timers().expect("a thread can be started");
    let reserved: Vec<_> = (0..MAX_TIMERS).map(|_| timers.reserve().ok()).collect();
    let once = pool.execute_after(SECOND, || ()).expect_err("there is no slot left");
    assert_eq!((once.is_full(), &*once.to_string()), (true, "too many timers are pending"));
    once.into_inner()();
    let often = pool.execute_with_fixed_delay(SECOND, || ()).expect_err("there is no slot left");
    assert!(often.is_full() && !often.is_shut_down());
    let metrics = pool.metrics();
    assert_eq!((metrics.tasks_queued, metrics.timers_pending, metrics.tasks_submitted), (0, 0, 0));
    drop(reserved);
    assert!(pool.execute_after(SECOND, || ()).is_ok());
}
