//! The order in which tasks start: what is promised, and how long one kind waits for the others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{BlockedWorkers, Gate, Mutex, pool, with_watchdog};
use workcrew::{TaskGroup, WorkerPool};

/// What was done, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, usize)>>>);

impl Log {
    fn note(&self, kind: &'static str, number: usize) -> impl FnOnce() + Send + 'static + use<> {
        let log = self.clone();
        move || log.0.lock().unwrap().push((kind, number))
    }

    /// The places of one kind. Checks that its numbers come in order.
    fn places(&self, kind: &str) -> Vec<usize> {
        let entries = self.0.lock().unwrap();
        let of_kind = entries.iter().enumerate().filter(|(_, (found, _))| *found == kind);
        let (places, numbers): (Vec<_>, Vec<_>) = of_kind.map(|(place, (_, number))| (place, *number)).unzip();
        assert!(numbers.iter().copied().eq(0..numbers.len()), "{kind}: {numbers:?}");
        places
    }
}

/// Sets timers that are due when this returns, and wait for a worker. All workers are busy.
fn due_timers(pool: &WorkerPool, log: &Log, count: usize) {
    for number in 0..count {
        pool.execute_after(Duration::from_millis(1), log.note("timer", number)).unwrap();
    }
    while pool.metrics().timers_pending > 0 {
        thread::yield_now();
    }
}

/// Fault 165.
#[test]
fn a_due_timer_and_a_queued_job_wait_for_each_other_once_at_most() {
    with_watchdog(|| {
        for (jobs, timers) in [(20, 1), (20, 5), (5, 20), (1, 20), (0, 3)] {
            let pool = pool(1, 64);
            let log = Log::default();
            let wedge = BlockedWorkers::new(&pool);
            (0..jobs).for_each(|number| pool.execute(log.note("job", number)).unwrap());
            due_timers(&pool, &log, timers);
            wedge.open();
            pool.wait_idle();
            let (jobs_at, timers_at) = (log.places("job"), log.places("timer"));
            assert_eq!((jobs_at.len(), timers_at.len()), (jobs, timers));
            for (kind, places) in [("job", jobs_at), ("timer", timers_at)] {
                for (number, place) in places.into_iter().enumerate() {
                    assert!(place <= 2 * number + 1, "{kind} {number} is at place {place}");
                }
            }
        }
    });
}

/// Fault 165.
#[test]
fn a_stream_of_jobs_does_not_starve_a_due_timer() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let (log, gate) = (Log::default(), Gate::new());
        let (inner, notes, inside) = (pool.clone(), log.clone(), gate.clone());
        pool.execute(move || {
            inside.pass();
            chain(&inner, &notes, 0);
        })
        .unwrap();
        gate.wait_started(1);
        due_timers(&pool, &log, 1);
        gate.open();
        pool.wait_idle();
        assert!(log.places("timer")[0] <= 2, "{:?}", log.places("timer"));
    });
}

/// A job that submits the next one, so that the queue is never empty for long.
fn chain(pool: &WorkerPool, log: &Log, number: usize) {
    log.note("job", number)();
    if number < 200 {
        let (inner, log) = (pool.clone(), log.clone());
        pool.execute(move || chain(&inner, &log, number + 1)).unwrap();
    }
}

/// How many tasks of a group a worker starts before it gives way.
const TURN: usize = 16;
const GROUPS: usize = 16;

/// Fault 166.
#[test]
fn groups_jobs_and_timers_wait_a_bounded_time_for_each_other() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let log = Log::default();
        let wedge = BlockedWorkers::new(&pool);
        let groups: Vec<TaskGroup<()>> = (0..GROUPS)
            .map(|_| {
                let group = pool.group();
                group.spawn_all((0..40).map(|_| log.note("group", 0)));
                group
            })
            .collect();
        (0..40).for_each(|number| pool.execute(log.note("job", number)).unwrap());
        due_timers(&pool, &log, 4);
        wedge.open();
        pool.wait_idle();
        let (jobs, timers) = (log.places("job"), log.places("timer"));
        let apart = |places: &[usize]| places.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(jobs[0] <= TURN && apart(&jobs) <= TURN + 1, "a turn of one group between two jobs: {jobs:?}");
        // The groups were there before the timers.
        assert!(timers[0] <= GROUPS * (TURN + 1) + 1, "{timers:?}");
        assert!(apart(&timers) <= 2, "{timers:?}");
        groups.into_iter().for_each(|group| drop(group.wait().unwrap()));
    });
}

/// Fault 167.
#[test]
fn jobs_that_wait_for_room_and_jobs_that_do_not_keep_the_order_of_their_submitter() {
    with_watchdog(|| {
        for capacity in [1, 2, 64] {
            let pool = pool(1, capacity);
            let log = Log::default();
            for number in 0..600 {
                let job = log.note("job", number);
                match number % 3 {
                    0 => pool.execute(job).unwrap(),
                    1 => drop(pool.spawn(job).unwrap()),
                    _ => pool.try_execute_for(Duration::MAX, job).unwrap(),
                }
            }
            pool.wait_idle();
            assert_eq!(log.places("job").len(), 600);
        }
    });
}

/// Fault 167.
#[test]
fn tasks_of_a_group_with_a_limit_of_one_run_in_the_order_of_spawning() {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = pool(workers, 64);
            let log = Log::default();
            let group = pool.group().limit(1);
            group.spawn_all((0..500).map(|number| log.note("task", number)));
            group.wait().unwrap();
            assert_eq!(log.places("task").len(), 500);
        }
    });
}
