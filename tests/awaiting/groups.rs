//! Groups that are awaited.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use workcrew::{CancelReason, GroupError, GroupPolicy, TaskGroup, WaitForGroup};

use crate::alarm::{Alarm, poll, poll_ready};
use crate::common::{
    BlockedWorkers, Counter, DropCounter, Gate, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog,
};

/// Fault 323.
#[test]
fn a_group_that_is_awaited_returns_what_wait_returns() {
    quiet_panics();
    on_grid(|pool| {
        let group = pool.group();
        group.spawn_all((0..20).map(|n| move || Ok::<_, Infallible>(n)));
        assert_eq!(block_on(group.into_future()).unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!(block_on(pool.group::<()>().into_future()).unwrap(), [], "a group without tasks");
        let group = pool.group();
        group.spawn_all((0..20).map(|n| move || if n == 3 { Err("three") } else { Ok(()) }));
        assert!(matches!(block_on(group.into_future()), Err(GroupError::Failed("three"))));
        let group = pool.group::<()>();
        group.spawn(|| panic!("no"));
        assert!(matches!(block_on(group.into_future()), Err(GroupError::Panicked(_))));
        let group = pool.group().policy(GroupPolicy::FirstSuccess);
        group.spawn_all([Err("a"), Ok(1)].map(|outcome| move || outcome));
        assert_eq!(block_on(group.into_future()).unwrap(), [1]);
        let group = pool.group::<()>();
        group.cancel();
        group.spawn(|| ());
        assert!(matches!(block_on(group.into_future()), Err(GroupError::Cancelled(CancelReason::Requested))));
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 323.
#[test]
fn only_the_last_waker_is_woken_and_only_by_the_last_task() {
    on_grid(|pool| {
        let gate = Gate::new();
        let group = pool.group().capacity(64);
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        group.spawn_all((0..5).map(|_| || ()));
        let mut future = group.into_future();
        let (first, last) = (Alarm::new(), Alarm::with_bell());
        assert!(poll(&mut future, &first).is_pending());
        let alarm = Arc::clone(&last.0);
        let mut future = thread::spawn(move || {
            assert!(poll(&mut future, &alarm).is_pending());
            future
        })
        .join()
        .unwrap();
        gate.open();
        last.1.recv_timeout(crate::common::LIMIT).unwrap();
        assert!(matches!(poll(&mut future, &last.0), Poll::Ready(Ok(values)) if values.len() == 6));
        assert_eq!((first.rung.get(), last.0.rung.get()), (0, 1));
        assert!(poll(&mut future, &last.0).is_pending(), "ready once, then pending forever");
    });
}

/// Fault 324.
#[test]
fn a_future_that_is_dropped_halfway_cancels_what_has_not_started_and_does_not_block() {
    on_grid(|pool| {
        let (gate, dropped, ran) = (Gate::new(), Counter::new(), Counter::new());
        let group = pool.group().limit(1).capacity(64);
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        for _ in 0..5 {
            let (held, ran) = (DropCounter(dropped.clone()), ran.clone());
            group.spawn(move || {
                drop(held);
                ran.add();
            });
        }
        let (token, alarm) = (group.token().clone(), Alarm::new());
        let mut future = group.into_future();
        assert!(poll(&mut future, &alarm).is_pending());
        drop(future);
        assert_eq!((dropped.get(), token.reason()), (5, Some(CancelReason::Requested)));
        assert_eq!(Arc::strong_count(&alarm), 1, "the waker is gone while a task runs");
        gate.open();
        pool.wait_idle();
        assert_eq!((ran.get(), alarm.rung.get()), (0, 0));
        assert_counts_add_up(&pool);
    });
}

/// Fault 324.
#[test]
fn a_future_that_was_never_polled_cancels_its_group_too() {
    let pool = pool(1, 4);
    let blocked = BlockedWorkers::new(&pool);
    let group = pool.group::<()>();
    group.spawn(|| ());
    drop(group.into_future());
    drop(pool.group::<()>().into_future());
    blocked.open();
    pool.wait_idle();
    assert_eq!(pool.metrics().tasks_cancelled, 1);
}

/// Fault 325.
#[test]
fn a_deadline_of_the_group_wakes_the_future() {
    on_grid(|pool| {
        let blocked = BlockedWorkers::new(&pool);
        let group = pool.group::<()>().deadline(Instant::now() + Duration::from_millis(5));
        group.spawn(|| ());
        let ended = poll_ready(&mut group.into_future());
        assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::Expired))), "{ended:?}");
        drop(blocked);
    });
}

/// Fault 323.
#[test]
fn a_task_that_awaits_its_own_group_is_told_so() {
    on_grid(|pool| {
        let (send, receive) = mpsc::channel::<TaskGroup<()>>();
        let (told, tell) = mpsc::channel();
        let group = pool.group();
        group.spawn(move || {
            let group = receive.recv().unwrap();
            told.send(matches!(block_on(group.into_future()), Err(GroupError::WouldDeadlock(_)))).unwrap();
        });
        send.send(group).unwrap();
        assert!(tell.recv().unwrap());
    });
}

/// Fault 323.
#[test]
fn a_worker_that_awaits_a_group_runs_its_tasks() {
    on_grid(|pool| {
        let inner = pool.clone();
        let sum = pool.spawn(move || {
            let group = inner.group();
            for n in 0..10 {
                let innermost = inner.clone();
                group.spawn(move || {
                    let group = innermost.group();
                    group.spawn(move || Ok::<_, Infallible>(n));
                    block_on(group.into_future()).map(|values| values[0])
                });
            }
            block_on(group.into_future()).unwrap().into_iter().sum::<u32>()
        });
        assert_eq!(sum.unwrap().join().unwrap(), 45);
    });
}

/// Fault 323.
#[test]
fn an_awaiting_worker_runs_a_task_that_is_added_later() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (inner, added) = (pool.clone(), Gate::new());
        let outer = pool.spawn(move || {
            let group = inner.group();
            let (spawner, waiting) = (group.spawner(), Gate::new());
            let inside = waiting.clone();
            group.spawn(move || {
                inside.pass(); // until the other worker is about to sleep
                let (ran, run) = mpsc::channel();
                spawner.spawn(move || ran.send(()).unwrap());
                // The awaiting worker is the only one that is left.
                run.recv_timeout(crate::common::LIMIT).unwrap();
            });
            waiting.wait_started(1);
            let mut future = group.into_future();
            let (alarm, rings) = Alarm::with_bell();
            let mut ready = poll(&mut future, &alarm);
            waiting.open();
            while ready.is_pending() {
                rings.recv_timeout(crate::common::LIMIT).unwrap();
                ready = poll(&mut future, &alarm);
            }
            added.open();
        });
        outer.unwrap().join().unwrap();
    });
}

/// Fault 321.
#[test]
fn a_waker_that_panics_harms_neither_the_worker_nor_the_group() {
    quiet_panics();
    on_grid(|pool| {
        let gate = Gate::new();
        let group = pool.group();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        let mut future = group.into_future();
        let (rang, rings) = mpsc::channel();
        let panics = Alarm::that(move || {
            rang.send(()).unwrap();
            panic!("a waker");
        });
        assert!(poll(&mut future, &panics).is_pending());
        gate.open();
        rings.recv().unwrap();
        assert!(block_on(future).is_ok());
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 323.
#[test]
fn a_waker_that_polls_at_once_is_not_taken_for_a_task_of_the_group() {
    on_grid(|pool| {
        let gate = Gate::new();
        let group = pool.group();
        let inside = gate.clone();
        group.spawn(move || inside.pass());
        gate.wait_started(1);
        let future: Arc<Mutex<Option<WaitForGroup<()>>>> = Arc::new(Mutex::new(Some(group.into_future())));
        let (ended, end) = mpsc::channel();
        let polled = Arc::clone(&future);
        let alarm = Alarm::that(move || {
            let mut future = polled.lock().unwrap().take().unwrap();
            ended.send(poll(&mut future, &Alarm::new())).unwrap();
        });
        let mut held = future.lock().unwrap();
        assert!(poll(held.as_mut().unwrap(), &alarm).is_pending());
        drop(held);
        gate.open();
        assert!(matches!(end.recv_timeout(crate::common::LIMIT).unwrap(), Poll::Ready(Ok(_))));
    });
}

/// Fault 442.
#[test]
fn each_wait_of_a_group_has_a_future_that_returns_the_same() {
    quiet_panics();
    on_grid(|pool| {
        let group = |outcomes: &[Result<u32, &'static str>]| {
            let group = pool.group().policy(GroupPolicy::CollectAll);
            group.spawn_all(outcomes.iter().copied().map(|outcome| move || outcome));
            group
        };
        let mixed = [Err("a"), Ok(1), Err("b"), Ok(2)];
        assert!([1, 2].contains(&block_on(group(&mixed).wait_any_async()).unwrap()));
        assert!([1, 2].contains(&block_on(group(&mixed).wait_any_or_errors_async()).unwrap()));
        let outcomes = block_on(group(&mixed).wait_all_async());
        assert_eq!(
            outcomes.iter().map(|outcome| outcome.as_ref().ok()).collect::<Vec<_>>(),
            [None, Some(&1), None, Some(&2)]
        );
        let (values, end) = block_on(group(&mixed).wait_partial_async());
        assert_eq!(values, [1, 2]);
        assert!(matches!(end, Err(GroupError::Failed(_))));
        let failed = block_on(group(&[Ok(1), Err("b")]).wait_with_task_async()).unwrap_err();
        assert_eq!(failed.task().unwrap().index(), Some(1));
        assert_eq!(block_on(group(&[Ok(1), Ok(2)]).wait_with_task_async()).unwrap(), [1, 2]);
        let none = block_on(group(&[Err("a"), Err("b")]).wait_any_or_errors_async()).unwrap_err();
        assert_eq!(none.errors().len(), 2);
        assert!(matches!(block_on(group(&[Err("a")]).wait_any_async()), Err(GroupError::Failed("a"))));
        assert!(matches!(block_on(group(&[]).wait_any_async()), Err(GroupError::WouldDeadlock(_))));
        assert!(block_on(group(&[]).wait_all_async()).is_empty());
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

/// Fault 442.
#[test]
fn the_first_success_wakes_the_future_of_wait_any_and_errors_cancel_nothing_from_the_call_on() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (gate, last) = (Gate::new(), Gate::new());
        let (inside, slow) = (gate.clone(), last.clone());
        let group = pool.group().capacity(64); // the default policy, which an error cancels
        let token = group.token().clone();
        group.spawn(move || {
            slow.pass();
            Err("late")
        });
        group.spawn(move || {
            inside.pass();
            Err("early")
        });
        let spawner = group.spawner();
        let mut future = std::pin::pin!(group.wait_any_async());
        gate.open();
        while spawner.progress().done == 0 {
            thread::yield_now();
        }
        spawner.spawn(|| Ok(7)); // after the error, which has cancelled nothing
        let bell = Alarm::with_bell();
        match poll(&mut future, &bell.0) {
            Poll::Ready(first) => assert_eq!(first.unwrap(), 7),
            Poll::Pending => loop {
                bell.1.recv_timeout(crate::common::LIMIT).unwrap();
                if let Poll::Ready(first) = poll(&mut future, &bell.0) {
                    break assert_eq!(first.unwrap(), 7);
                }
            },
        }
        assert!(token.is_cancelled(), "the rest is cancelled at once");
        last.open();
    });
}

/// Fault 442.
#[test]
fn the_future_of_any_wait_cancels_its_group_when_dropped_and_does_not_block() {
    on_grid(|pool| {
        let (gate, ran) = (Gate::new(), Counter::new());
        let group = || {
            let group = pool.group::<Result<(), ()>>().limit(1).capacity(4);
            let (inside, counted) = (gate.clone(), ran.clone());
            group.spawn(move || {
                inside.pass();
                Ok(())
            });
            group.spawn(move || {
                counted.add();
                Ok(())
            });
            let token = group.token().clone();
            (group, token)
        };
        let mut tokens = Vec::new();
        let mut drop_polled = |(future, token): (std::pin::Pin<Box<dyn Future<Output = ()> + Send>>, _)| {
            let mut future = future;
            assert!(poll(&mut future, &Alarm::new()).is_pending());
            drop(future);
            tokens.push(token);
        };
        let (waited, token) = group();
        drop_polled((Box::pin(async { drop(waited.wait_any_async().await) }), token));
        let (waited, token) = group();
        drop_polled((Box::pin(async { drop(waited.wait_all_async().await) }), token));
        let (waited, token) = group();
        drop_polled((Box::pin(async { drop(waited.wait_partial_async().await) }), token));
        let (waited, token) = group();
        drop_polled((Box::pin(async { drop(waited.wait_with_task_async().await) }), token));
        assert!(tokens.iter().all(workcrew::CancellationToken::is_cancelled));
        gate.open();
        pool.wait_idle();
        assert_eq!(ran.get(), 0);
        assert_counts_add_up(&pool);
    });
}

/// Fault 442.
#[test]
fn a_task_that_awaits_any_wait_of_its_own_group_is_told_so() {
    quiet_panics();
    on_grid(|pool| {
        let slot = Arc::new(Mutex::new(None));
        let group = pool.group::<Result<(), ()>>();
        let (inside, gate) = (Arc::clone(&slot), Gate::new());
        let passed = gate.clone();
        let (sender, told) = mpsc::channel();
        group.spawn(move || {
            passed.pass();
            let own: TaskGroup<Result<(), ()>> = inside.lock().unwrap().take().unwrap();
            let (values, end) = block_on(own.wait_partial_async());
            sender.send(values.is_empty() && matches!(end, Err(GroupError::WouldDeadlock(_)))).unwrap();
            Ok(())
        });
        *slot.lock().unwrap() = Some(group);
        gate.open();
        assert!(told.recv_timeout(crate::common::LIMIT).unwrap());
    });
}
