//! Retried tasks of groups and scopes.
#![cfg(feature = "retry")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};
use workcrew::retry::{AttemptError, GiveUpReason, RetryError, RetryPolicy};
use workcrew::{CancelReason, GroupError, GroupPolicy, TaskError, TaskGroup, WorkerPool};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);
const SHORT: Duration = Duration::from_micros(200);

type Tried<T> = Result<T, RetryError<&'static str>>;

fn short<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(SHORT).max_attempts(10)
}

/// Retried, but not within this test.
fn long<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(LONG)
}

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

/// Adds a task that fails once and then waits for long. Returns when it waits.
fn delayed(pool: &WorkerPool, group: &TaskGroup<Tried<()>>, probe: DropCounter) {
    let failed = Counter::new();
    let counted = failed.clone();
    let retried = group.spawn_with_retry(long(), move |_| {
        let _probe = &probe;
        counted.add();
        Err("busy")
    });
    assert!(retried.is_ok());
    wait_until(|| failed.get() == 1 && pool.metrics().timers_pending > 0);
}

/// Fault 376.
#[test]
fn retried_tasks_of_a_group_return_their_values_in_the_order_of_spawning() {
    on_grid(|pool| {
        let group = pool.group().limit(3);
        for task in 0..20_u32 {
            let retried = group.spawn_with_retry(short(), move |attempt| {
                if attempt.number() <= task % 4 { Err("busy") } else { Ok((task, attempt.number())) }
            });
            assert!(retried.is_ok());
        }
        let expected: Vec<_> = (0..20).map(|task| (task, task % 4 + 1)).collect();
        assert_eq!(group.wait().unwrap(), expected);
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded, metrics.timers_pending), (20, 20, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 376.
#[test]
fn a_task_that_waits_for_its_next_attempt_holds_no_worker_and_no_place_of_the_limit() {
    on_grid(|pool| {
        let drops = Counter::new();
        let group = pool.group().limit(1).capacity(1);
        delayed(&pool, &group, DropCounter(drops.clone()));
        let progress = group.progress();
        assert_eq!((progress.done, progress.total), (0, 1));
        assert_eq!(pool.metrics().tasks_queued, 1);
        let ran = Counter::new();
        for _ in 0..5 {
            let ran = ran.clone();
            group.spawn(move || {
                ran.add();
                Ok(())
            });
        }
        wait_until(|| ran.get() == 5);
        pool.spawn(|| ()).unwrap().join().unwrap();
        group.cancel();
        assert_eq!(drops.get(), 1);
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_counts_add_up(&pool);
    });
}

/// Fault 377.
#[test]
fn the_end_of_a_group_ends_pending_retries_at_once() {
    on_grid(|pool| {
        for end in ["cancel", "failure", "drop", "token", "deadline"] {
            let drops = Counter::new();
            let mut group = pool.group().limit(2);
            if end == "deadline" {
                group = group.deadline(Instant::now() + Duration::from_millis(50));
            }
            delayed(&pool, &group, DropCounter(drops.clone()));
            let error = match end {
                "cancel" => {
                    group.cancel();
                    assert_eq!(drops.get(), 1, "{end}");
                    group.wait().unwrap_err()
                }
                "failure" => {
                    let gone = group.spawn_with_retry(RetryPolicy::fixed(SHORT).max_attempts(1), |_| Err("gone"));
                    assert!(gone.is_ok());
                    group.wait().unwrap_err()
                }
                "token" => {
                    group.token().cancel();
                    assert_eq!(drops.get(), 1, "{end}");
                    group.wait().unwrap_err()
                }
                "drop" => {
                    drop(group);
                    assert_eq!(drops.get(), 1, "{end}");
                    continue;
                }
                _ => group.wait().unwrap_err(),
            };
            assert_eq!(drops.get(), 1, "{end}");
            match error {
                GroupError::Failed(error) => assert_eq!((end, error.reason()), ("failure", GiveUpReason::Attempts)),
                GroupError::Cancelled(reason) => {
                    let expected = if end == "deadline" { CancelReason::Expired } else { CancelReason::Requested };
                    assert_eq!(reason, expected);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(pool.metrics().timers_pending, 0, "{end}");
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 377.
#[test]
fn the_end_of_the_pool_cancels_pending_retries_of_groups() {
    on_grid(|pool| {
        let drops = Counter::new();
        let group = pool.group();
        delayed(&pool, &group, DropCounter(drops.clone()));
        pool.close();
        assert_eq!(drops.get(), 1);
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::ShutDown))));
        let late: TaskGroup<Tried<()>> = pool.group();
        assert!(late.spawn_with_retry(short(), |_| Ok(())).unwrap_err().is_shut_down());
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}

/// Fault 377.
#[test]
fn cancelling_during_an_attempt_signals_it_and_makes_it_the_last() {
    on_grid(|pool| {
        let gate = Gate::new();
        let inside = gate.clone();
        let attempts = Counter::new();
        let counted = attempts.clone();
        let group = pool.group();
        let retried = group.spawn_with_retry(short(), move |attempt| -> Result<(), _> {
            counted.add();
            inside.pass();
            attempt.token().wait();
            Err("stopped")
        });
        assert!(retried.is_ok());
        gate.wait_started(1);
        group.cancel();
        gate.open();
        match group.wait() {
            Err(GroupError::Failed(error)) => {
                assert_eq!(error.reason(), GiveUpReason::Cancelled(CancelReason::Requested));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(attempts.get(), 1);
    });
}

/// Fault 378.
#[test]
fn a_worker_that_waits_for_a_group_makes_the_attempts_itself_delays_included() {
    on_grid(|pool| {
        let inner = pool.clone();
        let sum = pool.spawn(move || {
            let group = inner.group();
            for task in 1..=3_u32 {
                let retried = group.spawn_with_retry(short(), move |attempt| {
                    if attempt.number() <= task { Err("busy") } else { Ok(attempt.number()) }
                });
                assert!(retried.is_ok());
            }
            group.wait().unwrap().into_iter().sum::<u32>()
        });
        assert_eq!(sum.unwrap().join().unwrap(), 2 + 3 + 4);
        assert_counts_add_up(&pool);
    });
}

/// Fault 378.
#[test]
fn a_worker_that_joins_a_task_that_waits_for_a_group_makes_the_attempts_itself() {
    with_watchdog(|| {
        // The only worker joins a task of another pool, which waits for a group of the first.
        let (pool, other) = (pool(1, 8), pool(1, 8));
        let (here, there) = (pool.clone(), other.clone());
        let value = pool.spawn(move || {
            let inner = here.clone();
            let waiting = there.spawn(move || {
                let group = inner.group();
                let busy = |attempt: workcrew::retry::Attempt| if attempt.number() < 4 { Err("busy") } else { Ok(7) };
                assert!(group.spawn_with_retry(short(), busy).is_ok());
                group.wait().unwrap()
            });
            waiting.unwrap().join().unwrap()
        });
        assert_eq!(value.unwrap().join().unwrap(), [7]);
    });
}

#[test]
fn a_panic_of_an_attempt_is_a_failure_and_a_task_that_is_given_up_fails_the_group() {
    quiet_panics();
    on_grid(|pool| {
        let group = pool.group().policy(GroupPolicy::CollectAll);
        let retried = group.spawn_with_retry(short(), |attempt| {
            assert!(attempt.number() > 2, "not yet");
            Ok(attempt.number())
        });
        assert!(retried.is_ok());
        let hopeless = group.spawn_with_retry(short().max_attempts(3), |_| -> Result<u32, &str> { panic!("never") });
        assert!(hopeless.is_ok());
        let outcomes = group.wait_all();
        assert!(matches!(outcomes[0], Ok(3)));
        match &outcomes[1] {
            Err(TaskError::Failed(error)) => {
                assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Attempts));
                assert!(matches!(error.last(), AttemptError::Panicked(panic) if panic.message() == Some("never")));
            }
            other => panic!("{other:?}"),
        }
        pool.wait_idle();
        assert_eq!((pool.metrics().tasks_succeeded, pool.metrics().tasks_panicked), (1, 1));
        assert_counts_add_up(&pool);
    });
}

/// Fault 376.
#[test]
fn completions_yield_retried_tasks_once_each() {
    on_grid(|pool| {
        let mut group = pool.group().policy(GroupPolicy::CollectAll);
        let spawner = group.spawner();
        for task in 0..6_u32 {
            let fails =
                move |attempt: workcrew::retry::Attempt| if attempt.number() <= task { Err("busy") } else { Ok(task) };
            assert!(spawner.spawn_with_retry(short(), fails).is_ok());
        }
        let mut ended: Vec<usize> = group
            .completions()
            .map(|(index, outcome)| {
                assert_eq!(outcome.unwrap() as usize, index);
                index
            })
            .collect();
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2, 3, 4, 5]);
    });
}

/// Fault 376.
#[test]
fn attempts_never_exceed_the_limit_of_their_group() {
    on_grid(|pool| {
        for limit in [1, 2] {
            let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let group = pool.group().limit(limit);
            for _ in 0..12 {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let retried = group.spawn_with_retry(short(), move |attempt| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    if attempt.number() < 4 { Err("busy") } else { Ok(()) }
                });
                assert!(retried.is_ok());
            }
            assert_eq!(group.wait().unwrap().len(), 12);
            assert!(most.load(Ordering::SeqCst) <= limit);
        }
    });
}

/// Fault 379.
#[test]
fn retried_tasks_of_a_scope_borrow_and_are_gone_when_it_ends() {
    quiet_panics();
    on_grid(|pool| {
        let attempts = AtomicU32::new(0);
        let ended = pool.scope(|scope| {
            let retried = scope.spawn_with_retry(short(), |_| {
                if attempts.fetch_add(1, Ordering::Relaxed) < 3 { Err("busy") } else { Ok(()) }
            });
            assert!(retried.is_ok());
        });
        ended.unwrap();
        assert_eq!(attempts.load(Ordering::Relaxed), 4);
        // A body that panics, or cancels, while a task waits for long.
        for body_panics in [true, false] {
            let (failed, drops) = (Counter::new(), Counter::new());
            let probe = DropCounter(drops.clone());
            let (log, failed) = (Mutex::new(Vec::new()), &failed);
            let log = &log;
            let run = || {
                pool.scope(|scope| {
                    let retried = scope.spawn_with_retry(long(), move |attempt| {
                        let _probe = &probe;
                        log.lock().unwrap().push(attempt.number());
                        failed.add();
                        Err("busy")
                    });
                    assert!(retried.is_ok());
                    wait_until(|| failed.get() == 1 && pool.metrics().timers_pending == 1);
                    assert!(!body_panics, "the body");
                    scope.cancel();
                })
            };
            match panic::catch_unwind(panic::AssertUnwindSafe(run)) {
                Err(_) => assert!(body_panics),
                Ok(ended) => assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::Requested)))),
            }
            assert_eq!((drops.get(), pool.metrics().timers_pending), (1, 0));
            assert_eq!(*log.lock().unwrap(), [1]);
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 379.
#[test]
fn a_scope_on_the_only_worker_waits_out_the_delays_of_its_tasks() {
    on_grid(|pool| {
        let inner = pool.clone();
        let attempts = pool.spawn(move || {
            let attempts = AtomicU32::new(0);
            let ended = inner.scope(|scope| {
                scope
                    .spawn_with_retry(short(), |_| {
                        if attempts.fetch_add(1, Ordering::Relaxed) < 3 { Err("busy") } else { Ok(()) }
                    })
                    .is_ok()
            });
            assert!(ended.unwrap());
            attempts.into_inner()
        });
        let attempts = attempts.unwrap();
        assert!(attempts.wait_timeout(LIMIT));
        assert_eq!(attempts.join().unwrap(), 4);
    });
}

/// Fault 377.
#[test]
fn cancels_and_delays_that_meet_lose_no_task() {
    on_grid(|pool| {
        for round in 0..100_u32 {
            let drops = Counter::new();
            let group = pool.group().limit(4);
            for _ in 0..6 {
                let probe = DropCounter(drops.clone());
                let retried =
                    group.spawn_with_retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(1_000), move |_| {
                        let _probe = &probe;
                        Err::<(), _>("busy")
                    });
                assert!(retried.is_ok());
            }
            (0..round % 5).for_each(|_| thread::yield_now());
            group.cancel();
            let _ = group.wait();
            assert_eq!(drops.get(), 6);
        }
        pool.wait_idle();
        assert_eq!(pool.metrics().timers_pending, 0);
        assert_counts_add_up(&pool);
    });
}

/// Fault 340.
#[test]
fn a_retried_task_that_is_given_up_is_named_by_a_wait_with_the_task() {
    on_grid(|pool| {
        let group = pool.group::<Tried<()>>().label("calls").policy(GroupPolicy::CollectAll);
        group.spawn(|| Ok(()));
        let line = line!() + 1;
        assert!(group.spawn_with_retry(short().max_attempts(3), |_| Err("busy")).is_ok());
        let error = group.wait_with_task().unwrap_err();
        let task = error.task().unwrap();
        assert_eq!((task.index(), task.label(), task.location().line()), (Some(1), Some("calls"), line));
        assert_eq!(error.into_failed().unwrap().attempts(), 3);
    });
}
