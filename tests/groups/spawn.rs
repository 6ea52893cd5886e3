//! Adding tasks: capacity, spawners, tasks that add siblings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, Mutex, assert_counts_add_up, join_all, on_grid, pool, spawn_parked,
    with_watchdog,
};
use workcrew::{CancelReason, GroupError, GroupPolicy, Spawner};

/// Fault 68.
#[test]
fn try_spawn_is_full_at_capacity_and_has_room_after_draining() {
    on_grid(|pool| {
        let group = pool.group().capacity(2).limit(1);
        let gate = Gate::new();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        assert!(group.try_spawn(|| ()).is_ok() && group.try_spawn(|| ()).is_ok());
        let ran = Counter::new();
        let counted = ran.clone();
        let error = group.try_spawn(move || counted.add()).unwrap_err();
        assert!(error.is_full());
        error.into_inner()();
        assert_eq!(ran.get(), 1);
        gate.open();
        while group.progress().done < 3 {
            thread::yield_now();
        }
        assert!(group.try_spawn(|| ()).is_ok());
        group.wait().unwrap();
    });
}

/// Fault 307.
#[test]
fn a_limit_or_capacity_of_zero_counts_as_one() {
    on_grid(|pool| {
        for group in [pool.group().limit(0), pool.group().capacity(0), pool.group().limit(0).capacity(0)] {
            let ran = Counter::new();
            for _ in 0..100 {
                let counted = ran.clone();
                group.spawn(move || counted.add());
            }
            group.wait().unwrap();
            assert_eq!(ran.get(), 100);
        }
        let group = pool.group().limit(0);
        let alone = Arc::new(Mutex::new(()));
        for _ in 0..100 {
            let alone = Arc::clone(&alone);
            group.spawn(move || drop(alone.try_lock().expect("another task is running")));
        }
        group.wait().unwrap();
        let group = pool.group().capacity(0);
        let wedge = BlockedWorkers::new(&pool);
        group.try_spawn(|| ()).unwrap();
        assert!(group.try_spawn(|| ()).unwrap_err().is_full());
        wedge.open();
        group.wait().unwrap();
        assert_counts_add_up(&pool);
    });
}

/// Fault 69.
#[test]
#[should_panic(expected = "the settings of a group are made before its first task")]
fn a_setting_after_the_first_task_panics() {
    let pool = pool(1, 1);
    let group = pool.group();
    group.spawn(|| ());
    let _ = group.limit(3);
}

#[test]
fn tasks_add_siblings_through_a_spawner() {
    fn grow(spawner: &Spawner<Result<u32, ()>>, depth: u32) -> Result<u32, ()> {
        if depth > 0 {
            for _ in 0..2 {
                let siblings = spawner.clone();
                spawner.spawn(move || grow(&siblings, depth - 1));
            }
        }
        Ok(1)
    }
    on_grid(|pool| {
        for limit in [1, 2, usize::MAX] {
            let group = pool.group().limit(limit).capacity(4);
            grow(&group.spawner(), 9).unwrap();
            let total: u32 = group.wait().unwrap().into_iter().sum();
            assert_eq!(total, (1 << 10) - 2);
        }
    });
}

#[test]
fn a_member_may_add_any_number_of_siblings_to_its_full_group() {
    on_grid(|pool| {
        let group = pool.group().limit(1).capacity(1);
        let (spawner, ran) = (group.spawner(), Counter::new());
        let counter = ran.clone();
        group.spawn(move || {
            for _ in 0..20_000 {
                let counter = counter.clone();
                spawner.spawn(move || counter.add());
            }
        });
        group.wait().unwrap();
        assert_eq!(ran.get(), 20_000);
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_spawner_that_outlives_the_wait_drops_its_tasks() {
    let pool = pool(1, 4);
    let group = pool.group();
    let spawner = group.spawner();
    group.wait().unwrap();
    let dropped = Counter::new();
    let held = DropCounter(dropped.clone());
    spawner.spawn(move || drop(held));
    assert_eq!(dropped.get(), 1);
    assert!(spawner.try_spawn(|| ()).unwrap_err().is_shut_down());
}

#[test]
fn a_spawn_that_waits_for_room_ends_with_the_group() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group().capacity(1);
        group.spawn(|| ());
        let spawner = group.spawner();
        let parked = spawn_parked(move || spawner.spawn(|| ()));
        assert!(!parked.is_finished());
        group.cancel();
        parked.join().unwrap();
        assert!(group.wait().is_err());
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn a_task_added_while_the_group_is_waited_for_is_run_or_dropped_and_never_lost() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        for _ in 0..20_000 {
            let group = pool.group();
            let spawner = group.spawner();
            let dropped = Counter::new();
            let held = DropCounter(dropped.clone());
            thread::scope(|threads| {
                let adder = threads.spawn(move || spawner.spawn(move || drop(held)));
                let _ = group.wait();
                join_all([adder]);
            });
            pool.wait_idle();
            assert_eq!(dropped.get(), 1);
        }
        assert_counts_add_up(&pool);
    });
}

#[test]
fn values_of_some_tasks_are_never_returned_as_all() {
    with_watchdog(|| {
        for round in 0..300 {
            let pool = pool(1, 2);
            let done = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&done);
            let items = (0..50).inspect(|n| {
                if *n == round % 50 {
                    pool.shutdown_now();
                }
            });
            let values = pool.try_map(items, move |n| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ()>(n)
            });
            if let Ok(values) = values {
                assert!(values.into_iter().eq(0..50));
            }
        }
        let pool = pool(1, 2);
        let group = pool.group();
        let token = group.token().clone();
        group.spawn_all((0..50).map(|n| {
            if n == 20 {
                token.cancel();
            }
            move || Ok::<_, ()>(n)
        }));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
    });
}

#[test]
fn a_worker_that_fills_a_group_runs_its_tasks_instead_of_piling_them_up() {
    on_grid(|pool| {
        let (inner, ahead) = (pool.clone(), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let watched = Arc::clone(&most);
        pool.spawn(move || {
            let taken = Arc::clone(&ahead);
            let items = (0..20_000).inspect(|_| {
                watched.fetch_max(taken.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            });
            let done = Arc::clone(&ahead);
            inner.try_map(items, move |_| {
                done.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ()>(())
            })
        })
        .unwrap()
        .join()
        .unwrap()
        .unwrap();
        assert!(most.load(Ordering::SeqCst) <= pool.queue_capacity() + pool.workers() + 1);
    });
}

#[test]
fn a_worker_that_waits_for_room_wakes_when_a_runner_leaves_tasks_behind() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let inner = pool.clone();
        let ended = pool.spawn(move || {
            let mut group = inner.group().limit(1).capacity(1);
            let (spawner, gate) = (group.spawner(), Gate::new());
            let (ready, starts) = mpsc::channel();
            let held = gate.clone();
            let filler = inner.spawn(move || {
                ready.send(()).unwrap();
                held.wait_started(1);
                spawner.spawn(|| Ok(()));
                held.open();
                spawner.spawn(|| Ok(())); // full, and the one runner is at its limit
            });
            starts.recv().unwrap(); // so the other worker is busy, and this one runs the first task
            let inside = gate.clone();
            group.spawn(move || {
                inside.pass();
                Ok::<_, ()>(())
            });
            // This worker runs the first task, and stops with the second left.
            assert!(group.completions().next().is_some());
            filler.unwrap().join().unwrap();
            group.completions().count()
        });
        assert_eq!(ended.unwrap().join().unwrap(), 2);
    });
}

#[test]
fn a_late_spawn_does_not_spoil_a_wait() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        for _ in 0..5_000 {
            let group = pool.group().policy(GroupPolicy::CollectAll);
            let spawner = group.spawner();
            thread::scope(|threads| {
                let adder = threads.spawn(move || (0..3_usize).for_each(|n| spawner.spawn(move || Ok::<_, ()>(n))));
                // All, or those that came in time; never an error.
                let values = group.wait().unwrap();
                assert!(values.len() <= 3 && values.iter().copied().eq(0..values.len()));
                join_all([adder]);
            });
        }
    });
}
