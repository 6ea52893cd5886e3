//! Maps whose items are retried.
#![cfg(feature = "retry")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    Bomb, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};
use workcrew::retry::{Attempt, AttemptError, ErrorClass, GiveUpReason, RetryPolicy};
use workcrew::{CancelReason, GroupError, JoinError, WorkerPool};

const SHORT: Duration = Duration::from_micros(200);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);

fn short<E>() -> RetryPolicy<E> {
    RetryPolicy::fixed(SHORT).max_attempts(10)
}

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

/// Fails as often as the rest of the number by four, and then returns the number and its attempts.
#[allow(clippy::needless_pass_by_value, reason = "a function that a map retries takes its attempt by value")]
fn fails_by_number(number: &u32, attempt: Attempt) -> Result<(u32, u32), &'static str> {
    if attempt.number() <= number % 4 { Err("busy") } else { Ok((*number, attempt.number())) }
}

fn expected() -> Vec<(u32, u32)> {
    (0..20).map(|number| (number, number % 4 + 1)).collect()
}

/// Fault 620.
#[test]
fn items_that_fail_are_retried_and_keep_their_place_in_the_order() {
    on_grid(|pool| {
        for (window, concurrency) in [(0, 0), (3, 1), (9, 2), (100, 100)] {
            let results = pool.map_with_retry(0..20, short(), fails_by_number);
            let results = results.window(window).concurrency(concurrency);
            assert_eq!(results.size_hint(), (20, Some(20)));
            let values: Vec<_> = results.map(|result| result.unwrap().unwrap()).collect();
            assert_eq!(values, expected());
        }
        assert_eq!(pool.try_map_with_retry(0..20, short(), fails_by_number).unwrap(), expected());
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded, metrics.timers_pending), (100, 100, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 620.
#[test]
fn an_item_that_waits_for_its_next_attempt_holds_no_worker_and_the_items_behind_it_go_on() {
    with_watchdog(|| {
        for (workers, takes_all) in [(1, false), (1, true), (2, false), (8, true)] {
            let pool = pool(workers, 64);
            let others = Counter::new();
            let counted = others.clone();
            let f = move |number: &u32, _: Attempt| {
                if *number > 0 {
                    counted.add();
                } else if counted.get() < 7 {
                    return Err("the others have not run");
                }
                Ok(*number)
            };
            let policy = RetryPolicy::fixed(SHORT).max_attempts(u32::MAX);
            let values: Vec<_> = if takes_all {
                pool.try_map_with_retry(0..8, policy, f).unwrap()
            } else {
                let results = pool.map_with_retry(0..8, policy, f).window(8);
                results.map(|result| result.unwrap().unwrap()).collect()
            };
            assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(others.get(), 7);
        }
    });
}

/// Fault 620.
#[test]
fn an_item_that_is_given_up_yields_its_last_error_and_its_attempts_and_the_others_their_values() {
    quiet_panics();
    on_grid(|pool| {
        let policy = || {
            let policy = RetryPolicy::fixed(SHORT).max_attempts(3);
            policy.classify(|error: &String| match error.as_str() {
                "never" => ErrorClass::Permanent,
                _ => ErrorClass::Transient,
            })
        };
        let f = |item: &&'static str, attempt: Attempt| match *item {
            "panics" => panic!("{}", attempt.number()),
            "panics once" if attempt.number() == 1 => panic!("once"),
            "never" => Err("never".to_owned()),
            "busy" => Err(format!("busy {}", attempt.number())),
            item => Ok(item),
        };
        let items = ["fine", "busy", "panics", "panics once", "never", "fine"];
        let mut results = pool.map_with_retry(items, policy(), f).map(Result::unwrap);
        assert_eq!(results.next().unwrap().unwrap(), "fine");
        let busy = results.next().unwrap().unwrap_err();
        assert_eq!((busy.attempts(), busy.reason()), (3, GiveUpReason::Attempts));
        assert!(matches!(busy.into_last(), AttemptError::Failed(error) if error == "busy 3"));
        let panics = results.next().unwrap().unwrap_err();
        assert!(matches!(panics.last(), AttemptError::Panicked(panic) if panic.message() == Some("3")));
        assert_eq!(results.next().unwrap().unwrap(), "panics once");
        let never = results.next().unwrap().unwrap_err();
        assert_eq!((never.attempts(), never.reason()), (1, GiveUpReason::Permanent));
        assert_eq!(results.next().unwrap().unwrap(), "fine");
        assert!(results.next().is_none());
        for (item, attempts) in [("busy", 3), ("panics", 3), ("never", 1)] {
            match pool.try_map_with_retry([item], policy(), f).unwrap_err() {
                GroupError::Failed(error) => assert_eq!(error.attempts(), attempts),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pool.try_map_with_retry([""; 0], policy(), f).unwrap(), [""; 0]);
    });
}

/// An error that is retried after its delay.
type After = (Duration, &'static str);

fn by_error() -> RetryPolicy<After> {
    RetryPolicy::fixed(LONG).max_attempts(u32::MAX).classify(|(delay, _)| ErrorClass::RetryAfter(*delay))
}

/// Fault 621.
#[test]
fn dropping_a_map_ends_its_delays_at_once_and_signals_its_attempts() {
    for workers in [1, 2, 8] {
        let pool = pool(workers, 64);
        // With one worker, no item can run while the first one is retried.
        let runs = usize::from(workers > 1);
        let (failed, drops, gate) = (Counter::new(), Counter::new(), Gate::new());
        let told = Arc::new(AtomicBool::new(false));
        let (counted, passed, tells) = (failed.clone(), gate.clone(), Arc::clone(&told));
        let f = move |(number, _): &(usize, DropCounter), attempt: Attempt| match number {
            0 if counted.get() == 5 && passed.started() == runs => Ok(()),
            0 => Err((SHORT, "the others have not begun")),
            6 => {
                passed.pass();
                tells.store(attempt.token().is_cancelled(), Ordering::SeqCst);
                Err((Duration::ZERO, "stopped"))
            }
            _ => {
                counted.add();
                Err((LONG, "busy"))
            }
        };
        let items: Vec<_> = (0..6 + runs).map(|number| (number, DropCounter(drops.clone()))).collect();
        let mut results = pool.map_with_retry(items, by_error(), f).window(7);
        assert!(results.next().unwrap().unwrap().is_ok());
        wait_until(|| pool.metrics().timers_pending == 5);
        drop(results);
        assert_eq!((drops.get(), pool.metrics().timers_pending), (6, 0));
        gate.open();
        pool.wait_idle();
        assert_eq!((told.load(Ordering::SeqCst), failed.get(), drops.get()), (runs == 1, 5, 6 + runs));
        assert_counts_add_up(&pool);
    }
}

/// Fault 621.
#[test]
fn the_end_of_the_pool_ends_the_delays_of_its_maps() {
    on_grid(|pool| {
        let (drops, tried) = (Counter::new(), Counter::new());
        let item = || DropCounter(drops.clone());
        let fail = |_: &DropCounter, _: Attempt| Err::<(), _>((LONG, "busy"));
        thread::scope(|scope| {
            let lazy = scope.spawn(|| {
                let results = pool.map_with_retry((0..5).map(|_| item()), by_error(), fail).window(2);
                results.collect::<Vec<_>>()
            });
            let whole = scope.spawn(|| {
                let items = (0..50).map(|_| item()).inspect(|_| tried.add());
                pool.try_map_with_retry(items, by_error(), fail)
            });
            wait_until(|| pool.metrics().timers_pending > 2 && tried.get() > 0);
            pool.shutdown_now();
            let mut cancelled = 0;
            let lazy = lazy.join().unwrap();
            assert_eq!(lazy.len(), 5);
            for result in lazy {
                match result {
                    Ok(Err(error)) => {
                        assert_eq!(error.reason(), GiveUpReason::Cancelled(CancelReason::ShutDown));
                        assert_eq!(error.attempts(), 1);
                    }
                    Err(JoinError::Cancelled(CancelReason::ShutDown)) => cancelled += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert!(cancelled >= 3, "the items behind the window were never tried");
            match whole.join().unwrap().unwrap_err() {
                GroupError::Cancelled(CancelReason::ShutDown) => {}
                // An attempt was running.
                GroupError::Failed(error) => {
                    assert_eq!(error.reason(), GiveUpReason::Cancelled(CancelReason::ShutDown));
                }
                other => panic!("{other:?}"),
            }
        });
        assert_eq!((drops.get(), pool.metrics().timers_pending), (5 + tried.get(), 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 622.
#[test]
fn the_first_item_that_is_given_up_cancels_the_rest_and_ends_their_delays() {
    on_grid(|pool| {
        let (taken, drops) = (Cell::new(0), Counter::new());
        let probe = drops.clone();
        let items = (0..1_000).inspect(|_| taken.set(taken.get() + 1)).map(|n| (n, DropCounter(probe.clone())));
        let policy = RetryPolicy::fixed(LONG).max_attempts(3).classify(|error: &u32| match error {
            1 => ErrorClass::RetryAfter(SHORT),
            _ => ErrorClass::Transient,
        });
        let f = |(number, _): &(u32, DropCounter), _: Attempt| Err::<(), _>(*number);
        match pool.try_map_with_retry(items, policy, f).unwrap_err() {
            GroupError::Failed(error) => {
                assert_eq!((error.attempts(), error.reason()), (3, GiveUpReason::Attempts));
                assert!(matches!(error.into_last(), AttemptError::Failed(1)));
            }
            other => panic!("{other:?}"),
        }
        assert!(taken.get() < 1_000, "no item is taken after the error");
        assert_eq!((drops.get(), pool.metrics().timers_pending), (taken.get(), 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 622.
#[test]
fn the_items_in_progress_are_bounded_delays_included() {
    on_grid(|pool| {
        let bound = pool.queue_capacity() + pool.workers();
        let (taken, drops, most) = (Cell::new(0), Counter::new(), Cell::new(0));
        let items = (0..200).inspect(|_| {
            taken.set(taken.get() + 1);
            most.set(most.get().max(taken.get() - drops.get()));
        });
        let items = items.map(|n| (n, DropCounter(drops.clone())));
        let f = |(number, _): &(u32, DropCounter), attempt: Attempt| fails_by_number(number, attempt);
        let values = pool.try_map_with_retry(items, short(), f).unwrap();
        assert_eq!((values.len(), &values[..20]), (200, &expected()[..]));
        assert!(most.get() <= bound, "{} of {bound}", most.get());

        let busy = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let counted = Arc::clone(&busy);
        let f = move |number: &u32, attempt: Attempt| {
            let (now, most) = &*counted;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            fails_by_number(number, attempt)
        };
        let results = pool.map_with_retry(0..20, short(), f).window(10).concurrency(2);
        assert_eq!(results.map(|result| result.unwrap().unwrap()).collect::<Vec<_>>(), expected());
        assert!(busy.1.load(Ordering::SeqCst) <= 2);
    });
}

/// Fault 623.
#[test]
fn a_map_on_the_only_worker_makes_the_attempts_itself_delays_included() {
    on_grid(|pool| {
        let inner: WorkerPool = pool.clone();
        let maps = pool.spawn(move || {
            let lazy = inner.map_with_retry(0..20, short(), fails_by_number).concurrency(3);
            let lazy: Vec<_> = lazy.map(|result| result.unwrap().unwrap()).collect();
            (lazy, inner.try_map_with_retry(0..20, short(), fails_by_number).unwrap())
        });
        let maps = maps.unwrap();
        assert!(maps.wait_timeout(LIMIT));
        assert_eq!(maps.join().unwrap(), (expected(), expected()));
    });
}

/// Fault 621.
#[test]
fn destructors_that_panic_stay_within_a_map_with_retries() {
    quiet_panics();
    on_grid(|pool| {
        let bombs = Counter::new();
        let items = |count: usize| (0..count).map(|number| (number, Bomb(bombs.clone())));
        let mut results = pool.map_with_retry(items(6), short(), |(number, _), _| Ok::<_, ()>(*number)).window(6);
        assert_eq!(results.next().unwrap().unwrap().unwrap(), 0);
        drop(results);
        let given = bombs.clone();
        let f = move |(number, _): &(usize, Bomb), _: Attempt| {
            if *number == 3 { Err("busy") } else { Ok(Bomb(given.clone())) }
        };
        let failed = pool.try_map_with_retry(items(4), short().max_attempts(2), f);
        assert!(matches!(failed, Err(GroupError::Failed(error)) if error.attempts() == 2));
        pool.wait_idle();
        assert!(bombs.get() >= 6);
        assert_counts_add_up(&pool);
    });
}
