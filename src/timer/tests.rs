//! Timers by a watch that the tests move on. The tests take the part of the workers: they pop the queue and run what they
//! find, so each step is theirs.

use std::time::{Duration, Instant};

use super::handle::Repeating;
use super::heap::Due;
use super::periodic::Periodic;
use super::schedule::Schedule;
use super::thread::{PLACES, TimerRefused, TimerThread};
use crate::error::CancelReason;
use crate::pool::worker_pool::WorkerPool;
use crate::queue::{Queue, Turn};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, thread};
use crate::task::cell::TaskCell;
use crate::task::executor::{Executor, Hooks};
use crate::task::job::{Job, Task};
use crate::time::clock::Watch;
use std::panic::Location;

const SECOND: Duration = Duration::from_secs(1);

/// A pool without workers, by a watch without a drive.
pub(crate) struct Bench {
    pub(crate) watch: Watch,
    pub(crate) queue: Arc<Queue<Job>>,
    pub(crate) timers: Arc<TimerThread>,
    pub(crate) executor: Executor,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (watch, queue) = (Watch::by_hand(), Arc::new(Queue::new(1)));
        let timers = Arc::new(TimerThread::by(watch.clone(), &queue));
        timers.start(|| "bench-timer".to_owned()).expect("a thread can be started");
        Self { watch, queue, timers, executor: Executor::new(Hooks::default(), false) }
    }

    /// Moves the watch on.
    pub(crate) fn advance(&self, time: Duration) {
        self.watch.advance(time);
        self.timers.look_again();
    }

    /// Takes the next job that is handed over.
    fn take(&self) -> Job {
        loop {
            if let Some(job) = self.queue.pop(&mut Turn::default(), || false) {
                return job;
            }
        }
    }

    /// Runs what is due now, and says how many tasks that were. A task of its own that is due now, after all others that
    /// are, shows when the timekeeper has handed over all of them.
    pub(crate) fn run_due(&self) -> usize {
        let ran = Arc::default();
        let last = Note(0, Arc::clone(&ran));
        self.timers.put(Due::At(self.watch.now()), Arc::new(last)).expect("there is room");
        for jobs in 0.. {
            self.take().run(&self.executor);
            if !ran.lock().is_empty() {
                assert!(self.queue.seems_empty());
                return jobs;
            }
        }
        unreachable!("the last one comes")
    }

    fn every<F: FnMut() + Send + 'static>(&self, rhythm: Schedule, f: F) -> Arc<Periodic<F>> {
        Periodic::set(f, rhythm, Location::caller(), &self.timers).ok().expect("there is room")
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

/// Notes the number of its run.
struct Note(usize, Arc<Mutex<Vec<usize>>>);

impl Task for Note {
    fn run(&self, _: &Executor) {
        self.1.lock().push(self.0);
    }

    fn cancel(&self, _: CancelReason, _: &Executor) -> bool {
        false
    }
}

/// Fault 126.
#[test]
fn tasks_are_handed_over_in_due_order_ties_first_come_and_far_ones_hold_up_none() {
    let bench = Bench::new();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let delays = [Duration::MAX, SECOND * 1_000_000_000, SECOND * 2, SECOND, SECOND, Duration::ZERO, SECOND * 3];
    for (number, delay) in delays.into_iter().enumerate() {
        let due = Due::after(bench.watch.now(), delay);
        bench.timers.put(due, Arc::new(Note(number, Arc::clone(&ran)))).expect("there is room");
    }
    assert_eq!((bench.run_due(), ran.lock().clone()), (1, vec![5]));
    bench.advance(2 * SECOND);
    assert_eq!((bench.run_due(), ran.lock().clone()), (3, vec![5, 3, 4, 2]));
    bench.advance(SECOND);
    assert_eq!((bench.run_due(), bench.timers.len()), (1, 2));
}

/// Fault 128.
#[test]
fn a_hundred_missed_periods_are_made_up_by_one_run_and_the_row_is_kept() {
    let bench = Bench::new();
    let start = bench.watch.now();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let (watch, times) = (bench.watch.clone(), Arc::clone(&ran));
    let timer = bench.every(Schedule::FixedRate(SECOND), move || times.lock().push(watch.now() - start));
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
    for (rhythm, expected) in [
        (Schedule::FixedRate(SECOND), [1_000, 4_000, 7_000, 10_000]),
        (Schedule::FixedDelay(SECOND), [1_000, 4_300, 7_600, 10_900]),
    ] {
        let bench = Bench::new();
        let start = bench.watch.now();
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (watch, noted) = (bench.watch.clone(), Arc::clone(&starts));
        let _timer = bench.every(rhythm, move || {
            noted.lock().push((watch.now() - start).as_millis());
            watch.advance(Duration::from_millis(2_300)); // as long as a run takes
        });
        for due in expected {
            let left = start + Duration::from_millis(due as u64) - bench.watch.now();
            bench.advance(left - Duration::from_nanos(1));
            assert_eq!(bench.run_due(), 0);
            bench.advance(Duration::from_nanos(1));
            assert_eq!(bench.run_due(), 1);
        }
        assert_eq!(*starts.lock(), expected, "{rhythm:?}");
    }
}

/// Fault 129.
/// Where the first run is due after one period: cycles <= elapsed / period < cycles + 1.
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
fn the_next_moment_of_a_row_is_the_first_that_has_not_passed() {
    let last = Instant::now();
    for period in [1, 2, 3, 7, 1_000, 999_999_999, u64::MAX / 4].map(Duration::from_nanos) {
        for late in [0, 1, 6, 7, 8, 1_000_000_007].map(Duration::from_nanos) {
            let Due::At(next) = Schedule::FixedRate(period).next(Due::At(last), last + late) else { unreachable!() };
            assert!(next > last + late, "{period:?} {late:?}");
            assert!(next - (last + late) <= period, "{period:?} {late:?}");
            assert_eq!((next - last).as_nanos() % period.as_nanos(), 0, "{period:?} {late:?}");
        }
    }
    for rhythm in [Schedule::FixedRate(Duration::MAX), Schedule::FixedDelay(Duration::MAX)] {
        assert_eq!((rhythm.first(last), rhythm.next(Due::At(last), last)), (Due::Never, Due::Never));
        assert_eq!(rhythm.next(Due::Never, last), Due::Never);
    }
}

#[test]
fn a_timer_that_is_cancelled_frees_its_closure_and_its_place_at_once() {
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
fn a_timer_that_is_cancelled_on_its_way_to_a_worker_does_not_run() {
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
fn delayed_tasks_that_are_cancelled_on_their_way_to_a_worker_do_not_pile_up() {
    let bench = Bench::new();
    for _ in 0..1_000 {
        let location = Location::caller();
        let id = bench.executor.admit(location, None).expect("nothing is closed");
        let task = Arc::new(TaskCell::new(|| (), id, location, None));
        bench.timers.put(Due::At(bench.watch.now()), Arc::clone(&task) as _).expect("there is room");
        while bench.timers.len() > 0 {
            thread::yield_now();
        }
        assert!(task.cancel(CancelReason::Requested, &bench.executor));
    }
    let left = bench.queue.side_len();
    assert!(left < 200, "{left} are left of a thousand");
}

#[test]
#[cfg(panic = "unwind")]
fn a_timer_that_a_pool_has_left_behind_frees_its_closure_and_contains_a_bomb_in_it() {
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
    drop(left_behind); // and with it the closure
    assert_eq!(gone_off.load(Ordering::SeqCst), 1);
}

#[test]
fn the_thread_has_ended_when_it_was_joined_and_none_starts_after_the_closing() {
    for _ in 0..50 {
        let bench = Bench::new();
        let timers = Arc::clone(&bench.timers);
        drop(bench); // which closes and joins
        assert_eq!(Arc::strong_count(&timers), 1);
    }
    let timers = Arc::new(TimerThread::new(&Arc::new(Queue::new(1))));
    assert!(timers.close().is_empty());
    timers.start(|| "late-timer".to_owned()).expect("there is nothing to start");
    assert_eq!(Arc::strong_count(&timers), 1);
}

#[test]
fn pending_timers_are_bounded_and_a_place_that_is_left_is_free_again() {
    let bench = Bench::new();
    let mut reserved: Vec<_> = (0..PLACES - 1).map(|_| bench.timers.reserve().ok()).collect();
    let task = || Arc::new(Note(0, Arc::default()));
    let place = bench.timers.put(Due::Never, task()).expect("there is one left");
    assert_eq!(bench.timers.put(Due::Never, task()).err(), Some(TimerRefused::Full));
    assert_eq!(bench.timers.reserve().err(), Some(TimerRefused::Full));
    assert!(bench.timers.strike_out(place).is_some());
    let reservation = bench.timers.reserve().expect("there is one left again");
    // What has a place reserved finds it, full or not.
    assert!(reservation.put(Due::Never, task()).is_ok());
    reserved.clear();
    assert!(bench.timers.reserve().is_ok());
    assert_eq!(bench.timers.close().len(), 1);
    assert_eq!(reservation.put(Due::Never, task()).err(), Some(TimerRefused::Closed));
    assert_eq!(bench.timers.put(Due::Never, task()).err(), Some(TimerRefused::Closed));
}

#[test]
fn tasks_that_are_due_and_wait_for_a_worker_count_as_pending_until_one_takes_them() {
    let bench = Bench::new();
    let reserved: Vec<_> = (0..PLACES - 1).map(|_| bench.timers.reserve().ok()).collect();
    let task = || Arc::new(Note(0, Arc::default()));
    bench.timers.put(Due::At(bench.watch.now()), task()).expect("there is one left");
    while bench.queue.seems_empty() {
        thread::yield_now();
    }
    assert_eq!((bench.timers.len(), bench.timers.reserve().err()), (0, Some(TimerRefused::Full)));
    assert_eq!(bench.timers.put(Due::Never, task()).err(), Some(TimerRefused::Full));
    bench.take().run(&bench.executor);
    assert!(bench.timers.put(Due::Never, task()).is_ok());
    drop(reserved);
}

#[test]
fn a_pool_with_as_many_timers_as_may_be_gives_each_closure_back_and_its_books_balance() {
    let pool = WorkerPool::builder().workers(1).build().expect("it can be built");
    let timers = pool.timers().expect("a thread can be started");
    let reserved: Vec<_> = (0..PLACES).map(|_| timers.reserve().ok()).collect();
    let once = pool.execute_after(SECOND, || ()).expect_err("there is no place");
    assert_eq!((once.is_full(), &*once.to_string()), (true, "too many timers are pending"));
    once.into_inner()();
    let often = pool.execute_with_fixed_delay(SECOND, || ()).expect_err("there is no place");
    assert!(often.is_full() && !often.is_shut_down());
    let metrics = pool.metrics();
    assert_eq!((metrics.tasks_queued, metrics.timers_pending, metrics.tasks_submitted), (0, 0, 0));
    drop(reserved);
    assert!(pool.execute_after(SECOND, || ()).is_ok());
}
