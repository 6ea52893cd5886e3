//! The values that there are when a group does not succeed.

use std::time::{Duration, Instant};

use crate::AddAnd;
use crate::common::{self, Counter, DropCounter, Gate, LIMIT, in_threads, on_grid, pool, spawn_parked, with_watchdog};
use workcrew::{CancelReason, GroupError, GroupPolicy, TaskGroup};

type Pages = TaskGroup<Result<usize, &'static str>>;

/// Fills a group that runs one task at a time: two tasks end, one runs until its token is cancelled, and one is never
/// started. Returns the group when the third runs.
fn half_done(group: Pages, ran: &Counter) -> Pages {
    let group = group.limit(1).capacity(8);
    let (gate, token, counted) = (Gate::new(), group.token().clone(), ran.clone());
    group.spawn(|| Ok(0));
    group.spawn(|| Ok(1));
    let inside = gate.clone();
    group.spawn(move || {
        inside.open();
        inside.pass();
        assert!(token.wait_timeout(LIMIT));
        Ok(2)
    });
    gate.wait_started(1);
    group.spawn(move || counted.add_and(Ok(3)));
    group
}

/// Fault 346.
#[test]
fn values_that_are_there_at_a_deadline_are_returned() {
    with_watchdog(|| {
        in_threads(|threads| {
            for workers in [1, 2, 8] {
                threads.spawn(move || {
                    let (pool, ran) = (pool(workers, 4), Counter::new());
                    // Long enough for the third task to start, for which `half_done` waits.
                    let group = half_done(pool.group().deadline(Instant::now() + Duration::from_secs(2)), &ran);
                    let (values, end) = group.wait_partial();
                    assert_eq!((values, ran.get()), (vec![0, 1, 2], 0));
                    assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Expired))));
                });
            }
        });
    });
}

/// Fault 346.
#[test]
fn values_that_are_there_at_a_cancellation_are_returned() {
    with_watchdog(|| {
        on_grid(|pool| {
            let ran = Counter::new();
            let group = half_done(pool.group(), &ran);
            group.cancel();
            let (values, end) = group.wait_partial();
            assert_eq!((values, ran.get()), (vec![0, 1, 2], 0));
            assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Requested))));

            // After a wait that was too short.
            let Err(group) = half_done(pool.group(), &ran).wait_timeout(Duration::from_millis(1)) else {
                panic!("a task runs")
            };
            group.cancel();
            assert_eq!((group.wait_partial().0, ran.get()), (vec![0, 1, 2], 0));
        });
    });
}

/// Fault 346.
#[test]
fn values_that_are_there_at_the_first_error_are_returned() {
    common::quiet_panics();
    on_grid(|pool| {
        let fill = |policy| {
            let group = pool.group().policy(policy).limit(1).capacity(8);
            group.spawn_all([Ok(1), Ok(2), Err("third"), Ok(4)].map(|result| move || result));
            group
        };
        let (values, end) = fill(GroupPolicy::FailFast).wait_partial();
        assert_eq!(values, [1, 2]);
        assert!(matches!(end, Err(GroupError::Failed("third"))));
        let (values, end) = fill(GroupPolicy::CollectAll).wait_partial();
        assert_eq!(values, [1, 2, 4]);
        assert!(matches!(end, Err(GroupError::Failed("third"))));
        let (values, end) = fill(GroupPolicy::FirstSuccess).wait_partial();
        assert!(end.is_ok() && values == [1]);
        // Nothing is missing, and nothing is there.
        let (values, end) = pool.group::<Result<u8, u8>>().wait_partial();
        assert!(end.is_ok() && values.is_empty());
        let panics = pool.group::<()>().limit(1).capacity(4);
        panics.spawn(|| ());
        panics.spawn(|| panic!("second"));
        let (values, end) = panics.wait_partial();
        assert!(values.len() == 1 && matches!(end, Err(GroupError::Panicked(_))));
    });
}

/// Fault 346.
#[test]
fn a_wait_for_partial_values_that_cannot_end_is_an_error() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let (give, take) = std::sync::mpsc::channel::<Pages>();
        let (told, tell) = std::sync::mpsc::channel();
        let group = pool.group();
        group.spawn(move || {
            let (values, end) = take.recv().unwrap().wait_partial();
            told.send(values.is_empty() && matches!(end, Err(GroupError::WouldDeadlock(_)))).unwrap();
            Ok(1)
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

/// Fault 147.
#[test]
fn errors_that_a_partial_wait_does_not_return_are_dropped_before_it_returns() {
    with_watchdog(|| {
        let (pool, dropped) = (pool(2, 8), Counter::new());
        for round in 1..=200 {
            let group = pool.group::<Result<(), DropCounter>>().policy(GroupPolicy::CollectAll);
            for _ in 0..4 {
                let error = DropCounter(dropped.clone());
                group.spawn(move || Err(error));
            }
            let (_, end) = group.wait_partial();
            assert_eq!(dropped.get(), 4 * round - 1, "in round {round}, the first error is alive");
            drop(end);
        }
    });
}

/// Fault 348.
#[test]
fn a_spawner_shows_progress_and_cancels_while_another_thread_waits() {
    with_watchdog(|| {
        on_grid(|pool| {
            let ran = Counter::new();
            let group = half_done(pool.group(), &ran);
            let (spawner, later) = (group.spawner(), group.spawner());
            let waiter = spawn_parked(move || group.wait_partial());
            assert_eq!((spawner.progress().done, spawner.progress().total, spawner.is_cancelled()), (2, 4, false));
            spawner.cancel();
            assert!(spawner.is_cancelled() && spawner.token().reason() == Some(CancelReason::Requested));
            let (values, end) = waiter.join().unwrap();
            assert_eq!((values, ran.get()), (vec![0, 1, 2], 0));
            assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Requested))));
            later.cancel(); // without effect
            assert_eq!((later.progress().done, later.progress().total), (4, 4));
        });
    });
}

/// Fault 348.
#[test]
fn a_task_ends_its_group_through_a_spawner() {
    on_grid(|pool| {
        let group = pool.group().limit(1).capacity(8);
        let (gate, spawner) = (Gate::new(), group.spawner());
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            spawner.cancel();
            Ok::<_, ()>("found")
        });
        group.spawn(|| panic!("it never starts"));
        gate.open();
        let (values, end) = group.wait_partial();
        assert_eq!(values, ["found"]);
        assert!(matches!(end, Err(GroupError::Cancelled(CancelReason::Requested))));
    });
}

#[test]
fn a_group_is_extended_like_a_collection() {
    on_grid(|pool| {
        let mut group = pool.group();
        group.extend((0..50).map(|n| move || Ok::<_, ()>(n)));
        group.extend([|| Ok(50)]);
        assert!(group.wait().unwrap().into_iter().eq(0..51));
        let mut endless = pool.group().label("endless");
        let line = line!() + 1;
        endless.extend((0..).map(|n| move || if n == 7 { Err(n) } else { Ok(()) }));
        let error = endless.wait_with_task().unwrap_err();
        assert_eq!((error.task().unwrap().index(), error.task().unwrap().location().line()), (Some(7), line));
    });
}
