//! Failures of the pool itself: threads that do not start, workers that fail while they hold a job,
//! and delays between any two steps. The metrics are exact afterwards.
//!
//! `RUSTFLAGS="--cfg workcrew_faults" cargo test --test faults --target-dir target/faults`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(workcrew_faults)]

mod common;
#[path = "common/rng.rs"]
mod rng;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, pool, quiet_panics, with_watchdog,
};
use rng::Rng;
use workcrew::{
    BuildError, CancelReason, FailGuard, Failpoint, GroupError, GroupPolicy, JoinError, TaskError, WorkerPool,
    configure,
};

/// Runs one test at a time: failpoints are configured for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    quiet_panics();
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a failpoint fail at these visits, counted from zero.
fn fail_at(place: Failpoint, visits: &'static [usize]) -> FailGuard {
    let seen = AtomicUsize::new(0);
    configure(move |visited| visited == place && visits.contains(&seen.fetch_add(1, SeqCst)))
}

/// Blocks each thread that reaches a failpoint at a gate.
fn hold_at(place: Failpoint) -> (Gate, FailGuard) {
    let gate = Gate::new();
    let inside = gate.clone();
    let armed = configure(move |visited| {
        if visited == place {
            inside.pass();
        }
        false
    });
    (gate, armed)
}

/// Returns the number of worker threads in this process.
fn workers_of_the_process() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path().join("comm"));
    threads.filter(|name| fs::read_to_string(name).is_ok_and(|name| name.starts_with("workcrew-"))).count()
}

/// Fault 111.
#[test]
fn a_thread_that_does_not_start_is_an_error_whichever_it_is() {
    let _alone = alone();
    for refused in [0, 2, 4] {
        let (started, stopped) = (Counter::new(), Counter::new());
        let (start, stop) = (started.clone(), stopped.clone());
        let builder = WorkerPool::builder().workers(5).on_thread_start(move |_| start.add());
        let armed = fail_at(Failpoint::ThreadStart, [&[0][..], &[2], &[4]][refused / 2]);
        let error = builder.on_thread_stop(move |_| stop.add()).build().unwrap_err();
        drop(armed);
        assert!(matches!(error, BuildError::Spawn { worker, .. } if worker == refused), "{error}");
        assert_eq!((started.get(), stopped.get()), (refused, refused));
        let since = Instant::now();
        while workers_of_the_process() > 0 {
            assert!(since.elapsed() < LIMIT, "threads are left");
            thread::yield_now();
        }
    }
}

/// Fault 115.
#[test]
fn a_pool_that_cannot_grow_keeps_its_size_and_loses_nothing() {
    let _alone = alone();
    with_watchdog(|| {
        let pool = pool(1, 64);
        let wedge = BlockedWorkers::new(&pool);
        let handles: Vec<_> = (0..20).map(|n| pool.spawn(move || n).unwrap()).collect();
        let armed = fail_at(Failpoint::ThreadStart, &[2]);
        assert!(matches!(pool.resize(6), Err(BuildError::Spawn { .. })));
        drop(armed);
        assert_eq!(pool.workers(), 1);
        wedge.open();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n);
        }
        pool.resize(3).unwrap();
        BlockedWorkers::new(&pool).open();
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

/// Fault 92.
#[test]
fn a_failing_worker_cancels_its_current_task_and_survives() {
    let _alone = alone();
    for workers in [1, 2, 8] {
        with_watchdog(|| {
            let pool = pool(workers, 64);
            let wedge = BlockedWorkers::new(&pool);
            let (ran, dropped) = (Counter::new(), Counter::new());
            let duty = || {
                let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
                move || {
                    let _held = held;
                    ran.add();
                }
            };
            let handles: Vec<_> = (0..20).map(|_| pool.spawn(duty()).unwrap()).collect();
            (0..20).for_each(|_| pool.execute(duty()).unwrap());
            let armed = fail_at(Failpoint::Taken, &[0, 1, 7, 20, 21, 22]);
            wedge.open();
            pool.wait_idle();
            drop(armed);
            let lost: Vec<_> = handles.into_iter().filter_map(|handle| handle.join().err()).collect();
            assert!(lost.iter().all(|error| matches!(error, JoinError::Cancelled(CancelReason::Discarded))));
            let metrics = pool.metrics();
            assert_eq!((metrics.tasks_cancelled, ran.get(), dropped.get()), (6, 34, 40));
            assert!((1..=6).contains(&lost.len()));
            assert_counts_add_up(&pool);
            BlockedWorkers::new(&pool).open(); // needs every worker
            pool.shutdown();
            assert_eq!(dropped.get(), 40);
        });
    }
}

/// Fault 92.
#[test]
fn a_group_whose_ticket_was_lost_with_a_failing_worker_still_ends() {
    let _alone = alone();
    with_watchdog(|| {
        for policy in [GroupPolicy::FailFast, GroupPolicy::CollectAll] {
            let pool = pool(1, 64);
            let wedge = BlockedWorkers::new(&pool);
            let (group, dropped) = (pool.group().policy(policy).capacity(30), Counter::new());
            for n in 0..30 {
                let held = DropCounter(dropped.clone());
                group.spawn(move || {
                    drop(held);
                    Ok::<_, ()>(n)
                });
            }
            let armed = fail_at(Failpoint::Taken, &[0]);
            wedge.open();
            let outcomes = group.wait_all();
            drop(armed);
            let is_lost =
                |outcome: &Result<_, _>| matches!(outcome, Err(TaskError::Cancelled(CancelReason::Discarded)));
            assert!(outcomes.len() == 30 && outcomes.iter().all(is_lost));
            assert_eq!(dropped.get(), 30);
            assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
            pool.shutdown();
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_fault_before_the_closure_is_the_tasks_panic() {
    let _alone = alone();
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let (counted, held) = (ran.clone(), DropCounter(dropped.clone()));
        let armed = fail_at(Failpoint::Starting, &[0]);
        let handle = pool.spawn(move || {
            let _held = held;
            counted.add();
        });
        assert!(matches!(handle.unwrap().join(), Err(JoinError::Panicked(_))));
        drop(armed);
        let armed = fail_at(Failpoint::Starting, &[3]);
        let group = pool.group();
        group.spawn_all((0..8).map(|n| move || Ok::<_, ()>(n)));
        assert!(matches!(group.wait(), Err(GroupError::Panicked(_))));
        drop(armed);
        pool.wait_idle();
        assert_eq!((ran.get(), dropped.get(), pool.metrics().tasks_panicked), (0, 1, 2));
        assert_counts_add_up(&pool);
    });
}

/// Fault 16.
#[test]
fn a_queued_task_was_accepted_before_its_submitter_returns() {
    let _alone = alone();
    with_watchdog(|| {
        for ends_now in [false, true] {
            let pool = pool(1, 4);
            let wedge = BlockedWorkers::new(&pool);
            let (ran, dropped) = (Counter::new(), Counter::new());
            let (counted, held) = (ran.clone(), DropCounter(dropped.clone()));
            let (gate, armed) = hold_at(Failpoint::Queued);
            let submitter = thread::spawn({
                let pool = pool.clone();
                move || {
                    pool.execute(move || {
                        let _held = held;
                        counted.add();
                    })
                    .is_ok()
                }
            });
            gate.wait_started(1); // the job lies in the queue, its submitter does not know
            if ends_now {
                assert_eq!(pool.shutdown_now().tasks_cancelled, 1);
            } else {
                pool.close();
            }
            wedge.open();
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            assert_eq!((ran.get(), dropped.get()), (usize::from(!ends_now), 1));
            gate.open();
            assert!(submitter.join().unwrap(), "accepted, and that is what it says");
            drop(armed);
            assert_counts_add_up(&pool);
        }
    });
}

#[test]
fn a_drain_waits_for_a_submission_that_was_admitted_and_is_on_its_way() {
    let _alone = alone();
    with_watchdog(|| {
        let pool = pool(1, 4);
        let ran = Counter::new();
        let counted = ran.clone();
        let (gate, armed) = hold_at(Failpoint::Admitted);
        let submitter = thread::spawn({
            let pool = pool.clone();
            move || pool.execute(move || counted.add()).is_ok()
        });
        gate.wait_started(1);
        pool.close();
        assert!(!pool.shutdown_timeout(Duration::ZERO).drained);
        assert!(!pool.wait_idle_timeout(Duration::from_millis(1)));
        gate.open();
        let accepted = submitter.join().unwrap();
        drop(armed);
        assert!(pool.wait_idle_timeout(LIMIT));
        assert!(accepted, "it was admitted before the closing");
        // The timeout of the shutdown had expired, so the task was cancelled. It has one outcome.
        assert_eq!((ran.get(), pool.metrics().tasks_cancelled), (0, 1));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_delayed_completion_happens_once_for_every_kind_of_waiter() {
    let _alone = alone();
    with_watchdog(|| {
        for way in 0..4 {
            let pool = pool(1, 4);
            let dropped = Counter::new();
            let held = DropCounter(dropped.clone());
            let (gate, armed) = hold_at(Failpoint::Completing);
            let handle = pool.spawn(move || held).unwrap();
            gate.wait_started(1); // the task has returned, but is not complete
            assert!(!handle.is_finished() && !handle.wait_timeout(Duration::ZERO) && !handle.cancel());
            match way {
                0 => drop(handle),
                1 => {
                    let joiner = thread::spawn(move || drop(handle.join().unwrap()));
                    gate.open();
                    joiner.join().unwrap();
                }
                2 => {
                    pool.shutdown_now();
                    gate.open();
                    drop(handle.join().unwrap());
                }
                _ => {
                    gate.open();
                    assert!(handle.wait_timeout(LIMIT));
                    drop(handle);
                }
            }
            gate.open();
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            drop(armed);
            assert_eq!(dropped.get(), 1);
            assert_counts_add_up(&pool);
        }
    });
}

/// Every failpoint delays or fails at random, while all features are used at once.
#[test]
fn random_faults_keep_the_counts() {
    let _alone = alone();
    let mut seeds = Rng::new(rng::asked_seed().unwrap_or_else(rng::fresh_seed));
    for _ in 0..400 {
        let seed = seeds.clone().number();
        with_watchdog(|| live_with_faults(&mut seeds.fork(), seed));
    }
}

fn live_with_faults(rng: &mut Rng, seed: u64) {
    let pool = pool(1 + rng.below(3), rng.pick(&[1, 4, 64]));
    let chance = Mutex::new(rng.fork());
    let faults = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&faults);
    let armed = configure(move |place| {
        let (fails, yields) = {
            let mut chance = chance.lock().unwrap();
            (chance.one_in(12), chance.below(3))
        };
        (0..yields).for_each(|_| thread::yield_now());
        let fails = fails && matches!(place, Failpoint::Taken | Failpoint::Starting);
        counted.fetch_add(usize::from(fails), SeqCst);
        fails
    });
    let (made, dropped) = (Counter::new(), Counter::new());
    let duty = || {
        made.add();
        let held = DropCounter(dropped.clone());
        move || drop(held)
    };
    let mut handles = Vec::new();
    let group = pool.group().policy(GroupPolicy::CollectAll);
    for _ in 0..30 {
        match rng.below(5) {
            0 => pool.execute(duty()).unwrap(),
            1 => drop(pool.try_execute(duty())),
            2 | 3 => handles.push(pool.spawn(duty()).unwrap()),
            _ => group.spawn(duty()),
        }
    }
    handles.iter().step_by(3).for_each(|handle| {
        handle.cancel();
    });
    for handle in handles {
        match handle.join() {
            Ok(()) | Err(JoinError::Panicked(_) | JoinError::Cancelled(_)) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    let total = group.progress().total;
    assert_eq!(group.wait_all().len(), total, "seed {seed}");
    if rng.one_in(2) {
        pool.shutdown_now();
    }
    assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
    drop(armed);
    assert_counts_add_up(&pool);
    let metrics = pool.metrics();
    assert_eq!((metrics.tasks_queued, metrics.tasks_running), (0, 0), "seed {seed}: {metrics}");
    assert_eq!(dropped.get(), made.get(), "seed {seed}");
}
