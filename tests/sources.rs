//! Iterators of the user: asked no more than is needed, never while a result is ready, and no more after the end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use common::{Counter, Gate, Mutex, assert_counts_add_up, on_grid, pool, with_watchdog};
use workcrew::{CancelReason, GroupError, GroupPolicy, JoinError, WorkerPool};

/// Pools of 1, 2 and 8 workers with queues of 1, 2 and 64.
fn on_pools(scenario: impl Fn(WorkerPool)) {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            for capacity in [1, 2, 64] {
                scenario(pool(workers, capacity));
            }
        }
    });
}

/// Fault 160.
#[test]
fn a_source_that_is_fed_by_the_results_never_hangs() {
    on_pools(|pool| {
        let (todo, source) = channel();
        todo.send(1u32).unwrap();
        let mut results = Vec::new();
        for doubled in pool.map(source, |n| n * 2) {
            results.push(doubled.unwrap());
            if results.len() == 7 {
                break;
            }
            todo.send(results[results.len() - 1]).unwrap();
        }
        assert_eq!(results, [2, 4, 8, 16, 32, 64, 128]);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 160.
#[test]
fn a_source_with_a_promised_part_and_a_fed_part_never_hangs() {
    on_pools(|pool| {
        // Each number leads to the number below it, as pages lead to other pages.
        let (found, more) = channel();
        let open = Cell::new(3 + 2 + 1);
        let rest = iter::from_fn(|| (open.get() > 0).then(|| more.recv().unwrap()));
        let mut sum = 0;
        for n in pool.map([3u32, 2, 1].into_iter().chain(rest), |n| n) {
            let n = n.unwrap();
            sum += n;
            open.set(open.get() - 1);
            if n > 1 {
                found.send(n - 1).unwrap();
            }
        }
        assert_eq!(sum, (3 + 2 + 1) + (2 + 1) + 1);
    });
}

/// Fault 160.
#[test]
fn a_fed_source_never_hangs_on_a_worker() {
    on_pools(|pool| {
        let inner = pool.clone();
        let task = pool.spawn(move || {
            let (todo, source) = channel();
            todo.send(1u32).unwrap();
            let tripled = inner.map(source, |n| n * 3).map(Result::unwrap);
            tripled.inspect(|n| todo.send(*n).unwrap()).find(|n| *n > 100)
        });
        assert_eq!(task.unwrap().join().unwrap(), Some(243));
    });
}

/// Fault 160.
#[test]
fn a_window_of_one_serves_a_source_with_a_wrong_size_hint() {
    on_pools(|pool| {
        for window in [0, 1] {
            let (todo, source) = channel();
            todo.send(1u32).unwrap();
            let items = iter::repeat_with(|| source.recv().unwrap());
            let mut results = pool.map(items, |n| n + 1).window(window);
            for n in 2..50 {
                assert_eq!(results.next().unwrap().unwrap(), n);
                todo.send(n).unwrap();
            }
        }
    });
}

/// Fault 160.
#[test]
fn a_window_as_large_as_the_fed_items_never_hangs() {
    on_pools(|pool| {
        for fed in 1..5 {
            let (todo, source) = channel();
            (0..fed).for_each(|n| todo.send(n).unwrap());
            let mut results = pool.map(source, |n| n).window(fed);
            for n in 0..40 {
                assert_eq!(results.next().unwrap().unwrap(), n);
                todo.send(n + fed).unwrap();
            }
        }
    });
}

/// Fault 161.
#[test]
fn a_ready_first_result_is_handed_out_before_the_source_is_asked_again() {
    with_watchdog(|| {
        [1, 2, 8].map(|workers| pool(workers, 64)).into_iter().for_each(|pool| {
            let taken = Cell::new(0);
            let gate = Gate::new();
            let inside = gate.clone();
            // The first result is not there before the fourth item was taken.
            let items = (0..12).inspect(|n| {
                taken.set(taken.get() + 1);
                if *n == 3 {
                    gate.open();
                }
            });
            let mut results = pool
                .map(items, move |n| {
                    if n == 0 {
                        inside.pass();
                    }
                })
                .window(4);
            results.next().unwrap().unwrap();
            loop {
                pool.wait_idle(); // all that was submitted is ready
                let under_way = results.size_hint().0 - (12 - taken.get());
                let before = taken.get();
                for _ in 0..under_way.min(1) {
                    results.next().unwrap().unwrap();
                    assert_eq!(taken.get(), before, "an item was taken while a result was ready");
                }
                if under_way == 0 && results.next().is_none() {
                    break;
                }
            }
            assert_eq!(taken.get(), 12);
        });
    });
}

/// Fault 161.
#[test]
fn the_first_result_waits_for_one_item_at_most() {
    on_pools(|pool| {
        let taken = Cell::new(0);
        // A slow source: each item but the first takes until a task has ended.
        let items = (0..).inspect(|n| {
            taken.set(taken.get() + 1);
            while *n > 0 && pool.metrics().tasks_succeeded == 0 {
                thread::yield_now();
            }
        });
        let mut results = pool.map(items, |n: u64| n);
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert!(taken.get() <= 2, "{} items were taken for the first result", taken.get());
    });
}

/// Fault 162.
#[test]
fn the_window_bounds_the_items_taken_and_not_yet_returned() {
    on_pools(|pool| {
        let whole = (4 * pool.workers()).min(pool.queue_capacity() + 1);
        for (window, bound) in [(None, whole), (Some(0), 1), (Some(1), 1), (Some(3), 3), (Some(100), 100)] {
            let taken = Cell::new(0);
            let results = pool.map((0..).inspect(|_| taken.set(taken.get() + 1)), |n: usize| n);
            let mut results = if let Some(window) = window { results.window(window) } else { results };
            assert_eq!(taken.get(), 0, "creating it takes nothing");
            for n in 0..300 {
                assert_eq!(results.next().unwrap().unwrap(), n);
                assert!(taken.get() <= n + bound, "{} taken at {n}, window {window:?}", taken.get());
            }
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 162.
#[test]
fn promised_items_keep_every_worker_busy() {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = pool(workers, 64);
            // Each task waits until every worker has one.
            let meets = || {
                let started = Counter::new();
                move |_| {
                    started.add();
                    while started.get() < workers {
                        thread::yield_now();
                    }
                }
            };
            assert_eq!(pool.map(0..2 * workers, meets()).filter(Result::is_ok).count(), 2 * workers);
            assert_eq!(pool.map(0.., meets()).take(workers).filter(Result::is_ok).count(), workers);
            // The source promises no items, but the user sets a window.
            let vouched = pool.map((0..2 * workers).filter(|_| true), meets()).window(workers);
            assert_eq!(vouched.filter(Result::is_ok).count(), 2 * workers);
        }
    });
}

/// Fault 162.
#[test]
fn a_source_that_promises_nothing_is_asked_when_all_results_were_handed_out() {
    on_pools(|pool| {
        let (taken, ended) = (Cell::new(0), Counter::new());
        let counted = ended.clone();
        let items = (0..50).filter(|_| {
            assert_eq!(taken.get(), ended.get(), "asked while a task was under way");
            taken.set(taken.get() + 1);
            true
        });
        let results = pool.map(items, move |_| counted.add());
        assert_eq!(results.filter(Result::is_ok).count(), 50);
    });
}

/// Fault 162.
#[test]
fn the_concurrency_bounds_the_tasks_that_have_not_ended() {
    on_pools(|pool| {
        for limit in [0, 1, 3] {
            let (under_way, most) = (Counter::new(), Arc::new(Mutex::new(0)));
            let (started, seen) = (under_way.clone(), Arc::clone(&most));
            let ended = Counter::new();
            let finished = ended.clone();
            let results = pool.map(0..200, move |n: usize| {
                started.add();
                let mut seen = seen.lock().unwrap();
                *seen = (*seen).max(started.get() - finished.get());
                finished.add();
                n
            });
            let results: Result<Vec<_>, _> = results.window(50).concurrency(limit).collect();
            assert_eq!(results.unwrap(), (0..200).collect::<Vec<_>>());
            assert!(*most.lock().unwrap() <= limit.max(1));
        }
    });
}

#[test]
fn a_map_is_fused_and_has_a_size_hint() {
    on_grid(|pool| {
        let mut results = pool.map(0..5, |n| n).window(3);
        for left in (0..5).rev() {
            assert_eq!(results.size_hint(), (left + 1, Some(left + 1)));
            assert!(results.next().is_some());
        }
        assert_eq!(
            (results.size_hint(), results.next().is_none(), results.next().is_none()),
            ((0, Some(0)), true, true)
        );
        assert_eq!(pool.map(0.., |n: u8| n).size_hint(), (usize::MAX, None));
        assert!(format!("{:?}", pool.map(0..1, |n| n).window(7)).contains("window: Some(7)"));
    });
}

#[test]
fn a_panic_of_the_source_reaches_the_caller_and_loses_no_result() {
    common::quiet_panics();
    on_grid(|pool| {
        let items = (0..6).inspect(|n| {
            if *n == 2 {
                std::panic::resume_unwind(Box::new("source"))
            }
        });
        let mut results = pool.map(items, |n| n).window(4);
        let mut seen = Vec::new();
        let mut panics = 0;
        loop {
            match catch_unwind(AssertUnwindSafe(|| results.next())) {
                Ok(Some(result)) => seen.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => panics += 1,
            }
        }
        assert_eq!((seen, panics), (vec![0, 1, 3, 4, 5], 1));
        drop(results);
        assert_counts_add_up(&pool);
    });
}

/// Fault 163.
#[test]
fn a_closed_group_takes_nothing_from_a_source() {
    on_pools(|pool| {
        // The sources would block forever.
        let (_keep, silent) = channel::<fn() -> Result<u32, u32>>();
        let group = pool.group();
        group.cancel();
        group.spawn_all(silent.iter());
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));

        let group = pool.group();
        group.spawn(|| Err(7));
        group.token().wait();
        group.spawn_all(silent.iter());
        assert!(matches!(group.wait(), Err(GroupError::Failed(7))));

        let parent = workcrew::CancellationToken::new();
        parent.cancel();
        let group = pool.group().parent(&parent);
        group.spawn_all(silent.iter());
        assert!(matches!(group.wait_any(), Err(GroupError::Cancelled(_))));

        let group = pool.group().policy(GroupPolicy::FirstSuccess);
        group.spawn(|| Ok(1));
        group.token().wait();
        group.spawn_all(silent.iter());
        assert_eq!(group.wait().unwrap(), [1], "a success ends such a group");

        let group = pool.group();
        group.cancel();
        group.spawn_all(silent.iter());
        assert_eq!(group.wait_all().len(), 0, "no task was added");
    });
}

/// Fault 163.
#[test]
fn a_pool_that_is_shut_down_takes_nothing_from_a_source() {
    on_pools(|pool| {
        pool.shutdown();
        let (_keep, silent) = channel::<u32>();
        let failed = pool.try_map(&silent, |n: u32| Ok::<_, ()>(n));
        assert!(matches!(failed, Err(GroupError::Cancelled(CancelReason::ShutDown))));
        let group = pool.group();
        group.spawn_all(silent.iter().map(|_| || ()));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::ShutDown))));
        let mut refused = pool.map(0..2, |n| n);
        assert!(matches!(refused.next(), Some(Err(JoinError::Cancelled(CancelReason::ShutDown)))));
    });
}

/// Fault 163.
#[test]
fn a_source_that_is_at_its_end_was_not_cut_short() {
    on_grid(|pool| {
        let group = pool.group();
        group.spawn(|| Ok::<_, ()>(1));
        while group.progress().done == 0 {
            thread::yield_now();
        }
        group.cancel();
        group.spawn_all(Vec::<fn() -> Result<u32, ()>>::new());
        assert_eq!(group.wait().unwrap(), [1]);
    });
}

/// Fault 163.
#[test]
fn try_map_takes_nothing_more_once_the_first_error_is_known() {
    on_pools(|pool| {
        let mut taken = 0;
        // The second item is there when the error is known and all tasks have ended.
        let items = iter::from_fn(|| {
            taken += 1;
            if taken > 1 {
                pool.wait_idle();
            }
            Some(taken)
        });
        assert!(matches!(pool.try_map(items, Err::<(), u32>), Err(GroupError::Failed(1))));
        assert!(taken <= 2, "{taken} items were taken");
    });
}

/// Fault 163.
#[test]
fn try_map_takes_nothing_after_an_error_that_its_own_worker_has_met() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let inner = pool.clone();
        let task = pool.spawn(move || {
            let mut taken = 0;
            let items = iter::from_fn(|| {
                taken += 1;
                Some(taken)
            });
            assert!(matches!(inner.try_map(items, Err::<(), u32>), Err(GroupError::Failed(1))));
            taken
        });
        assert_eq!(task.unwrap().join().unwrap(), 1);
    });
}

/// Fault 164.
#[test]
fn a_worker_runs_tasks_that_only_it_can_run_before_it_blocks_in_a_source() {
    with_watchdog(|| {
        for workers in [1, 2, 8] {
            let pool = pool(workers, 64);
            // As many callers as workers: none is free.
            let callers: Vec<_> = (0..workers)
                .map(|_| {
                    let inner = pool.clone();
                    pool.spawn(move || {
                        let (todo, source) = channel::<u32>();
                        todo.send(20).unwrap();
                        let items = iter::from_fn(move || source.recv().ok().filter(|n| *n > 0));
                        inner.try_map(items, move |n| todo.send(n - 1).map(|()| n))
                    })
                    .unwrap()
                })
                .collect();
            for caller in callers {
                assert_eq!(caller.join().unwrap().unwrap().len(), 20);
            }
        }
    });
}
