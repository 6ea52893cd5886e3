//! Every way in which a group is cancelled: by hand, deadline, token, parent, shutdown, drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, LIMIT, assert_counts_add_up, on_grid, pool, with_watchdog,
};
use workcrew::{CancelReason, CancellationToken, GroupError, TrySubmitError};

/// A task that a member runs in its own place leaves a gap between those that wait.
#[test]
fn outcomes_of_cancelled_tasks_keep_their_order_of_spawning() {
    let pool = pool(2, 64);
    let group = pool.group::<()>().capacity(2);
    let spawner = group.spawner();
    group.spawn(move || {
        let (first, second) = (Gate::new(), Gate::new());
        let (in_first, in_second) = (first.clone(), second.clone());
        spawner.spawn(move || in_first.pass());
        first.wait_started(1);
        spawner.spawn(move || in_second.pass());
        spawner.spawn(|| unreachable!("it waits until the group is cancelled"));
        spawner.spawn(|| ()); // The group is full: it runs here.
        first.open();
        second.wait_started(1);
        spawner.spawn(|| unreachable!("it waits until the group is cancelled"));
        spawner.token().cancel();
        second.open();
    });
    let fates: Vec<bool> = group.wait_all().iter().map(Result::is_ok).collect();
    assert_eq!(fates, [true, true, true, false, true, false]);
}

/// A group makes its token when it is asked for; whether that is before or after the event makes no difference.
#[test]
fn a_token_taken_late_agrees_with_a_token_taken_early() {
    on_grid(|pool| {
        for early in [true, false] {
            let group = pool.group::<Result<(), u8>>();
            if early {
                assert!(!group.token().is_cancelled());
            }
            group.cancel();
            assert_eq!(group.token().reason(), Some(CancelReason::Requested));

            let group = pool.group::<Result<(), u8>>();
            let spawner = group.spawner();
            if early {
                assert!(!spawner.token().is_cancelled());
            }
            group.spawn(|| Err(1));
            assert!(matches!(group.wait(), Err(GroupError::Failed(1))));
            assert_eq!(spawner.token().reason(), Some(CancelReason::GroupEnded));

            let group = pool.group();
            let spawner = group.spawner();
            if early {
                assert!(!spawner.token().is_cancelled());
            }
            group.spawn(|| ());
            group.wait().unwrap();
            assert!(!spawner.token().is_cancelled(), "a group that was waited for was not cancelled");
        }
    });
}

#[test]
fn a_token_asked_for_while_tasks_are_queued_drops_them_when_it_is_cancelled() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let group = pool.group();
        let (inside, on_drop) = (ran.clone(), DropCounter(dropped.clone()));
        group.spawn(move || {
            let _on_drop = on_drop;
            inside.add();
        });
        group.token().clone().cancel();
        assert_eq!((ran.get(), dropped.get()), (0, 1));
        wedge.open();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
    });
}

/// Fault 71.
#[test]
fn after_a_cancellation_nothing_starts_and_closures_are_dropped() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let (ran, dropped) = (Counter::new(), Counter::new());
        let task = || {
            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
            move || {
                let _held = held;
                ran.add();
            }
        };
        let group = pool.group().capacity(10);
        (0..10).for_each(|_| group.spawn(task()));
        assert!(!group.is_cancelled());
        group.cancel();
        assert!(group.is_cancelled() && group.token().is_cancelled());
        assert_eq!(dropped.get(), 10);
        group.spawn(task());
        assert_eq!(dropped.get(), 11);
        let error = group.try_spawn(task()).unwrap_err();
        assert!(matches!(error, TrySubmitError::ShutDown(_)));
        drop(error);
        assert_eq!((group.progress().done, group.progress().total), (11, 11));
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_eq!(ran.get(), 0);
        wedge.open();
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn cancelling_after_all_have_succeeded_loses_nothing() {
    on_grid(|pool| {
        let group = pool.group();
        group.spawn_all((0..5).map(|n| move || Ok::<_, ()>(n)));
        while group.progress().done < 5 {
            thread::yield_now();
        }
        group.cancel();
        assert_eq!(group.wait().unwrap(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_deadline_cancels_tasks_that_have_not_started() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group().deadline(Instant::now() + Duration::from_millis(20)).capacity(5);
        let dropped = Counter::new();
        for _ in 0..5 {
            let held = DropCounter(dropped.clone());
            group.spawn(move || drop(held));
        }
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        assert_eq!(dropped.get(), 5);
        wedge.open();
        // One that has passed before the first task; and a spawn that waits for room gives up with the deadline.
        let late = pool.group().deadline(Instant::now());
        late.spawn(|| ());
        assert!(late.try_spawn(|| ()).unwrap_err().is_shut_down());
        assert!(matches!(late.wait(), Err(GroupError::Cancelled(CancelReason::Expired))));
        pool.wait_idle();
        let wedge = BlockedWorkers::new(&pool);
        let full = pool.group().deadline(Instant::now() + Duration::from_millis(20)).capacity(1);
        full.spawn(|| ());
        full.spawn(|| ());
        assert!(full.is_cancelled());
        wedge.open();
    });
}

#[test]
fn the_parents_cancellation_reaches_the_group_and_not_the_other_way_round() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let parent = CancellationToken::new();
        let (one, two) = (pool.group().parent(&parent), pool.group().parent(&parent));
        one.spawn(|| ());
        two.spawn(|| ());
        one.cancel();
        assert!(!parent.is_cancelled() && !two.is_cancelled());
        parent.cancel();
        assert_eq!(two.progress().done, 1);
        assert!(matches!(two.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        let born_cancelled = pool.group().parent(&parent);
        born_cancelled.spawn(|| ());
        assert!(born_cancelled.wait().is_err());
        wedge.open();
    });
}

#[test]
fn cancelling_the_token_cancels_the_group() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group();
        group.spawn(|| ());
        group.token().cancel();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        wedge.open();
    });
}

/// Fault 90.
#[test]
fn a_group_dropped_without_a_wait_cancels_and_does_not_block() {
    on_grid(|pool| {
        let (group, gate, dropped) = (pool.group().capacity(10).limit(1), Gate::new(), Counter::new());
        let token = group.token().clone();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..9 {
            let held = DropCounter(dropped.clone());
            group.spawn(move || drop(held));
        }
        drop(group);
        assert!(token.is_cancelled());
        assert_eq!(dropped.get(), 9);
        gate.open();
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_cancelled, 9);
    });
}

/// Fault 88.
#[test]
fn a_group_of_a_pool_that_is_shut_down_refuses_tasks() {
    on_grid(|pool| {
        let group = pool.group();
        pool.shutdown();
        group.spawn(|| ());
        assert!(group.try_spawn(|| ()).unwrap_err().is_shut_down());
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::ShutDown))));
    });
}

#[test]
fn a_cancelled_token_stops_the_group_even_while_its_callbacks_are_held_up() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let parent = CancellationToken::new();
        let hold = Gate::new();
        let held = hold.clone();
        let _first = parent.on_cancel(move || held.pass()); // called before the group's own
        let group = pool.group().parent(&parent).limit(1);
        let (gate, ran) = (Gate::new(), Counter::new());
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..5 {
            let ran = ran.clone();
            group.spawn(move || ran.add());
        }
        let canceller = thread::spawn(move || parent.cancel());
        hold.wait_started(1);
        assert!(group.is_cancelled());
        gate.open();
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        assert_eq!(ran.get(), 0);
        hold.open();
        canceller.join().unwrap();
    });
}

/// Fault 66.
#[test]
fn a_group_that_was_waited_for_leaves_its_token_as_it_is() {
    on_grid(|pool| {
        let group = pool.group();
        let token = group.token().clone();
        group.spawn(|| ());
        group.wait().unwrap();
        assert!(!token.is_cancelled());
    });
}

#[test]
fn the_deadline_of_a_closed_group_does_not_keep_a_waiter_busy() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let gate = Gate::new();
        let group = pool.group().deadline(Instant::now());
        let inside = gate.clone();
        assert!(group.try_spawn(move || inside.pass()).is_err());
        let deadline = Instant::now() + Duration::from_millis(500);
        let group = pool.group().deadline(deadline);
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1); // before the deadline, which it then outlives
        let group = group.wait_timeout(Duration::from_millis(600)).unwrap_err();
        assert!(Instant::now() > deadline && group.is_cancelled());
        gate.open();
        group.wait().unwrap();
    });
}

#[test]
fn a_callback_of_an_expired_group_may_end_the_pool() {
    on_grid(|pool| {
        // A busy machine may let the deadline pass before the callback is registered, which is then called here and now.
        let (group, deadline, _guard) = (0..)
            .find_map(|doublings| {
                let deadline = Instant::now() + Duration::from_millis(1 << doublings);
                let group = pool.group().deadline(deadline);
                let registered = Arc::new(AtomicBool::new(false));
                let (inner, in_time) = (pool.clone(), Arc::clone(&registered));
                let called = Arc::new(AtomicBool::new(false));
                let noted = Arc::clone(&called);
                let guard = group.token().on_cancel(move || {
                    noted.store(true, Ordering::SeqCst);
                    if in_time.load(Ordering::SeqCst) {
                        assert!(!inner.wait_idle_timeout(LIMIT));
                        inner.shutdown();
                    }
                });
                registered.store(true, Ordering::SeqCst);
                (!called.load(Ordering::SeqCst)).then_some((group, deadline, guard))
            })
            .expect("some deadline is late enough");
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        group.spawn(|| ());
        assert!(pool.is_shut_down());
        assert!(group.wait().is_err());
        pool.shutdown();
        assert_counts_add_up(&pool);
    });
}
